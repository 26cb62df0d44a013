"""Fault 14: chunks that are cut, repeated, reordered, corrupted, empty or too large; headers and ends in wrong places.
Either the file has the exact samples, or the export is refused and leaves no file."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import google_crc32c
import grpc.aio
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dgx_music.audio.v1 import audio_pb2
from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.error_status import read_error_details
from dgx_music.export.v1 import export_pb2
from dgx_music.limits import MAX_CHUNK_BYTES, MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ
from service_runtime.rpc.client_stream import ClientStreamCall
from tests.support.export_client import TIMEOUT_SECONDS, ExportClient, Request, build_requests, music, new_id
from tests.support.export_servers import run_export_process

SAMPLES = music(0.4)
FLOAT = OutputOptions(format=audio_pb2.FILE_FORMAT_WAV_FLOAT)
REFUSALS = grpc.StatusCode.DATA_LOSS, grpc.StatusCode.INVALID_ARGUMENT
NUMBERS = st.sampled_from([0, 1, -1, 2, 7, 8192, 2**31, 2**63 - 1, -(2**63)])
QUICK, SLOW = 30, 600
"""Numbers of examples."""

actions = st.one_of(
    st.tuples(
        st.sampled_from(["drop", "repeat", "swap", "move to end", "flip", "flip and sign", "empty"]), st.integers(0, 9)
    ),
    st.tuples(st.sampled_from(["cut", "cut and sign"]), st.integers(0, 9), st.integers(1, 16)),
    st.tuples(st.sampled_from(["sequence", "start frame", "total chunks", "total frames"]), st.integers(0, 9), NUMBERS),
    st.tuples(st.sampled_from(["rate", "channels", "expected", "attempt", "encoding", "level"]), NUMBERS),
    st.tuples(
        st.sampled_from(
            ["hash", "empty part", "second header", "early end", "second end", "huge", "nan", "shift", "endless"]
        )
    ),
)
"""What to do to a stream, with the number of the part that it is done to."""


SECOND = 2
"""Number of the second chunk, which precedes the end."""
NAMED: dict[tuple[Any, ...], str] = {
    ("flip", 1): "CHUNK_CHECKSUM",
    ("cut and sign", 1, 3): "CHUNK_SIZE",
    ("empty", 1): "CHUNK_SIZE",
    ("huge",): "CHUNK_SIZE",
    ("drop", 1): "CHUNK_OUT_OF_ORDER",
    ("repeat", 1): "CHUNK_OUT_OF_ORDER",
    ("sequence", 1, 7): "CHUNK_OUT_OF_ORDER",
    ("start frame", 1, 7): "CHUNK_OUT_OF_ORDER",
    ("start frame", SECOND, 7): "CHUNK_OUT_OF_ORDER",
    ("shift",): "CHUNK_OUT_OF_ORDER",
    ("flip and sign", 1): "END_MISMATCH",
    ("drop", SECOND): "END_MISMATCH",
    ("total chunks", 3, 7): "END_MISMATCH",
    ("total frames", 3, 7): "END_MISMATCH",
    ("hash",): "END_MISMATCH",
    ("drop", 3): "END_MISSING",
    ("second end",): "PART_AFTER_END",
    ("expected", 1): "FRAMES_UNEXPECTED",
    ("expected", 2**31): "FRAMES_UNEXPECTED",
    ("endless",): "FRAMES_UNEXPECTED",
    ("drop", 0): "header",
    ("move to end", 0): "header",
    ("second header",): "header",
    ("empty part",): "part",
    ("nan",): "chunk.pcm",
    ("rate", 7): "header.audio.sample_rate_hz",
    ("channels", 7): "header.audio.channels",
    ("encoding", 0): "header.audio.encoding",
    ("expected", -1): "header.audio.expected_frames",
    ("attempt", 0): "header.audio.attempt",
    ("level", 2): "header.audio.level",
}
"""What was done to a stream → the reason or the field of the refusal."""


def damage(requests: list[Request], action: tuple[Any, ...]) -> None:
    """Does one thing to the parts of a stream."""
    name, *arguments = action
    index = int(arguments[0]) % len(requests) if arguments else 0
    part, chunk, audio, end = requests[index], requests[index].chunk, requests[0].header.audio, requests[-1].end
    has_pcm = part.WhichOneof("part") == "chunk" and len(part.chunk.pcm) > 0
    match name:
        case "drop":
            del requests[index]
        case "repeat":
            requests.insert(index, part)
        case "swap":
            requests[index], requests[index - 1] = requests[index - 1], requests[index]
        case "move to end":
            requests.append(requests.pop(index))
        case "flip" | "flip and sign" if has_pcm:
            chunk.pcm = bytes([chunk.pcm[0] ^ 1]) + chunk.pcm[1:]
            chunk.crc32c = google_crc32c.value(chunk.pcm) if name == "flip and sign" else chunk.crc32c
        case "cut" | "cut and sign" if has_pcm:
            chunk.pcm = chunk.pcm[: -int(arguments[1])]
            chunk.crc32c = google_crc32c.value(chunk.pcm) if name == "cut and sign" else chunk.crc32c
        case "empty" if has_pcm:
            chunk.pcm, chunk.crc32c = b"", 0
        case "huge" | "nan" if len(requests) > 1 and requests[1].WhichOneof("part") == "chunk":
            nan = struct.pack("<2f", 0.0, float("nan")) + requests[1].chunk.pcm[8:]
            pcm = bytes(MAX_CHUNK_BYTES + 8) if name == "huge" else nan
            requests[1].chunk.pcm, requests[1].chunk.crc32c = pcm, google_crc32c.value(pcm)
            if name == "nan" and requests[-1].HasField("end"):
                end.sha256 = hashlib.sha256(b"".join(request.chunk.pcm for request in requests)).hexdigest()
        case "sequence" if has_pcm:
            chunk.sequence = int(arguments[1])
        case "start frame" if has_pcm:
            chunk.start_frame = int(arguments[1])
        case "shift":
            for later in requests:
                if later.HasField("chunk"):
                    later.chunk.start_frame += 7
        case "endless" if requests[0].HasField("header"):
            audio.expected_frames = 1
            del requests[-1]
        case "total chunks" if requests[-1].HasField("end"):
            end.total_chunks = int(arguments[1])
        case "total frames" if requests[-1].HasField("end"):
            end.total_frames = int(arguments[1])
        case "hash" if requests[-1].HasField("end"):
            end.sha256 = end.sha256.upper()
        case "rate" | "channels" | "expected" | "attempt" | "encoding" | "level" if requests[0].HasField("header"):
            field = {"rate": "sample_rate_hz", "expected": "expected_frames"}.get(name, name)
            half = 2**63 if field == "expected_frames" else 2**31
            setattr(audio, field, (int(arguments[0]) + half) % (2 * half) - half)
        case "empty part":
            requests.insert(len(requests) // 2, Request())
        case "second header":
            requests.insert(len(requests) // 2, requests[0])
        case "early end":
            requests.insert(len(requests) // 2, requests[-1])
        case "second end":
            requests.append(requests[-1])


def read_intact(requests: list[Request]) -> tuple[bytes, int] | None:
    """Returns the samples and the channels of a stream that is as the contract says, or else None."""
    kinds = [request.WhichOneof("part") for request in requests]
    if kinds != ["header", *["chunk"] * (len(kinds) - 2), "end"] or len(kinds) < 3:
        return None
    header, pcm, frame_bytes = requests[0].header.audio, b"", 4 * requests[0].header.audio.channels
    is_valid = (
        header.attempt >= 1
        and header.level == audio_pb2.AUDIO_LEVEL_LIVE
        and header.encoding == audio_pb2.PCM_ENCODING_FLOAT32_LE
        and MIN_SAMPLE_RATE_HZ <= header.sample_rate_hz <= MAX_SAMPLE_RATE_HZ
        and header.channels in (1, 2)
    )
    for sequence, chunk in enumerate(request.chunk for request in requests[1:-1]):
        is_valid = (
            is_valid
            and (chunk.sequence, chunk.start_frame) == (sequence, len(pcm) // frame_bytes)
            and 0 < len(chunk.pcm) <= MAX_CHUNK_BYTES
            and len(chunk.pcm) % frame_bytes == 0
            and chunk.crc32c == google_crc32c.value(chunk.pcm)
            and bool(np.isfinite(np.frombuffer(chunk.pcm, "<f4")).all())
        )
        pcm += chunk.pcm
    if not is_valid or header.expected_frames not in (0, len(pcm) // frame_bytes):
        return None
    totals = audio_pb2.AudioEnd(
        total_chunks=len(kinds) - 2, total_frames=len(pcm) // frame_bytes, sha256=hashlib.sha256(pcm).hexdigest()
    )
    return (pcm, header.channels) if requests[-1].end == totals else None


async def send(client: ExportClient, requests: list[Request]) -> export_pb2.ExportResponse:
    call = ClientStreamCall(client.stub.Export, TIMEOUT_SECONDS)
    for request in requests:
        await call.write(request)
    return await call.finish()


def build_damaged(generation_id: str, damages: Iterable[tuple[Any, ...]]) -> list[Request]:
    requests = [
        Request.FromString(one.SerializeToString()) for one in build_requests(generation_id, SAMPLES, output=FLOAT)
    ]
    requests[0].header.keep_samples = True
    for action in damages:
        if requests:
            damage(requests, action)
    return requests


async def check(client: ExportClient, damages: list[tuple[Any, ...]], start_frame: int) -> None:
    generation_id = new_id()
    requests = build_damaged(generation_id, damages)
    expected = read_intact(requests)
    try:
        response = await send(client, requests)
    except grpc.aio.AioRpcError as error:
        refusal = error
        assert refusal.code() in REFUSALS, refusal
        assert expected is None, refusal
        assert generation_id not in "".join(client.files())
        return
    assert expected is not None, "an inconsistent stream was accepted"
    pcm, channels = expected
    samples = np.frombuffer(pcm, "<f4").reshape(-1, channels)
    file, _ = soundfile.read(client.data_dir / response.file_path, dtype="float32", always_2d=True)
    np.testing.assert_array_equal(file, samples)
    start = start_frame % (len(samples) + 1)
    for level in (audio_pb2.AUDIO_LEVEL_LIVE, audio_pb2.AUDIO_LEVEL_FINAL):
        np.testing.assert_array_equal(await client.read_audio(generation_id, start, level), samples[start:])


async def test_damage_is_named(tmp_path: Path) -> None:
    """Each check on its own: what a listener has heard by then cannot be taken back."""
    async with run_export_process(tmp_path) as (_, client):
        for action, name in NAMED.items():
            generation_id = new_id()
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await send(client, build_damaged(generation_id, [action]))
            details = read_error_details(raised.value)
            named = {details.reason, *details.violations}
            assert name in named, f"{action}: {details}"
        assert client.files() == set()


@pytest.mark.parametrize("examples", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)])
def test_stream_is_refused_or_stored_exactly(tmp_path: Path, examples: int) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        _, client = runner.run(stack.enter_async_context(run_export_process(tmp_path)))
        try:

            @settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow], deadline=None)
            @given(st.lists(actions, max_size=3), st.integers(0, 20_000))
            def run(damages: list[tuple[Any, ...]], start_frame: int) -> None:
                runner.run(check(client, damages, start_frame))

            run()
        finally:
            runner.run(stack.aclose())
