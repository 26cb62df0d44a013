"""Who may import whom. ARCHITECTURE.md states these rules; here they are checked against every import, and each rule is
seen to fail on a source tree that breaks it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import architecture
from tests.support.architecture import SourceTree

ROOT = Path(__file__).parents[2]

MAY_IMPORT = {
    "dgx_music": (),
    "service_runtime": ("dgx_music",),
    "storage_service": ("dgx_music", "service_runtime"),
    "export_service": ("dgx_music", "service_runtime"),
    "generation_service": ("dgx_music", "service_runtime"),
    "gateway": ("dgx_music", "service_runtime", "storage_service", "export_service", "generation_service"),
}
"""Package → the other packages of the project that it may import."""

STUBS = {
    "service_runtime": ("dgx_music.access", "dgx_music.audio"),
    "storage_service": ("dgx_music.access", "dgx_music.audio", "dgx_music.storage"),
    "export_service": ("dgx_music.access", "dgx_music.audio", "dgx_music.export"),
    "generation_service": (
        "dgx_music.access",
        "dgx_music.audio",
        "dgx_music.storage",
        "dgx_music.export",
        "dgx_music.generation",
    ),
}
"""Package → the contracts that it may know: generation calls storage and export, which call nobody."""

ONLY_IN = {
    "torch": ("generation_service",),
    "transformers": ("generation_service",),
    "sqlalchemy": ("storage_service",),
    "alembic": ("storage_service",),
    "soundfile": ("export_service",),
    "av": ("export_service",),
    "typer": ("gateway",),
    # Servers are called by their stubs: the client's conveniences are for programs outside.
    "dgx_music.client": ("dgx_music", "gateway"),
    "rich": ("gateway",),
    "starlette": ("gateway",),
    "uvicorn": ("gateway",),
    "mcp": ("gateway",),
    "ray": ("gateway",),
}
"""Library → the packages that may import it."""

WIRE = ("grpc", "google", "grpc_status", "grpc_health", "dgx_music")
"""What the domain of a service knows nothing of."""
NOT_THE_WIRE = ("dgx_music.address", "dgx_music.errors", "dgx_music.limits")
"""What of `dgx_music` carries no gRPC."""

AT_THE_WIRE = {
    "storage_service": ("storage_service.rpc",),
    "export_service": ("export_service.rpc",),
    "generation_service": ("generation_service.rpc", "generation_service.worker"),
}
"""Service → the sub-packages of it that are not its domain. Generation's worker is a client of storage and export."""

