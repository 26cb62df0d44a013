"""PCM framing: what is written can be read back, and a corrupt stream is rejected."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from dgx_music.audio.v1 import audio_pb2 as pb
from dgx_music.errors import DataLoss, InvalidArgument
from dgx_music.limits import MAX_CHUNK_BYTES
from dgx_music.pcm import PcmReader, PcmWriter, live_header

ID = "3f0e4a52-6f5e-4e40-9a58-1f6d0a5b7c11"


def header(**changes: object) -> pb.AudioHeader:
    message = live_header(ID, 1, 32_000, 2, 0)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def pcm(frames: int, channels: int = 2) -> bytes:
    return np.random.default_rng(frames).standard_normal((frames, channels)).astype("<f4").tobytes()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("blocks", [[1], [8192], [8193], [3, 20_000, 1], []])
def test_stream_round_trip(channels: int, blocks: list[int]) -> None:
    writer, reader = PcmWriter(channels, start_frame=7), PcmReader(header(channels=channels))
    data = [pcm(frames, channels) for frames in blocks]
    chunks = [chunk for block in data for chunk in writer.chunks(block)]
    assert all(len(chunk.pcm) <= MAX_CHUNK_BYTES for chunk in chunks)
    assert b"".join(reader.accept(chunk) for chunk in chunks) == b"".join(data)
    assert not chunks or chunks[0].start_frame == 7
    reader.finish(writer.end())
    assert reader.frames == writer.frames == sum(blocks)
    assert reader.sha256 == hashlib.sha256(b"".join(data)).hexdigest()


def damage_sequence(chunk: pb.AudioChunk) -> None:
    chunk.sequence += 1


def damage_repeat(chunk: pb.AudioChunk) -> None:
    chunk.sequence -= 1


def damage_frame(chunk: pb.AudioChunk) -> None:
    chunk.start_frame += 1


def damage_bytes(chunk: pb.AudioChunk) -> None:
    chunk.pcm = chunk.pcm[:-1] + bytes([chunk.pcm[-1] ^ 1])


def damage_length(chunk: pb.AudioChunk) -> None:
    chunk.pcm = chunk.pcm[:-1]


def damage_emptiness(chunk: pb.AudioChunk) -> None:
    chunk.pcm = b""


def damage_size(chunk: pb.AudioChunk) -> None:
    chunk.pcm = bytes(MAX_CHUNK_BYTES + 8)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_sequence, "CHUNK_OUT_OF_ORDER"),
        (damage_repeat, "CHUNK_OUT_OF_ORDER"),
        (damage_frame, "CHUNK_OUT_OF_ORDER"),
        (damage_bytes, "CHUNK_CHECKSUM"),
        (damage_length, "CHUNK_SIZE"),
        (damage_emptiness, "CHUNK_SIZE"),
        (damage_size, "CHUNK_SIZE"),
    ],
)
def test_damaged_chunk_is_data_loss(damage: Callable[[pb.AudioChunk], None], reason: str) -> None:
    writer, reader = PcmWriter(2), PcmReader(header())
    first, second = [*writer.chunks(pcm(10)), *writer.chunks(pcm(10))]
    reader.accept(first)
    damage(second)
    with pytest.raises(DataLoss) as caught:
        reader.accept(second)
    assert caught.value.reason == reason


@pytest.mark.parametrize("change", [{"total_chunks": 2}, {"total_frames": 9}, {"sha256": "0" * 64}])
def test_end_with_wrong_totals_is_data_loss(change: dict[str, object]) -> None:
    writer, reader = PcmWriter(2), PcmReader(header())
    for chunk in writer.chunks(pcm(10)):
        reader.accept(chunk)
    end = writer.end()
    for name, value in change.items():
        setattr(end, name, value)
    with pytest.raises(DataLoss, match="its end announces"):
        reader.finish(end)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample_rate_hz", 7_999),
        ("sample_rate_hz", 192_001),
        ("channels", 0),
        ("channels", 9),
        ("encoding", 0),
        ("expected_frames", -1),
    ],
)
def test_invalid_header_names_the_field(field: str, value: int) -> None:
    with pytest.raises(InvalidArgument) as caught:
        PcmReader(header(**{field: value}), field="header.audio")
    assert caught.value.field == f"header.audio.{field}"
