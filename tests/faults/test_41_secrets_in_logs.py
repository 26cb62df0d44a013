"""Fault 41: what a user describes, and what opens a door, is in no log above debug, in no metric, trace or status."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc.aio
import httpx2
import pytest
from google.rpc import status_pb2

from dgx_music.access.v1 import access_pb2
from dgx_music.channel import connect
from dgx_music.credentials import Credentials
from dgx_music.error_status import DETAILS_KEY
from dgx_music.export.v1 import export_pb2
from dgx_music.gateway.v1.gateway_pb2_grpc import MusicServiceStub
from dgx_music.storage.v1 import storage_pb2 as pb
from tests.support.command_line import InProcessShell, environment
from tests.support.observed_services import read_page
from tests.support.processes import free_ports
from tests.support.service_processes import ServiceProcesses, service_processes
from tests.support.trace_collector import TraceCollector, running_collector

PROMPT = "canary-prompt jazz at 120 BPM"
PASSWORD = "canary-password"
FOREIGN_TOKEN = "dgxm_0123456789abcdef0123456789abcdef_canary-token-0123456789012345678901234567890"
CANARY = re.compile("canary|dgxm_[0-9a-f]{32}_", re.IGNORECASE)
TIMEOUT_SECONDS = 60.0


@pytest.fixture
def collector() -> Any:
    with running_collector() as running:
        yield running


@pytest.fixture
async def services(tmp_path: Path, collector: TraceCollector) -> AsyncIterator[ServiceProcesses]:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    async with service_processes(tmp_path / "data", "storage", "export", "generation", **variables) as running:
        yield running


class Statuses:
    """Calls that fail, and all that their callers are told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def refused(self, call: Any) -> str:
        """Awaits a call that has to fail; returns the name of its status."""
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            pytest.fail(f"accepted: {await call}")
        metadata = dict(raised.value.trailing_metadata() or ())
        details = status_pb2.Status.FromString(metadata.get(DETAILS_KEY, b""))
        self.texts += [raised.value.details() or "", str(details), repr(details.SerializeToString())]
        return raised.value.code().name


def damage(data_dir: Path) -> None:
    """Makes each statement that inserts a generation fail."""
    (file,) = data_dir.glob("*.db")
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TRIGGER canary BEFORE INSERT ON generations BEGIN SELECT no_such_function(1); END")


