"""Invalid and inconsistent export streams, which leave no files."""

from __future__ import annotations

import numpy as np
import pytest

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2
from dgx_music.pcm import PcmWriter
from tests.support.export_client import Request, build_header, build_requests, music, new_id, raises_rpc_error


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"generation_id": "../../etc/passwd"}, "header.audio.generation_id"),
        ({"generation_id": "{123e4567-e89b-12d3-a456-426614174000}"}, "header.audio.generation_id"),
        ({"generation_id": ""}, "header.audio.generation_id"),
        ({"attempt": 0}, "header.audio.attempt"),
        ({"level": audio_pb2.AUDIO_LEVEL_FINAL}, "header.audio.level"),
        ({"level": 0}, "header.audio.level"),
        ({"sample_rate_hz": 100}, "header.audio.sample_rate_hz"),
        ({"channels": 9}, "header.audio.channels"),
        ({"tags": export_pb2.Tags(bpm=float("nan"))}, "header.tags.bpm"),
    ],
)
async def test_invalid_header_is_rejected(client, changes, field):
    sent = build_header(changes.pop("generation_id", new_id()), music(0.1), **changes)
    async with raises_rpc_error("INVALID_ARGUMENT", field=field):
        await client.send([sent], close=False)
    assert client.files() == set()


def build_damaged(case: str, generation_id: str) -> tuple[list[Request], bool]:
    """Returns the requests to send, and whether to close the stream after them."""
    requests = build_requests(generation_id, music(2))
    match case:
        case "gap":
            return [*requests[:2], requests[3]], False
        case "repeat":
            return [*requests[:3], requests[2]], False
        case "checksum":
            requests[2].chunk.crc32c ^= 1
            return requests[:3], False
        case "half a frame":
            requests[2].chunk.pcm = requests[2].chunk.pcm[:-2]
            return requests[:3], False
        case "wrong start":
            requests[1].chunk.start_frame = 1
            return requests[:2], False
        case "total":
            requests[-1].end.total_frames += 1
            return requests, False
        case "hash":
            requests[-1].end.sha256 = "0" * 64
            return requests, False
        case "no end":
            return requests[:-1], True
        case "after end":
            return [*requests, requests[1]], False
        case "fewer than expected":
            requests[0].header.audio.expected_frames += 1
            return requests, True
        case _:
            requests[0].header.audio.expected_frames = 8192
            return requests[:3], False


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("gap", "CHUNK_OUT_OF_ORDER"),
        ("repeat", "CHUNK_OUT_OF_ORDER"),
        ("checksum", "CHUNK_CHECKSUM"),
        ("half a frame", "CHUNK_SIZE"),
        ("wrong start", "CHUNK_OUT_OF_ORDER"),
        ("total", "END_MISMATCH"),
        ("hash", "END_MISMATCH"),
        ("no end", "END_MISSING"),
        ("after end", "PART_AFTER_END"),
        ("fewer than expected", "FRAMES_UNEXPECTED"),
        ("more than expected", "FRAMES_UNEXPECTED"),
    ],
)
async def test_inconsistent_stream_is_rejected_and_leaves_no_files(client, case, reason):
    generation_id = new_id()
    async with raises_rpc_error("DATA_LOSS", reason):
        await client.send(*build_damaged(case, generation_id))
    assert client.files() == set()
    await client.export(generation_id, music(0.5))  # The same attempt can be repeated.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
async def test_error_names_sample_that_is_not_finite(client, bad):
    samples = music(3)
    samples[70_001, 1] = bad
    async with raises_rpc_error("INVALID_ARGUMENT", field="chunk.pcm", match="frame 70001, channel 1"):
        await client.send(build_requests(new_id(), samples)[: 2 + 70_001 // 8192], close=False)
    assert client.files() == set()


@pytest.mark.parametrize(
    ("select", "field", "close"),
    [
        (lambda requests: requests[1:2], "header", False),
        (lambda requests: [], "header", True),
        (lambda requests: [requests[0], requests[0]], "header", False),
        (lambda requests: [requests[0], Request()], "part", False),
        (lambda requests: [requests[0], Request(end=PcmWriter(2).end())], "chunk", True),
    ],
    ids=["no header", "nothing", "two headers", "an empty part", "no samples"],
)
async def test_misplaced_part_is_rejected(client, select, field, close):
    requests = build_requests(new_id(), music(0.2), expected=0)
    async with raises_rpc_error("INVALID_ARGUMENT", field=field):
        await client.send(select(requests), close)
    assert client.files() == set()


async def test_cancelled_export_leaves_no_files(client):
    generation_id, samples = new_id(), music(2)
    upload = client.upload()
    requests = build_requests(generation_id, samples)
    await upload.send(*requests[:3])
    listener = await client.listen(generation_id, wait_seconds=5)
    await listener.read_until(8192)
    upload.call.cancel()
    async with raises_rpc_error("ABORTED", "ATTEMPT_BROKE_OFF"):
        await listener.read_rest()
    await client.export(generation_id, samples)  # Waits for the cleanup.
    assert len(client.files()) == 2
