"""A diffusion model through all services, from the request to the file."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

pytest.importorskip("diffusers", reason="the pipelines are those of diffusers")

from dgx_music import Client, Generation
from dgx_music.errors import FailedPrecondition, GenerationCancelled, InvalidArgument
from tests.support.diffusion_pipelines import write_stable_audio
from tests.support.music_server import music_server


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a tiny model, and one whose weights are truncated."""
    folder = tmp_path_factory.mktemp("server")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The autoencoder's layers are deprecated in torch.
        write_stable_audio(folder / "models" / "stable-audio")
    shutil.copytree(folder / "models" / "stable-audio", folder / "models" / "truncated")
    weights = folder / "models" / "truncated" / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return folder


@pytest.fixture(scope="module")
def client(data_dir: Path) -> Iterator[Client]:
    with (
        music_server(data_dir, devices="cpu", renew_interval_seconds=0.02) as [address],
        Client(address) as client,
    ):
        yield client


def test_a_request_becomes_a_file_and_its_steps_are_its_progress(client: Client, data_dir: Path) -> None:
    seen: list[tuple[str, float]] = []

    def note(generation: Generation) -> None:
        seen.append((generation.stage, generation.progress))

    done = client.generate("calm piano", duration=0.9, seed=7, model="stable-audio", on_progress=note)
    info = soundfile.info(data_dir / done.message.file_path)
    assert (info.frames, info.samplerate, info.channels) == (7200, 8000, 2)
    facts = dict(done.message.metadata)
    assert facts["license"] == "LicenseRef-stable-audio-community"
    assert facts["denoising_steps"] == 100
    assert {progress for stage, progress in seen if stage == "generating" and 0.0 < progress < 0.99}


def test_steps_and_a_negative_prompt_reach_the_model(client: Client) -> None:
    facts = [
        dict(client.generate("calm", duration=0.5, seed=7, model="stable-audio", steps=3, **options).message.metadata)
        for options in ({}, {"negative": "drums"}, {})
    ]
    assert [each["denoising_steps"] for each in facts] == [3, 3, 3]
    plain, guided, again = (each["pcm_sha256"] for each in facts)
    assert plain == again != guided


def test_what_the_model_can_not_do_is_refused(client: Client) -> None:
    with pytest.raises(InvalidArgument, match="lyrics: model 'stable-audio' can't sing lyrics"):
        client.generate("calm", duration=0.5, model="stable-audio", lyrics="la la la")


def test_a_model_says_what_it_can_do(client: Client) -> None:
    [model] = [model for model in client.models() if model.name == "stable-audio"]
    assert model.license == "LicenseRef-stable-audio-community"


def test_a_damaged_model_says_what_is_wrong_with_it_and_harms_no_other(client: Client) -> None:
    [model] = [model for model in client.models() if model.name == "truncated"]
    assert "vae/diffusion_pytorch_model.safetensors: can't be read as safetensors" in model.problem
    with pytest.raises(FailedPrecondition, match="the file is truncated"):
        client.generate("calm piano", duration=0.9, model="truncated")
    assert client.generate("calm piano", duration=0.2, model="stable-audio").state == "completed"


def test_a_longer_piece_is_refused_with_the_limit(client: Client) -> None:
    with pytest.raises(InvalidArgument, match=r"0\.96"):
        client.generate("calm piano", duration=2, model="stable-audio")


def test_a_request_is_cancelled_between_its_steps(client: Client) -> None:
    progress: list[float] = []

    def cancel(generation: Generation) -> None:
        if generation.progress > 0.0:
            progress.append(generation.progress)
            if len(progress) == 1:
                generation.cancel()

    with pytest.raises(GenerationCancelled):
        client.generate("calm piano", duration=0.9, model="stable-audio", on_progress=cancel)
    assert progress[0] < 1.0
    assert client.generate("calm piano", duration=0.9, model="stable-audio").state == "completed"
