"""Fault 16: requests with invalid fields. Each service refuses them as INVALID_ARGUMENT and names the field, and the
gateway names it as the service behind it does."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from dgx_music.error_status import read_error_details
from dgx_music.export.v1 import export_pb2
from dgx_music.generation.v1 import generation_pb2
from dgx_music.storage.v1 import storage_pb2 as pb
from tests.support.health import SERVING, read_health
from tests.support.service_processes import ServiceProcesses, service_processes

TIMEOUT_SECONDS = 60.0
VALID: dict[str, Any] = {"prompt": "house", "model_name": "sketch", "duration_seconds": 1.0}
STORED: dict[str, Any] = {"sample_rate_hz": 32_000, "channels": 2}
"""What storage needs besides; the gateway completes it."""
UNKNOWN = "00000000-0000-0000-0000-000000000000"

GENERATION_FIELDS: list[tuple[str, dict[str, Any]]] = [
    ("prompt", {"prompt": ""}),
    ("prompt", {"prompt": " \n\t\u3000"}),
    ("prompt", {"prompt": "x" * (1 << 20)}),
    ("prompt", {"prompt": "a\0b"}),
    ("prompt", {"prompt": "\x1b[31m"}),
    ("prompt", {"prompt": "\x85"}),
    *[("duration_seconds", {"duration_seconds": value}) for value in (-1.0, 1e9, 0.09, math.nan, math.inf, -math.inf)],
    *[
        ("sampling.temperature", {"sampling": {"temperature": value}})
        for value in (math.nan, 0.0, -1.0, 10.5, math.inf)
    ],
    *[("sampling.top_k", {"sampling": {"top_k": value}}) for value in (-1, 2049, 2**31 - 1)],
    *[("sampling.top_p", {"sampling": {"top_p": value}}) for value in (math.nan, -0.1, 1.1)],
    *[("sampling.guidance_scale", {"sampling": {"guidance_scale": value}}) for value in (math.nan, 20.5)],
    ("seed", {"seed": -1}),
    ("seed", {"seed": -(2**63)}),
    ("conditioning.negative_prompt", {"conditioning": {"negative_prompt": "\0"}}),
]
"""Fields that storage, generation and gateway have in common."""
STORED_FIELDS: list[tuple[str, dict[str, Any]]] = [
    ("request_id", {"request_id": "x"}),
    ("priority", {"priority": 11}),
    ("max_attempts", {"max_attempts": -1}),
    ("output.target_lufs", {"output": {"target_lufs": math.nan}}),
    ("output.ceiling_dbtp", {"output": {"ceiling_dbtp": 1.0}}),
    ("output.format", {"output": {"format": 99}}),
    ("output.publication.title", {"output": {"publication": {"title": "x" * 201}}}),
    ("variation_of", {"variation_of": "x"}),
]
OTHERS: list[tuple[str, str, Any]] = [
    ("GetGeneration", "id", pb.GetGenerationRequest(id="\u0660" * 8 + UNKNOWN[8:])),
    ("GetGeneration", "id", pb.GetGenerationRequest(id=UNKNOWN + "\n")),
    ("ListGenerations", "page_size", pb.ListGenerationsRequest(page_size=-1)),
    ("ListGenerations", "page_token", pb.ListGenerationsRequest(page_token="\u00e9")),
    ("ListGenerations", "states[0]", pb.ListGenerationsRequest(states=[99])),  # type: ignore[list-item]
    ("ListGenerations", "prompt_contains", pb.ListGenerationsRequest(prompt_contains="\0")),
    ("ListGenerations", "created_after", pb.ListGenerationsRequest(created_after={"seconds": 2**62})),
    ("RateGeneration", "rating", pb.RateGenerationRequest(id=UNKNOWN, rating=6)),
    ("GetDownloadUrl", "generation_id", export_pb2.GetDownloadUrlRequest(generation_id="../x")),
    ("GetDownloadUrl", "expires_seconds", export_pb2.GetDownloadUrlRequest(generation_id=UNKNOWN, expires_seconds=-1)),
    (
        "GetDownloadUrl",
        "expires_seconds",
        export_pb2.GetDownloadUrlRequest(generation_id=UNKNOWN, expires_seconds=604_801),
    ),
    ("GetWaveform", "points", export_pb2.GetWaveformRequest(generation_id=UNKNOWN, points=-1)),
    ("GetWaveform", "generation_id", export_pb2.GetWaveformRequest(generation_id="a/../b")),
    ("GetLoudnessCurve", "points", export_pb2.GetLoudnessCurveRequest(generation_id=UNKNOWN, points=10_001)),
    ("GetLoudnessCurve", "generation_id", export_pb2.GetLoudnessCurveRequest(generation_id="a/../b")),
    ("CreateComparison", "generation_ids", pb.CreateComparisonRequest(generation_ids=[UNKNOWN])),
    ("CreateComparison", "generation_ids[1]", pb.CreateComparisonRequest(generation_ids=[UNKNOWN, "x"])),
    ("ListComparisons", "generation_id", pb.ListComparisonsRequest(generation_id="x")),
    ("ListComparisons", "page_token", pb.ListComparisonsRequest(page_token="\u00e9")),
    ("Render", "output.sample_rate_hz", export_pb2.RenderRequest(generation_id=UNKNOWN, output={"sample_rate_hz": 7})),
    ("EditTags", "generation_id", export_pb2.EditTagsRequest(generation_id="x")),
    ("ListFiles", "page_token", export_pb2.ListFilesRequest(page_token="WyJlM2IwYzQ0Mjk4ZmMxYzE0Iiwge31d")),
    ("Cleanup", "older_than_seconds", export_pb2.CleanupRequest(older_than_seconds=math.nan, dry_run=True)),
    ("StreamAudio", "generation_id", export_pb2.StreamAudioRequest(generation_id="x")),
    ("StreamAudio", "start_frame", export_pb2.StreamAudioRequest(generation_id=UNKNOWN, start_frame=-1)),
]
"""Method of the gateway, the field that it refuses, and the request."""


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[ServiceProcesses]:
    async with service_processes(tmp_path / "data") as running:
        yield running


async def refused_field(call: Any) -> str:
    """Returns the field at fault, or what is wrong with the answer; of a stream, awaits the first response."""
    try:
        answer = await (anext(aiter(call)) if hasattr(call, "__aiter__") else call)
    except grpc.aio.AioRpcError as error:
        details = read_error_details(error)
        fields = list(details.violations)
        if len(fields) != 1 or not details.message.startswith(f"{fields[0]}: ") or len(details.message) > 1000:
            return str(details)
        return fields[0] if details.code is grpc.StatusCode.INVALID_ARGUMENT else details.code.name
    return f"accepted: {answer}"


async def test_invalid_fields_are_refused_by_name(services: ServiceProcesses) -> None:
    music, storage, generation = services.music, services.storage, services.generation
    refused: list[tuple[str, str, Any]] = []
    """The field that should be named, the one that is, and the request."""
    for field, change in [*GENERATION_FIELDS, *STORED_FIELDS]:
        request = pb.CreateGenerationRequest(**{**VALID, **change})
        refused.append((field, await refused_field(music.CreateGeneration(request, timeout=TIMEOUT_SECONDS)), change))
        batch = pb.BatchCreateGenerationsRequest(requests=[pb.CreateGenerationRequest(**VALID), request])
        in_batch = await refused_field(music.BatchCreateGenerations(batch, timeout=TIMEOUT_SECONDS))
        refused.append((f"requests[1].{field}", in_batch, change))
        stored = pb.CreateGenerationRequest(**{**VALID, **STORED, **change})
        refused.append((field, await refused_field(storage.CreateGeneration(stored, timeout=TIMEOUT_SECONDS)), change))
    for field, change in GENERATION_FIELDS:
        direct = generation_pb2.GenerateRequest(**{**VALID, **change})
        refused.append((field, await refused_field(generation.Generate(direct, timeout=TIMEOUT_SECONDS)), change))
    unknown = {**VALID, "model_name": "x" * 10_000}
    for call in (
        music.CreateGeneration(pb.CreateGenerationRequest(**unknown)),
        generation.Generate(generation_pb2.GenerateRequest(**unknown)),
    ):
        refused.append(("model_name", await refused_field(call), "an unknown model"))
    for name, field, other in OTHERS:
        refused.append((field, await refused_field(getattr(music, name)(other, timeout=TIMEOUT_SECONDS)), other))
    wrong = [f"{named[:300]}, not {field}: {str(change)[:200]}" for field, named, change in refused if named != field]
    assert not wrong, "\n".join(wrong)
    listed = await music.ListGenerations(pb.ListGenerationsRequest())
    assert not listed.generations
    for name, process in services.running.items():
        assert await read_health(services.channel(name)) == SERVING
        assert "unexpected_error" not in process.log()
