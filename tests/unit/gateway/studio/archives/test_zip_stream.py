"""Archives that are sent while they are written."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from gateway.studio.archives import zip_stream


async def read(folder: Path) -> list[bytes]:
    return [part async for part in zip_stream.stream_zip(folder, "töp 猫")]


async def test_archive_has_all_files_and_never_a_whole_one_in_memory(tmp_path: Path) -> None:
    files = {"a.wav": bytes(range(256)) * 10_000, "sub/b 猫.txt": b"b", "sub/empty": b""}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    parts = await read(tmp_path)
    assert max(map(len, parts)) < 2 * zip_stream.BLOCK_BYTES
    with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as archive:
        assert archive.testzip() is None
        stored = {one.filename: archive.read(one) for one in archive.infolist() if not one.is_dir()}
    assert stored == {f"töp 猫/{name}": content for name, content in files.items()}
    assert await read(tmp_path) == parts


async def test_archive_of_nothing_is_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(b"".join(await read(tmp_path)))) as archive:
        assert archive.namelist() == []
