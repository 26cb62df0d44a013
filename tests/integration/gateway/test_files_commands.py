"""The output of `dgx-music files …` with embedded services."""

from __future__ import annotations

import json
import re
from pathlib import Path

from dgx_music.export.v1.export_pb2 import StreamAudioRequest
from gateway.cli.commands import files
from gateway.cli.display.console import Console
from gateway.cli.display.units import format_size
from tests.support.embedded_services import EmbeddedServices
from tests.support.library_files import clip, completed
from tests.support.printed_output import Captured, printed, session_for


async def cleanup(
    services: EmbeddedServices,
    data_dir: Path,
    *,
    older_than: str = "",
    keep: str = "",
    confirm: bool = False,
    as_json: bool = False,
) -> None:
    request = files.cleanup_request(older_than, keep, orphans=True, missing=True, kinds=[], dry_run=not confirm)
    assert await files.cleanup(session_for(services, data_dir), Console(as_json=as_json), request) == 0


async def test_list_stats_and_delete_print_files(
    library_services: EmbeddedServices, tmp_path: Path, capsys: Captured
) -> None:
    generations, clip_id = [await completed(library_services) for _ in range(2)], await clip(library_services)
    session, kinds = session_for(library_services, tmp_path), files.parse_kinds(["clip"])
    capsys.readouterr()
    assert await files.list_files(session, Console(), limit=9, kinds=[]) == 0
    shown = printed(capsys)
    assert len(re.findall(r"output +WAV PCM 24 +0\.2 s +\d+ kB .* outputs/\S+\.wav", shown)) == 2
    assert re.search(rf"{clip_id} +clip +WAV FLOAT +1\.0 s +0\.1 MB .* clips/\S+\.wav", shown)
    await files.list_files(session, Console(as_json=True), limit=9, kinds=kinds)
    assert json.loads(printed(capsys))["generation_id"] == clip_id
    await files.list_files(session, Console(as_json=True), limit=2, kinds=[])
    listed = [json.loads(line)["generation_id"] for line in printed(capsys).splitlines()]
    assert set(listed) == {one.id for one in generations}

    assert await files.statistics(session, Console()) == 0
    fields = dict(re.findall(r"^(\S+) {2,}(.+?) *$", printed(capsys), re.MULTILINE))
    assert fields["files"] == fields["wav"] == "3, 0.2 MB"
    outputs = sum(one.file_size_bytes for one in generations)
    assert (fields["outputs"], fields["clips"]) == (f"2, {format_size(outputs)}", "1, 0.1 MB")
    assert re.fullmatch(r"[0-9.]+ GB of [0-9.]+ GB", fields["free"])
    await files.statistics(session, Console(as_json=True))
    assert json.loads(printed(capsys))["total_files"] == "3"

    assert await files.delete_clip(session, Console(), clip_id) == 0
    assert f"deleted clip {clip_id}" in capsys.readouterr().err
    await files.list_files(session, Console(as_json=True), limit=9, kinds=kinds)
    assert printed(capsys) == ""


async def test_verify_prints_changed_and_missing_files(
    library_services: EmbeddedServices, tmp_path: Path, capsys: Captured
) -> None:
    session, console = session_for(library_services, tmp_path), Console()
    assert await files.verify(session, console, [], quick=False) == 0
    assert "files: none\n" in capsys.readouterr().err
    generations = [await completed(library_services) for _ in range(3)]
    assert await files.verify(session, console, [], quick=False) == 0
    assert "files: 3 intact\n" in capsys.readouterr().err
    (tmp_path / generations[0].file_path).write_bytes(b"other bytes")
    (tmp_path / generations[1].file_path).unlink()
    assert await files.verify(session, console, [], quick=False) == 1
    output, errors = printed(capsys), capsys.readouterr().err
    assert f"changed: generation {generations[0].id} ({generations[0].file_path})\n" in output
    assert f"missing: generation {generations[1].id}\n" in output
    assert "files: 1 intact, 2 bad\n" in errors
    assert await files.verify(session, console, [generations[0].id], quick=True) == 0
    assert "files: 1 present\n" in capsys.readouterr().err
    assert await files.verify(session, Console(as_json=True), [generations[0].id], quick=False) == 1
    assert '"condition": "FILE_CONDITION_CHANGED"' in printed(capsys)


async def test_cleanup_reports_before_it_deletes(
    library_services: EmbeddedServices, tmp_path: Path, capsys: Captured
) -> None:
    generations = [await completed(library_services) for _ in range(2)]
    (tmp_path / generations[0].file_path).unlink()
    missing = f"missing: the file of generation {generations[0].id}\n"
    size = f"size: output {generations[1].file_path}, {format_size(generations[1].file_size_bytes)}\n"
    await cleanup(library_services, tmp_path, keep="0.01MB")
    output, errors = printed(capsys), capsys.readouterr().err
    assert missing + size in output
    assert re.search(r"would delete 2 items, \d+ kB; use --yes to delete\n", errors)
    await cleanup(library_services, tmp_path, older_than="1h", confirm=True)
    output, errors = printed(capsys), capsys.readouterr().err
    assert missing in output
    assert re.search(r"deleted 1 items, \d+ kB\n", errors)
    await cleanup(library_services, tmp_path, keep="0GB", as_json=True)
    assert json.loads(printed(capsys).splitlines()[-1])["reason"] == "CLEANUP_REASON_SIZE"


async def test_cleanup_prints_files_in_use(
    library_services: EmbeddedServices, tmp_path: Path, capsys: Captured
) -> None:
    generation = await completed(library_services, seconds=20)
    call = library_services.music.StreamAudio(StreamAudioRequest(generation_id=generation.id), timeout=60)
    responses = aiter(call)
    await anext(responses)
    await cleanup(library_services, tmp_path, keep="0GB", confirm=True)
    output, errors = printed(capsys), capsys.readouterr().err
    assert f"is being read; try again later: {generation.file_path}\n" in output
    assert "deleted 0 items, 0 kB; kept 1 in use\n" in errors
    call.cancel()
