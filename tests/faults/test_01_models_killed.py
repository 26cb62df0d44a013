"""Fault 1 with models that take more than a prompt: a worker is killed while it generates with a tiny MusicGen-melody
and a tiny diffusion pipeline. The next one makes the same music."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")
pytest.importorskip("diffusers", reason="the pipelines are those of diffusers")

from dgx_music.storage.v1 import storage_pb2 as pb
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
                "seconds": 8.0,
                "sample_rate_hz": 32_000,
                "channels": 1,
                "conditioning": Conditioning(melody=Melody(source_id=source)),
            },
            {"model_name": "diffusion", "seconds": 0.9, "conditioning": Conditioning(steps=300)},
        ]
        undisturbed = [await services.wait_until_completed(await services.create("a", **job)) for job in jobs]
        killed = [await services.create("a", **job) for job in jobs]
        for generation_id in killed:
            await services.wait_until(generation_id, lambda one: one.stage == pb.GENERATION_STAGE_GENERATING)
        await services.kill("generation")
        assert all(services.files_of(generation_id) == [] for generation_id in killed)
        await services.start("generation")
        for generation_id, expected in zip(killed, undisturbed, strict=True):
            done = await services.wait_until_completed(generation_id)
            assert done.attempt > 1
            assert dict(done.metadata)["pcm_sha256"] == dict(expected.metadata)["pcm_sha256"]
        assert services.problems() == []
