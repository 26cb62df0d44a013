"""Fault 1 with models that take more than a prompt: a worker is killed while it generates with a tiny MusicGen-melody
and a tiny diffusion pipeline. The next one makes the same music."""

from __future__ import annotations

import signal
import warnings
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")
pytest.importorskip("diffusers", reason="the pipelines are those of diffusers")

from dgx_music.storage.v1.conditioning_pb2 import Conditioning, Melody
from tests.support.diffusion_pipelines import write_stable_audio
from tests.support.tone_processes import tone_processes
from tests.support.transformers_checkpoints import write_transformers_checkpoint

pytestmark = pytest.mark.slow


async def test_melody_and_diffusion_jobs_of_a_killed_worker_are_completed_by_another(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    write_transformers_checkpoint(data_dir / "models" / "melody", melody=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The autoencoder's layers are deprecated in torch.
        write_stable_audio(data_dir / "models" / "diffusion")
    async with tone_processes(data_dir, "storage", "export", DGX_MUSIC_LEASE_SECONDS="5") as services:
        await services.start("generation")
        source = await services.create("a", 2.0, model_name="sketch", sample_rate_hz=32_000)
        await services.wait_until_completed(source)
        jobs = [
            {
                "model_name": "melody",
                "sample_rate_hz": 32_000,
                "channels": 1,
                "conditioning": Conditioning(melody=Melody(source_id=source)),
            },
            {"model_name": "diffusion", "sample_rate_hz": 8000, "conditioning": Conditioning(steps=4), "seconds": 0.9},
        ]
        undisturbed = [await services.wait_until_completed(await services.create("a", **job)) for job in jobs]
        await services.kill("generation")
        for job, expected in zip(jobs, undisturbed, strict=True):
            await services.start("generation", DGX_MUSIC_FAILPOINT="generation.before_chunk:kill")
            generation_id = await services.create("a", **job)
            assert await services.running.pop("generation").wait() == -signal.SIGKILL
            assert services.files_of(generation_id) == []
            await services.start("generation")
            done = await services.wait_until_completed(generation_id)
            assert dict(done.metadata)["pcm_sha256"] == dict(expected.metadata)["pcm_sha256"]
            await services.kill("generation")
        assert services.problems() == []
