"""Stems as files: verified and complete, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import soundfile

from dgx_music.client.stem_files import save_stems, stem_paths
from dgx_music.errors import DataLoss
from dgx_music.generation.v1.generation_pb2 import StemChunk, StemsEnd, StemsHeader, StreamStemsResponse

SAMPLES = np.random.default_rng(1).standard_normal((2, 300, 2)).astype("<f4")


def messages(names: Sequence[str] = ("drums", "bass")) -> list[StreamStemsResponse]:
    header = StemsHeader(names=names, sample_rate_hz=32_000, channels=2, total_frames=300)
    parts = [StreamStemsResponse(header=header)]
    for start in (0, 200):
        for stem in range(2):
            pcm = SAMPLES[stem, start : start + 200].tobytes()
            chunk = StemChunk(stem=stem, start_frame=start, pcm=pcm, crc32c=google_crc32c.value(pcm))
            parts.append(StreamStemsResponse(chunk=chunk))
    return [*parts, StreamStemsResponse(end=StemsEnd(total_chunks=4))]


async def stream(parts: Sequence[StreamStemsResponse]) -> AsyncIterator[StreamStemsResponse]:
    for part in parts:
        yield part


async def test_files_have_the_samples(tmp_path: Path) -> None:
    stems = await save_stems(stream(messages()), tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(stems.paths.values())
    for expected, path in zip(SAMPLES, stems.paths.values(), strict=True):
        found, rate = soundfile.read(path, dtype="float32")
        assert rate == 32_000
        assert np.array_equal(found, expected)
        assert soundfile.info(path).subtype == "FLOAT"


def damaged(parts: list[StreamStemsResponse]) -> None:
    parts[2].chunk.pcm = parts[2].chunk.pcm[::-1]


def out_of_order(parts: list[StreamStemsResponse]) -> None:
    parts[1], parts[3] = parts[3], parts[1]


def of_no_stem(parts: list[StreamStemsResponse]) -> None:
    parts[1].chunk.stem = 7


def cut_off(parts: list[StreamStemsResponse]) -> None:
    parts.pop()


def without_header(parts: list[StreamStemsResponse]) -> None:
    parts.pop(0)


def one_chunk_short(parts: list[StreamStemsResponse]) -> None:
    parts.pop(4)


@pytest.mark.parametrize("change", [damaged, out_of_order, of_no_stem, cut_off, without_header, one_chunk_short])
async def test_nothing_is_left_of_stems_that_are_not_complete(tmp_path: Path, change) -> None:
    parts = messages()
    change(parts)
    with pytest.raises(DataLoss):
        await save_stems(stream(parts), tmp_path)
    assert not list(tmp_path.iterdir())


async def test_files_are_kept_unless_they_may_be_overwritten(tmp_path: Path) -> None:
    (tmp_path / "bass.wav").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        await save_stems(stream(messages()), tmp_path, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["bass.wav"]
    await save_stems(stream(messages()), tmp_path)
    assert (tmp_path / "bass.wav").stat().st_size > 2400


def test_names_of_a_server_lead_nowhere_else(tmp_path: Path) -> None:
    names = ["../../etc/passwd", "", "/abs", "a\0b", "夜", "a:b"]
    paths = stem_paths(StemsHeader(names=names), tmp_path)
    assert all(path.parent == tmp_path and path.suffix == ".wav" for path in paths.values())
    assert len(set(paths.values())) == len(names)
