"""What `dgx-music files …` shows, with the real services behind it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from dgx_music.export.v1.export_pb2 import StreamAudioRequest
from gateway.cli.commands import files
from gateway.cli.display.console import Screen
from gateway.cli.session.runner import Session
from tests.support.embedded_services import House
from tests.support.library_files import clip, completed

LOGGED = re.compile(r"\d{4}-\d\d-\d\d .*\[(debug|info) ")
Captured = pytest.CaptureFixture[str]


def printed(capsys: Captured) -> str:
    """Without the log of the services that run in this process."""
    captured = capsys.readouterr()
    print(captured.err, end="", file=sys.stderr)  # For whoever asks next.
    return "".join(line for line in captured.out.splitlines(keepends=True) if not LOGGED.match(line))


def session(house: House, data_dir: Path) -> Session:
    return Session(house.music, data_dir, lasting=False, notice=print)


async def cleanup(
    house: House, data_dir: Path, *, older_than: str = "", keep: str = "", really: bool = False, as_json: bool = False
) -> None:
    request = files.cleanup_request(older_than, keep, orphans=True, missing=True, kinds=[], dry_run=not really)
    assert await files.cleanup(session(house, data_dir), Screen(as_json=as_json), request) == 0


async def test_files_and_figures(idle: House, tmp_path: Path, capsys: Captured) -> None:
    made, taken = [await completed(idle) for _ in range(2)], await clip(idle)
    here, kinds = session(idle, tmp_path), files.kinds_of(["clip"])
    capsys.readouterr()
    assert await files.list_files(here, Screen(), limit=9, kinds=[]) == 0
    shown = printed(capsys)
    assert len(re.findall(r"output +WAV PCM 24 +0\.2 s +0\.0 MB .* outputs/\S+\.wav", shown)) == 2
    assert re.search(rf"{taken} +clip +WAV FLOAT +1\.0 s +0\.1 MB .* clips/\S+\.wav", shown)
    await files.list_files(here, Screen(as_json=True), limit=9, kinds=kinds)
    assert json.loads(printed(capsys))["generation_id"] == taken
    await files.list_files(here, Screen(as_json=True), limit=2, kinds=[])
    listed = [json.loads(line)["generation_id"] for line in printed(capsys).splitlines()]
    assert set(listed) == {one.id for one in made}

    assert await files.statistics(here, Screen()) == 0
    told = dict(re.findall(r"^(\S+) {2,}(.+?) *$", printed(capsys), re.MULTILINE))
    assert told["files"] == told["wav"] == "3, 0.2 MB"
    assert (told["outputs"], told["clips"]) == ("2, 0.1 MB", "1, 0.1 MB")
    assert re.fullmatch(r"[0-9.]+ GB of [0-9.]+ GB", told["free"])
    await files.statistics(here, Screen(as_json=True))
    assert json.loads(printed(capsys))["total_files"] == "3"

    assert await files.delete_clip(here, Screen(), taken) == 0
    assert f"deleted clip {taken}" in capsys.readouterr().err
    await files.list_files(here, Screen(as_json=True), limit=9, kinds=kinds)
    assert printed(capsys) == ""


async def test_verify_says_what_is_not_as_it_was(idle: House, tmp_path: Path, capsys: Captured) -> None:
    here, screen = session(idle, tmp_path), Screen()
    assert await files.verify(here, screen, [], quick=False) == 0
    assert "files: none\n" in capsys.readouterr().err
    made = [await completed(idle) for _ in range(3)]
    assert await files.verify(here, screen, [], quick=False) == 0
    assert "files: 3 as they landed\n" in capsys.readouterr().err
    (tmp_path / made[0].file_path).write_bytes(b"other bytes")
    (tmp_path / made[1].file_path).unlink()
    assert await files.verify(here, screen, [], quick=False) == 1
    told, errors = printed(capsys), capsys.readouterr().err
    assert f"changed: generation {made[0].id} ({made[0].file_path})\n" in told
    assert f"missing: generation {made[1].id}\n" in told
    assert "files: 1 as they landed, 2 not\n" in errors
    assert await files.verify(here, screen, [made[0].id], quick=True) == 0
    assert "files: 1 there\n" in capsys.readouterr().err
    assert await files.verify(here, Screen(as_json=True), [made[0].id], quick=False) == 1
    assert '"condition": "FILE_CONDITION_CHANGED"' in printed(capsys)


async def test_cleanup_says_first_and_does_then(idle: House, tmp_path: Path, capsys: Captured) -> None:
    made = [await completed(idle) for _ in range(2)]
    (tmp_path / made[0].file_path).unlink()
    missing = f"missing: the file of generation {made[0].id}\n"
    size = f"size: output {made[1].file_path}, 0.0 MB\n"
    await cleanup(idle, tmp_path, keep="0.01MB")
    told, errors = printed(capsys), capsys.readouterr().err
    assert missing + size in told
    assert "would delete 2 with 0.0 MB; --yes does it\n" in errors
    await cleanup(idle, tmp_path, older_than="1h", really=True)
    told, errors = printed(capsys), capsys.readouterr().err
    assert missing in told
    assert "deleted 1 with 0.0 MB\n" in errors
    await cleanup(idle, tmp_path, keep="0GB", as_json=True)
    assert json.loads(printed(capsys).splitlines()[-1])["reason"] == "CLEANUP_REASON_SIZE"


async def test_cleanup_says_what_it_keeps(idle: House, tmp_path: Path, capsys: Captured) -> None:
    made = await completed(idle, seconds=20)
    call = idle.music.StreamAudio(StreamAudioRequest(generation_id=made.id), timeout=60)
    responses = aiter(call)
    await anext(responses)
    await cleanup(idle, tmp_path, keep="0GB", really=True)
    told, errors = printed(capsys), capsys.readouterr().err
    assert f"is being read; try again later: {made.file_path}\n" in told
    assert "deleted 0 with 0.0 MB, kept 1 in use\n" in errors
    call.cancel()