LAYERS = {
    "dgx_music": (
        ("dgx_music",),
        ("dgx_music.client.blocking",),
        ("dgx_music.client",),
        ("dgx_music.channel", "dgx_music.error_status", "dgx_music.pcm"),
        ("dgx_music.credentials", "dgx_music.renewing_channel"),
        (
            "dgx_music.address",
            "dgx_music.config_file",
            "dgx_music.errors",
            "dgx_music.limits",
            "dgx_music.response_stream",
            "dgx_music.trace_context",
            "dgx_music.watched_file",
            "dgx_music.wrapping_channel",
            "dgx_music.hatch_build",
            "dgx_music.access",
            "dgx_music.audio",
            "dgx_music.export",
            "dgx_music.gateway",
            "dgx_music.generation",
            "dgx_music.storage",
        ),
    ),
    "service_runtime": (
        ("service_runtime.rpc", "service_runtime.generated_length"),
        ("service_runtime.access", "service_runtime.shaping"),
        ("service_runtime.observability", "service_runtime.audio", "service_runtime.validation"),
        (
            "service_runtime.settings",
            "service_runtime.capabilities",
            "service_runtime.message_fields",
            "service_runtime.prompt_tempo",
            "service_runtime.health_thread",
            "service_runtime.failpoints",
            "service_runtime.file_modes",
            "service_runtime.method_wrapping",
            "service_runtime.optional_deps",
            "service_runtime.printable_text",
            "service_runtime.supervision",
            "service_runtime",
        ),
        ("service_runtime.config_source",),
    ),
    "storage_service": (
        ("storage_service.rpc",),
        ("storage_service.sweeper", "storage_service"),
        ("storage_service.async_store", "storage_service.api", "storage_service.maintenance"),
        ("storage_service.domain", "storage_service.pooler"),
        ("storage_service.search",),
        ("storage_service.db",),
        ("storage_service.events",),
        ("storage_service.states", "storage_service.config"),
        ("storage_service.database_url",),
    ),
    "export_service": (
        ("export_service.rpc",),
        ("export_service.objects",),
        ("export_service.pipeline",),
        ("export_service.streaming",),
        ("export_service.library",),
        ("export_service.decoding",),
        ("export_service.formats",),
        ("export_service.retagging",),
        ("export_service.tagging",),
        ("export_service.analysis",),
        ("export_service.dsp",),
        ("export_service.config", "export_service.threads", "export_service"),
    ),
    "generation_service": (
        ("generation_service.rpc",),
        ("generation_service.worker",),
        ("generation_service.joining", "generation_service.parts", "generation_service.processes"),
        ("generation_service.engine",),
        ("generation_service.models.conversion", "generation_service.models.diagnostics"),
        ("generation_service.models.discovery", "generation_service.models.device_diagnostics"),
        ("generation_service.models.audiocraft", "generation_service.models.catalog"),
        ("generation_service.models.magnet",),
        (
            "generation_service.models.diffusion",
            "generation_service.models.musicgen",
            "generation_service.models.sketch",
        ),
        ("generation_service.models.musicgen.resident",),
        ("generation_service.models.musicgen.conditioners",),
        (
            "generation_service.models.musicgen.lm",
            "generation_service.models.musicgen.codec",
            "generation_service.models.sketch.synthesis",
        ),
        ("generation_service.models.musicgen.code_generator", "generation_service.models.musicgen.planning"),
        ("generation_service.models.musicgen.adapters",),
        (
            "generation_service.models.musicgen.checkpoints",
            "generation_service.models.musicgen.kernels",
            "generation_service.models.sketch.composition",
        ),
        ("generation_service.models.musicgen.sampling", "generation_service.models.musicgen.sliding_window"),
        ("generation_service.models.musicgen.conditions", "generation_service.models.musicgen.delay_pattern"),
        ("generation_service.models.musicgen.philox",),
        (
            "generation_service.models.params",
            "generation_service.models.notation",
            "generation_service.models.device",
            "generation_service.models.model_card",
            "generation_service.models.model_folders",
        ),
        (
            "generation_service.models.base",
            "generation_service.models.device_errors",
            "generation_service.models.execution",
            "generation_service.models.finding",
            "generation_service.models.published",
            "generation_service.models.sketch.pads",
        ),
        ("generation_service.hardware",),
        ("generation_service.config", "generation_service.models", "generation_service"),
    ),
    "gateway": (
        ("gateway.__main__",),
        ("gateway.cli",),
        ("gateway.cli.apps",),
        ("gateway.cli.options",),
        ("gateway.cli.commands",),
        ("gateway.cli.display", "gateway.cli.playback"),
        ("gateway.cli.session",),
        ("gateway.cli.signals",),
        ("gateway.ray",),
        ("gateway.embedded",),
        ("gateway.settings_catalog",),
        ("gateway.http", "gateway.mcp", "gateway.studio"),
        ("gateway.daw",),
        ("gateway.web",),
        ("gateway.rpc",),
        ("gateway.config", "gateway.file_names", "gateway.file_replacement", "gateway.timeouts", "gateway"),
    ),
}
"""Package → its sub-packages and top modules, from the top to the bottom: each imports only those below it."""

SERVERS = ("service_runtime.rpc.server", "gateway.embedded.services", "grpc.aio.server", "subprocess.Popen")
"""What starts a server."""

