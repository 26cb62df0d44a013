"""What a cluster needs costs nothing on one machine: the embedded default neither installs nor imports it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from tests.support.command_line import environment

ROOT = Path(__file__).parents[2]
OF_CLUSTERS = {"obstore", "boto3", "ray", "kubernetes", "psycopg", "psycopg_pool"}
"""Libraries that only services on many hosts need, and neighbours that would do the same."""
OF_EXTRAS = {"torch", "transformers", "cryptography", "opentelemetry", "starlette", "uvicorn", "mcp", "av", "c2pa"}
OWN_PARTS = (
    "export_service.objects",
    "gateway.ray",
    "gateway.http.application",
    "gateway.studio.server",
    "gateway.mcp",
)
DEPENDENCIES = {
    "dgx-music-client",
    "grpcio",
    "grpcio-health-checking",
    "grpcio-reflection",
    "grpcio-status",
    "protobuf",
    "pydantic-settings",
    "platformdirs",
    "shellingham",
    "structlog",
    "tomlkit",
    "prometheus-client",
    "nvidia-ml-py",
    "sqlalchemy",
    "pysqlite3",
    "alembic",
    "numpy",
    "scipy",
    "soundfile",
    "soxr",
    "typer",
    "rich",
}
"""What `pip install dgx-music` installs, besides what these need. Whoever adds one says here that everyone needs it."""
GENERATE = """
import atexit, os, sys
names = lambda: os.write(2, ("IMPORTED " + " ".join(sorted(sys.modules))).encode())
atexit.register(names)
from gateway.cli.main import main
main()
"""


def imported_by(*arguments: str, folder: Path) -> set[str]:
    """Runs a command in a process of its own, with all services in it; returns what that has imported."""
    command = [sys.executable, "-c", GENERATE, "--data-dir", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    (names,) = re.findall("IMPORTED (.*)", done.stderr)
    return set(names.split())


def test_embedded_default_imports_nothing_of_clusters(tmp_path: Path) -> None:
    modules = imported_by("generate", "house at 124 BPM", "--duration", "1", folder=tmp_path)
    assert {"storage_service.async_store", "export_service.rpc.server", "generation_service.engine.engine"} <= modules
    libraries = {name.partition(".")[0] for name in modules}
    assert libraries & (OF_CLUSTERS | OF_EXTRAS) == set()
    assert [name for name in modules if name.startswith(OWN_PARTS)] == []


def test_everyone_installs_only_what_everyone_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {Requirement(one).name for one in project["dependencies"]} == DEPENDENCIES
    extras = {Requirement(one).name for name in ("s3", "ray") for one in project["optional-dependencies"][name]}
    assert extras == {"obstore", "ray"}
