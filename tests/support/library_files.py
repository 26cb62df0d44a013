"""Puts files into the library of embedded services: exported, completed as by a worker, or imported as a clip."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import soundfile

from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.pcm import PcmWriter, live_header
from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.embedded_services import EmbeddedServices

SECONDS = 60.0
RATE, CHANNELS = 32_000, 2


async def exported(
    services: EmbeddedServices,
    generation_id: str,
    seconds: float = 0.2,
    attempt: int = 1,
    output: OutputOptions | None = None,
) -> export.ExportResponse:
    """Exports a file to the library without telling storage."""
    samples = np.random.default_rng(1).standard_normal((round(seconds * RATE), CHANNELS)).astype(np.float32) * 0.1
    writer = PcmWriter(CHANNELS)
    audio = live_header(generation_id, attempt, RATE, CHANNELS, len(samples))
    header = export.ExportHeader(audio=audio, output=output)
    call = services.export.Export(timeout=SECONDS)
    await call.write(export.ExportRequest(header=header))
    for chunk in writer.chunks(samples.tobytes()):
        await call.write(export.ExportRequest(chunk=chunk))
    await call.write(export.ExportRequest(end=writer.end()))
    await call.done_writing()
    return await call


async def completed(
    services: EmbeddedServices, seconds: float = 0.2, prompt: str = "techno", output: OutputOptions | None = None
) -> storage.Generation:
    """Completes a generation with its file, acting as the worker."""
    create = storage.CreateGenerationRequest(
        prompt=prompt, model_name="sketch", duration_seconds=seconds, sample_rate_hz=RATE, channels=CHANNELS
    )
    await services.storage.CreateGeneration(create, timeout=SECONDS)
    claim = storage.ClaimGenerationRequest(worker_id="test", model_names=["sketch"], lease_seconds=30, wait_seconds=5)
    claimed = await services.storage.ClaimGeneration(claim, timeout=SECONDS)
    file = await exported(services, claimed.generation.id, seconds, output=output)
    completion = storage.CompleteGenerationRequest(
        id=claimed.generation.id,
        lease_token=claimed.lease_token,
        file_path=file.file_path,
        file_size_bytes=file.file_size_bytes,
        model_version="1",
        generation_time_seconds=1.0,
    )
    completion.metadata.update({"file_sha256": file.file_sha256})
    return (await services.storage.CompleteGeneration(completion, timeout=SECONDS)).generation


async def clip(services: EmbeddedServices, samples: npt.NDArray[np.float32] | None = None) -> str:
    """Imports samples at RATE, or a second of silence; returns the id of the clip."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros((RATE, 1)) if samples is None else samples, RATE, format="WAV")
    call = services.music.ImportClip(timeout=SECONDS)
    for start in range(0, len(file.getvalue()), 65_536):
        await call.write(export.ImportClipRequest(data=file.getvalue()[start : start + 65_536]))
    await call.done_writing()
    return (await call).clip_id
