"""Everything that changes the library, as operations that can fail at any step, and what must hold after each."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import soundfile

from dgx_music.export.v1 import export_pb2
from export_service.library.renders import STAGING
from export_service.library.store import SPOOL
from tests.support.export_client import RATE_HZ, TIMEOUT_SECONDS, ExportClient, music, output_options
from tests.support.export_servers import TO
from tests.support.pictures import png

SECONDS = 0.2
LEFT = "left behind"


@dataclass(frozen=True)
class Operation:
    """What a caller asks for."""

    prepare: Callable[[ExportClient, str], Awaitable[None]]
    """Brings about what is there before."""
    run: Callable[[ExportClient, str], Awaitable[object]]


async def nothing(client: ExportClient, generation_id: str) -> None:
    pass


async def export(client: ExportClient, generation_id: str) -> None:
    await client.export(generation_id, music(SECONDS))


async def export_and_render(client: ExportClient, generation_id: str) -> None:
    await export(client, generation_id)
    await render(client, generation_id)


async def export_newer(client: ExportClient, generation_id: str) -> object:
    output = output_options("FLAC_16", sample_rate_hz=48_000)
    return await client.export(generation_id, music(SECONDS, seed=2), attempt=2, output=output)


async def render(client: ExportClient, generation_id: str) -> export_pb2.RenderResponse:
    request = export_pb2.RenderRequest(generation_id=generation_id, output=output_options("OGG_VORBIS"))
    return await client.stub.Render(request, timeout=TIMEOUT_SECONDS)


async def edit_tags(client: ExportClient, generation_id: str) -> object:
    request = export_pb2.EditTagsRequest(generation_id=generation_id, title="New", cover=png(8, 8))
    return await client.stub.EditTags(request, timeout=TIMEOUT_SECONDS)


async def delete(client: ExportClient, generation_id: str) -> object:
    return await client.stub.DeleteFile(
        export_pb2.DeleteFileRequest(generation_id=generation_id), timeout=TIMEOUT_SECONDS
    )


async def clean_up(client: ExportClient, generation_id: str) -> object:
    request = export_pb2.CleanupRequest(keep_newest_bytes=0)
    return [one async for one in client.stub.Cleanup(request, timeout=TIMEOUT_SECONDS)]


async def import_clip(client: ExportClient, generation_id: str) -> object:
    file = io.BytesIO()
    soundfile.write(file, music(SECONDS), RATE_HZ, format="WAV")
    return await client.import_clip(file.getvalue())


OPERATIONS = {
    "export": Operation(nothing, export),
    "newer attempt": Operation(export_and_render, export_newer),
    "render": Operation(export, render),
    "tags": Operation(export_and_render, edit_tags),
    "delete": Operation(export_and_render, delete),
    "cleanup": Operation(export_and_render, clean_up),
    "clip": Operation(nothing, import_clip),
}


def find_damage(data_dir: Path) -> list[str]:
    """Returns what is wrong with the files of a library of which no call is running: one that is not complete, a render
    that is not as its description says, and what was left of a file that did not land.
    """
    problems = []
    for path in data_dir.rglob("*"):
        name = path.relative_to(data_dir).as_posix()
        if path.is_file() and path.suffix in (".wav", ".flac", ".ogg") and ".landing/" not in name:
            try:
                samples, rate = soundfile.read(path)
            except soundfile.LibsndfileError as error:
                problems.append(f"{name}: {error}")
                continue
            if len(samples) != round(SECONDS * rate):
                problems.append(f"{name}: {len(samples)} frames")
            description = path.with_suffix(".json")
            if name.startswith("renders/"):
                if not description.exists():
                    problems.append(f"{name}: no description")
                elif json.loads(description.read_bytes())["file_sha256"] != _sha256(path):
                    problems.append(f"{name}: not as described")
        elif path.suffix == ".part" and not (
            path.name.endswith(".pcm.part") and Path(str(path).removesuffix(".pcm.part") + ".json").exists()
        ):
            problems.append(f"{name}: {LEFT}")
    return problems


def find_unsynced(steps: list[str]) -> list[str]:
    """Returns what the steps of an operation do not make durable: files that were not synced before they were renamed
    to their place, and folders that were not synced afterwards. Spools need not be.
    """
    synced, problems = set[str](), []
    for number, step in enumerate(steps):
        event, _, path = step.partition(" ")
        source, _, target = path.partition(TO)
        if event == "open":
            synced.discard(path)
        elif event == "fsync":
            synced.add(path)
        elif event in ("os.rename", "os.remove"):
            place = target if target and not _is_temporary(target) else source
            if place == target and source not in synced and not _is_temporary(place):
                problems.append(f"{step}: the file is not synced")
            if not _is_temporary(place) and f"fsync {Path(place).parent}" not in steps[number:]:
                problems.append(f"{step}: the folder is not synced")
    return problems


def file_hashes(data_dir: Path) -> set[str]:
    """Returns the hashes of the generations' own files."""
    return {_sha256(path) for path in (data_dir / "outputs").rglob("*.*") if path.is_file()}


def _is_temporary(path: str) -> bool:
    return f"/{STAGING}/" in path or f"/{SPOOL}/" in path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
