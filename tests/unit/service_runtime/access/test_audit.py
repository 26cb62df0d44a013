"""What is a line in the audit log, and what is in it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from dgx_music.access.v1 import access_pb2
from dgx_music.errors import FailedPrecondition
from dgx_music.storage.v1 import storage_pb2
from service_runtime.access.audit import MAX_IDS, AuditLog, find_ids, is_audited
from service_runtime.access.caller import Caller, Scope
from tests.support.log_capture import captured_logs

SERVICE, PERSON = Caller(Scope.SERVICE, "studio", "10.0.0.2"), Caller(Scope.ADMIN, "laptop", "10.0.0.3", "abcdefgh")


@pytest.mark.parametrize(
    ("service", "required", "caller", "names_client", "audited"),
    [
        ("storage", Scope.READ, PERSON, False, False),
        ("storage", Scope.READ, None, False, False),
        ("storage", Scope.GENERATE, PERSON, False, True),
        ("storage", Scope.ADMIN, PERSON, True, True),
        ("storage", Scope.ADMIN, None, False, True),
        ("storage", Scope.SERVICE, PERSON, False, True),
        ("storage", Scope.SERVICE, SERVICE, False, False),
        ("storage", Scope.GENERATE, SERVICE, True, False),  # The gateway has a line about it.
        ("storage", Scope.GENERATE, SERVICE, False, True),
        ("gateway", Scope.ADMIN, SERVICE, True, True),  # Nobody else has one.
        ("gateway", Scope.READ, SERVICE, True, False),
    ],
)
def test_is_audited(service: str, required: Scope, caller: Caller | None, names_client: bool, audited: bool) -> None:
    assert is_audited(f"/dgx_music.{service}.v1.X/Y", required, caller, names_client) is audited


def test_ids_of_requests_and_responses() -> None:
    assert find_ids(
        storage_pb2.CreateGenerationRequest(request_id="no", prompt="no", model_name="no", metadata={"id": "no"}),
        storage_pb2.CreateGenerationResponse(generation=storage_pb2.Generation(id="a")),
    ) == ["a"]
    batch = storage_pb2.BatchCreateGenerationsResponse(generations=[storage_pb2.Generation(id=i) for i in ("a", "b")])
    assert find_ids(None, batch) == ["a", "b"]
    created = access_pb2.CreateTokenResponse(token=access_pb2.Token(id="abcdefgh", name="no"), secret="no")
    assert find_ids(access_pb2.CreateTokenRequest(name="kitchen"), created) == ["kitchen", "abcdefgh"]
    long = storage_pb2.BatchCreateGenerationsResponse(
        generations=[storage_pb2.Generation(id=f"{i}" * 100) for i in range(2 * MAX_IDS)]
    )
    found = find_ids(long)
    assert len(found) == MAX_IDS
    assert max(map(len, found)) == 64


async def test_file_has_a_line_of_json_for_each_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    log = AuditLog(file)
    log.record("/a.B/Delete", PERSON, "10.0.0.3", ["x\n"], "OK")
    await log.close()
    moved = file.rename(tmp_path / "audit.log.1")
    log = AuditLog(file)
    log.record("/a.B/Delete", None, "10.0.0.4", [], "UNAUTHENTICATED")
    await log.close()
    log.record("/a.B/Late", None, "10.0.0.4", [], "CANCELLED")  # Only in the log of the process.
    [first], [second] = ([json.loads(line) for line in path.read_text().splitlines()] for path in (moved, file))
    assert first.pop("time") <= second.pop("time")
    assert first == {
        "event": "audit",
        "method": "/a.B/Delete",
        "code": "OK",
        "client": "laptop",
        "token_id": "abcdefgh",
        "scope": "admin",
        "host": "10.0.0.3",
        "ids": ["x\n"],
    }
    assert (second["client"], second["host"], second["code"]) == (None, "10.0.0.4", "UNAUTHENTICATED")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"DGX_MUSIC_AUDIT_LOG=.*/no/a: the file can't be written"):
        AuditLog(tmp_path / "no/a")
    folder = tmp_path / "logs"
    folder.mkdir()
    log = AuditLog(folder / "a")
    (folder / "a").unlink()
    folder.rmdir()
    with captured_logs("json") as captured:
        log.record("/a.B/Delete", PERSON, "10.0.0.3", [], "OK")
        await log.close()
    assert [json.loads(line)["event"] for line in captured.getvalue().splitlines()] == [
        "audit",
        "audit_log_not_written",
    ]