MAX_MODULES = 15
SHARED_NAMES = ("__init__", "server", "servicer", "converters", "config")
"""Names that several modules may have: every service has these."""
MAX_LINES = 300


@pytest.fixture(scope="module")
def tree() -> SourceTree:
    tree = SourceTree(ROOT, tuple(MAY_IMPORT))
    assert set(MAY_IMPORT) < set(tree.modules)
    return tree


def test_packages_import_only_those_below_them(tree: SourceTree) -> None:
    assert architecture.package_violations(tree, MAY_IMPORT) == []


def test_services_know_only_the_contracts_they_call(tree: SourceTree) -> None:
    assert architecture.stub_violations(tree, STUBS) == []


def test_libraries_are_confined_to_their_packages(tree: SourceTree) -> None:
    assert architecture.library_violations(tree, ONLY_IN) == []


@pytest.mark.parametrize("service", AT_THE_WIRE)
def test_domain_knows_nothing_of_grpc(tree: SourceTree, service: str) -> None:
    assert architecture.wire_violations(tree, service, AT_THE_WIRE[service], WIRE, NOT_THE_WIRE) == []


@pytest.mark.parametrize("package", LAYERS)
def test_imports_point_down(tree: SourceTree, package: str) -> None:
    assert architecture.layer_violations(tree, LAYERS[package]) == []


def test_no_import_cycle(tree: SourceTree) -> None:
    assert architecture.cycle(tree) == []


def test_no_folder_is_crowded(tree: SourceTree) -> None:
    assert architecture.crowded_folders(tree, MAX_MODULES) == {}


def test_module_names_are_unique(tree: SourceTree) -> None:
    assert architecture.shared_names(tree, SHARED_NAMES) == {}


def test_unit_tests_mirror_the_modules(tree: SourceTree) -> None:
    assert architecture.unmirrored_tests(tree, ROOT / "tests/unit") == []


def test_unit_tests_start_no_server() -> None:
    tests = SourceTree(ROOT, ("tests",))
    assert architecture.unit_tests_that_serve(tests, "tests.unit", SERVERS) == []


def test_log_events_are_snake_case_names(tree: SourceTree) -> None:
    assert architecture.misnamed_log_events(tree) == []


def test_modules_are_short(tree: SourceTree) -> None:
    assert architecture.long_modules(tree, MAX_LINES) == {}