@pytest.mark.slow
async def test_prompts_tokens_and_passwords_are_nowhere(services: ServiceProcesses, collector: TraceCollector) -> None:
    port, statuses = free_ports(1)[0], Statuses()
    await services.start("gateway", DGX_MUSIC_METRICS_PORT=str(port), DGX_MUSIC_REQUIRE_TOKENS="false")
    music, output = services.music, {"tag_prompt": True, "publication": {"title": "canary-title"}}
    request = pb.CreateGenerationRequest(prompt=PROMPT, model_name="sketch", duration_seconds=0.2, output=output)
    done = (await music.CreateGeneration(request, timeout=TIMEOUT_SECONDS)).generation
    async for update in music.WatchGeneration(pb.WatchGenerationRequest(id=done.id), timeout=TIMEOUT_SECONDS):
        assert update.generation.state != pb.GENERATION_STATE_FAILED, update
    edit = export_pb2.EditTagsRequest(generation_id=done.id, title="canary-title", artist="canary-artist")
    await music.EditTags(edit, timeout=TIMEOUT_SECONDS)
    token = await music.CreateToken(access_pb2.CreateTokenRequest(name="x", scope=access_pb2.SCOPE_READ))
    async with connect(services.address("gateway"), Credentials(token=token.secret)) as channel:
        await MusicServiceStub(channel).ListModels(pb.GetStatisticsRequest())  # type: ignore[arg-type]
    async with connect(services.address("gateway"), Credentials(token=FOREIGN_TOKEN)) as channel:
        models = MusicServiceStub(channel).ListModels
        assert await statuses.refused(models(pb.GetStatisticsRequest())) == "UNAUTHENTICATED"  # type: ignore[arg-type]

    # What the caller did wrong.
    wrong: dict[str, Any] = {
        "edit": {"source_id": done.id},
        "loop": {"bars": 1, "bpm": 1e9},
        "conditioning": {"negative_prompt": "canary \0"},
        "output": {"publication": {"title": "canary" * 99}},
        "prompt": "canary\0",
        "sampling": {"top_p": -1},
    }
    for name, value in wrong.items():
        bad = pb.CreateGenerationRequest(
            **{"prompt": PROMPT, "duration_seconds": 1, "model_name": "sketch", name: value}
        )
        assert await statuses.refused(music.CreateGeneration(bad, timeout=TIMEOUT_SECONDS)) in (
            "INVALID_ARGUMENT",
            "FAILED_PRECONDITION",
        ), name
    for call, bad_request in (
        (music.EditTags, export_pb2.EditTagsRequest(generation_id=done.id, title="canary" * 100)),
        (services.storage.GetPrompt, pb.GetPromptRequest(text="canary that is not there")),
        (music.ListPrompts, pb.ListPromptsRequest(text_contains="canary", page_token="x")),
        (music.ListGenerations, pb.ListGenerationsRequest(prompt_contains="canary" * 3000, page_size=-1)),
        (services.storage.UpdateMetadata, pb.UpdateMetadataRequest(id=done.id, metadata={"key": "canary" * 999_999})),
    ):
        await statuses.refused(call(bad_request, timeout=TIMEOUT_SECONDS))

    # What goes wrong inside: in the database, and in the code around it.
    damage(services.data_dir)
    assert await statuses.refused(music.CreateGeneration(request, timeout=TIMEOUT_SECONDS)) == "INTERNAL"
    await services.kill("storage")
    await services.start("storage", DGX_MUSIC_FAILPOINT="storage.before_commit:raise")
    rating = pb.RateGenerationRequest(id=done.id, rating=3)
    assert await statuses.refused(services.storage.RateGeneration(rating)) == "INTERNAL"

    _, url = await services.start_http(DGX_MUSIC_REQUIRE_TOKENS="true")
    async with httpx2.AsyncClient(base_url=url, headers={"authorization": f"Bearer {FOREIGN_TOKEN}"}) as http:
        for path in ("/v1/audio/speech", "/v1/music?text=canary"):
            answer = await http.post(path, json={"input": PROMPT, "prompt": PROMPT}, timeout=TIMEOUT_SECONDS)
            assert answer.status_code == 401
            statuses.texts.append(f"{answer.headers} {answer.text}")

    logs = "".join(process.log_file.read_text() for process in services.running.values())
    logs += (services.data_dir.parent / "data-storage.log").read_text()
    assert logs.count("unexpected_error") >= 2
    found = [line for line in logs.splitlines() if CANARY.search(line)]
    assert not found, [line[:2000] for line in found]
    assert not CANARY.search("\n".join(statuses.texts)), [one for one in statuses.texts if CANARY.search(one)]
    page = read_page(port)
    assert "grpc_server_handled" in page
    assert not CANARY.search(page)
    collector.wait_for(lambda span: span.name.endswith("RateGeneration") and span.is_error)
    assert not CANARY.search(repr(collector.spans))


def test_passwords_in_settings_are_not_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shell = InProcessShell(tmp_path / "data", capfd)
    for scheme in ("postgresql", ""):
        url = f"{scheme}://canary-user:{PASSWORD}@127.0.0.1:1/music?password={PASSWORD}"
        settings = {"DGX_MUSIC_DATABASE_URL": url, "DGX_MUSIC_SERVICE_TOKEN": PASSWORD, "DGX_MUSIC_TOKEN": PASSWORD}
        for words in (("config", "show"), ("doctor",), ("history",), ("serve", "storage"), ("history", "--debug")):
            done = shell._run(["--data-dir", str(shell.data_dir), *words], environment(**settings))
            shown = done.stdout + done.stderr
            assert shown
            assert PASSWORD not in shown, shown
            assert "--debug" in words or "Traceback" not in shown, shown