class TestEachRuleCanFail:
    """Every rule above, on a tree that breaks it."""

    @pytest.fixture
    def tree(self, tmp_path: Path) -> SourceTree:
        for package in ("service", "dgx_music"):
            (tmp_path / package).mkdir()
            (tmp_path / package / "__init__.py").touch()
        return SourceTree(tmp_path, ("service", "dgx_music"))

    def write(self, tree: SourceTree, module: str, code: str) -> None:
        path = tree.root / f"{module.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)

    def test_package_direction(self, tree: SourceTree) -> None:
        self.write(tree, "dgx_music.client", "def connect():\n    from service.deep import channel\n")
        assert architecture.package_violations(tree, {"dgx_music": (), "service": ("dgx_music",)}) == [
            "dgx_music.client imports service.deep.channel"
        ]

    def test_stub_of_a_service_above(self, tree: SourceTree) -> None:
        self.write(tree, "dgx_music.gateway.v1.gateway_pb2", "")
        self.write(tree, "dgx_music.audio.v1.audio_pb2", "")
        self.write(
            tree,
            "service.a",
            "from dgx_music.gateway.v1 import gateway_pb2\nfrom dgx_music.audio.v1 import audio_pb2\n",
        )
        assert architecture.stub_violations(tree, {"service": ("dgx_music.audio",)}) == [
            "service.a imports dgx_music.gateway.v1.gateway_pb2"
        ]

    def test_library_outside_its_package(self, tree: SourceTree) -> None:
        self.write(tree, "service.a", "import torch.nn\n")
        assert architecture.library_violations(tree, {"torch": ("engine",)}) == ["service.a imports torch"]

    def test_wire_in_the_domain(self, tree: SourceTree) -> None:
        self.write(tree, "service.domain.a", "import grpc.aio\nfrom dgx_music.errors import NotFound\n")
        self.write(tree, "service.rpc.b", "import grpc.aio\n")
        assert architecture.wire_violations(tree, "service", ("service.rpc",), WIRE, NOT_THE_WIRE) == [
            "service.domain.a imports grpc.aio"
        ]

    def test_import_upwards_and_sideways(self, tree: SourceTree) -> None:
        self.write(tree, "service.domain.a", "from service.rpc.b import serve\n")
        self.write(tree, "service.rpc.b", "from service.domain import a\n")
        self.write(tree, "service.db.c", "from service.domain.a import x\n")
        self.write(tree, "service.stray", "")
        layers = (("service.rpc",), ("service.domain", "service.db"))
        assert architecture.layer_violations(tree, layers) == [
            "service belongs to no layer",
            "service.db.c imports service.domain.a.x, which is not below it",
            "service.domain.a imports service.rpc.b.serve, which is not below it",
            "service.stray belongs to no layer",
        ]

    def test_cycle(self, tree: SourceTree) -> None:
        self.write(tree, "service.a", "from service.b import x\n")
        self.write(tree, "service.b", "def f():\n    from service import a\n")
        assert set(architecture.cycle(tree)) == {"service.a", "service.b"}

    def test_cycle_through_a_stub(self, tree: SourceTree) -> None:
        self.write(tree, "dgx_music.client", "from dgx_music.audio.v1 import audio_pb2\n")
        self.write(tree, "dgx_music.audio.v1.audio_pb2", "from dgx_music import client\n")
        assert set(architecture.cycle(tree)) == {"dgx_music.client", "dgx_music.audio.v1.audio_pb2"}

    def test_crowded_folder(self, tree: SourceTree) -> None:
        for name in "abc":
            self.write(tree, f"service.{name}", "")
        assert architecture.crowded_folders(tree, 2) == {"service": 3}

    def test_shared_name(self, tree: SourceTree) -> None:
        for module in ("service.rpc.server", "service.db.server", "service.rpc.limits", "service.limits"):
            self.write(tree, module, "")
        assert architecture.shared_names(tree, ("server", "__init__")) == {
            "limits": ["service.limits", "service.rpc.limits"]
        }

    def test_long_module(self, tree: SourceTree) -> None:
        self.write(tree, "service.a", "x = 1\n" * 3)
        assert architecture.long_modules(tree, 2) == {"service.a": 3}

    def test_unmirrored_unit_test(self, tree: SourceTree) -> None:
        self.write(tree, "service.domain.leases", "")
        for name in ("domain/test_leases", "domain/test_leases_expiry", "test_leases", "domain/test_other"):
            self.write(tree, f"unit.service.{name.replace('/', '.')}", "")
        assert architecture.unmirrored_tests(tree, tree.root / "unit") == [
            "service/domain/test_other.py",
            "service/test_leases.py",
        ]

    def test_unit_test_that_serves_by_a_helper(self, tree: SourceTree) -> None:
        self.write(tree, "tests.support.servers", "from service_runtime.rpc.server import serve_services\n")
        self.write(tree, "tests.unit.test_a", "def test_it():\n    from tests.support.servers import server\n")
        self.write(tree, "tests.unit.test_b", "import service_runtime.settings\n")
        tests = SourceTree(tree.root, ("tests",))
        assert architecture.unit_tests_that_serve(tests, "tests.unit", SERVERS) == ["tests.unit.test_a"]

    def test_log_event_in_words(self, tree: SourceTree) -> None:
        self.write(tree, "service.a", 'log.info("model_loaded")\nlog.info("model loaded")\nlog.info(f"model_{x}")\n')
        assert architecture.misnamed_log_events(tree) == ["service.a:2", "service.a:3"]
