"""The audiocraft engine, compared with direct calls of audiocraft."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("torch", reason="MusicGen needs torch")

import torch

from dgx_music.errors import FailedPrecondition, InvalidArgument
from generation_service.config import GenerationSettings
from generation_service.engine.batch_runner import MAX_EMPTY_STEPS
from generation_service.models.audiocraft import Audiocraft, AudiocraftState, find_audiocraft, load_audiocraft
from generation_service.models.base import FloatArray, GenerationParameters
from generation_service.models.discovery import find_installed_models
from generation_service.models.musicgen.loader import find_musicgen
from tests.support.sound_checkpoints import write_magnet

HOP = 640
CARD = 64

LOAD_SCRIPT = """
import sys
from pathlib import Path
from generation_service.models.audiocraft import load_audiocraft
from dgx_music.errors import ServiceError
sys.modules.update({name: None for name in sys.argv[2:]})
try:
    load_audiocraft(Path(sys.argv[1]))
except ServiceError as error:
    print(error.reason, error.message, sep="\\n")
"""


@dataclass(frozen=True)
class Loaded:
    folder: Path
    model: Audiocraft


@pytest.fixture(scope="module")
def audiocraft(t5: None) -> None:
    pytest.importorskip("audiocraft", reason="this engine is audiocraft; make setup-audiocraft")


@pytest.fixture(scope="module", params=["mono", "stereo"])
def loaded(request: pytest.FixtureRequest, audiocraft: None) -> Loaded:
    folder = request.getfixturevalue(request.param)
    return Loaded(folder, load_audiocraft(folder))


def generate_directly(folder: Path, parameters: GenerationParameters) -> FloatArray:
    """The samples that audiocraft itself generates."""
    from audiocraft.models import MusicGen, loaders

    with pytest.warns(FutureWarning, match="weight_norm"):
        codec = loaders.load_compression_model(str(folder))
    musicgen = MusicGen("direct", codec, loaders.load_lm_model(str(folder)))
    musicgen.set_generation_params(
        duration=(parameters.frames // HOP + 0.5) / 50,  # audiocraft rounds down.
        temperature=parameters.temperature,
        top_k=min(parameters.top_k, CARD),
        top_p=parameters.top_p,
        cfg_coef=parameters.guidance_scale,
    )
    torch.manual_seed(parameters.seed)
    samples: FloatArray = musicgen.generate([parameters.prompt])[0].T.numpy()
    return samples


def run(model: Audiocraft, parameters: GenerationParameters) -> FloatArray:
    state = model.prefill(parameters)
    blocks = []
    while sum(map(len, blocks)) < parameters.frames:
        assert len(blocks) < 2000
        blocks += model.step([state])
    assert len(model.step([state])[0]) == 0, "a finished state yields nothing more"
    model.release(state)
    return np.concatenate(blocks)


def test_audio_equals_audiocraft_in_a_changing_batch(loaded: Loaded) -> None:
    requests = [
        GenerationParameters("calm piano", 30 * HOP, seed=1, top_k=20),
        GenerationParameters("calm piano", 23 * HOP, seed=2, top_k=20),
        GenerationParameters("fast drums, and a very long description of them", 41 * HOP, seed=1, temperature=0.7),
        GenerationParameters("lofi", 12 * HOP, seed=2**62, top_p=0.8, guidance_scale=5.0),
        GenerationParameters("", 17 * HOP, seed=4, top_k=0),
        GenerationParameters("80s synthwave", 1 * HOP, seed=5, temperature=0),
    ]
    model = loaded.model
    cancelled = model.prefill(GenerationParameters("gone soon", 60 * HOP, seed=9))
    states: list[AudiocraftState] = []
    blocks: list[list[FloatArray]] = []
    for now in range(60):
        if now % 2 == 0 and len(states) < len(requests):
            states.append(model.prefill(requests[len(states)]))
            blocks.append([])
        if now == 3:
            model.release(cancelled)
        batch = [*states, cancelled] if now < 3 else states
        for own, block in zip(blocks, model.step(batch), strict=False):
            own.append(block)
    finished = [np.concatenate(own) for own in blocks]
    for request, samples in zip(requests, finished, strict=True):
        assert samples.dtype == np.float32
        assert samples.shape == (request.frames, model.info.channels)
        assert np.array_equal(samples, generate_directly(loaded.folder, request)), request
    assert not np.array_equal(finished[0][: 23 * HOP], finished[1]), "the audio depends on the seed"


@pytest.mark.parametrize("frames", [1, HOP - 1, HOP, HOP + 1, 7 * HOP + 13])
def test_output_has_exactly_the_requested_frames(loaded: Loaded, frames: int) -> None:
    samples = run(loaded.model, GenerationParameters("calm piano", frames, seed=1))
    assert samples.shape == (frames, loaded.model.info.channels)
    assert np.abs(samples).max() > 0


def test_duration_longer_than_a_window_is_rejected(loaded: Loaded) -> None:
    with pytest.raises(InvalidArgument, match="at most 960000"):
        loaded.model.prefill(GenerationParameters("calm piano", 30 * 32000 + 1, seed=1))


def test_full_window_stays_below_the_limit_of_empty_steps(mono: Path, audiocraft: None) -> None:
    model = load_audiocraft(mono)
    state = model.prefill(GenerationParameters("calm piano", 30 * 32000, seed=1))
    silent = 0
    while not len(block := model.step([state])[0]):
        silent += 1
        assert silent < MAX_EMPTY_STEPS
    assert len(block) == 30 * 32000


def test_variant_rejected_by_the_native_engine_runs(mono: Path, tmp_path: Path, audiocraft: None) -> None:
    variant = rewrite(mono, tmp_path, lambda config: config["codebooks_pattern"].update(modeling="parallel"))
    with pytest.raises(FailedPrecondition, match=r"codebooks_pattern\.modeling is 'parallel'"):
        find_musicgen(variant)
    parameters = GenerationParameters("calm piano", 5 * HOP, seed=1)
    samples = run(load_audiocraft(variant), parameters)
    assert np.array_equal(samples, generate_directly(variant, parameters))
    assert not np.array_equal(samples, generate_directly(mono, parameters))


def test_model_info_does_not_need_audiocraft(mono: Path, stereo: Path) -> None:
    native, info = find_musicgen(mono).info, find_audiocraft(mono)
    assert (info.name, info.channels, info.sample_rate_hz) == ("mono", 1, 32000)
    assert info.max_duration_seconds == 30
    assert info.licence == "NOASSERTION"
    assert not info.is_synthesiser
    assert find_audiocraft(stereo, name="other").name == "other"
    assert find_audiocraft(stereo).channels == 2
    versions = {native.version, info.version, find_audiocraft(mono, device="cuda").version}
    assert len(versions) == 3, "each may generate different samples"


@pytest.mark.parametrize(("engine", "kind"), [("native", "MusicGen"), ("audiocraft", "Audiocraft")])
def test_engine_setting_selects_the_implementation(
    engine: str, kind: str, mono: Path, monkeypatch: pytest.MonkeyPatch, audiocraft: None
) -> None:
    monkeypatch.setenv("DGX_MUSIC_ENGINE", engine)
    entry = find_installed_models(GenerationSettings(model_folders=(mono,), device="cpu")).get("mono")
    model = entry.load()
    assert type(model).__name__ == kind
    assert model.info == entry.describe()


def test_unsupported_precision_is_rejected(mono: Path) -> None:
    settings = GenerationSettings(model_folders=(mono,), engine="audiocraft", precision="int8")
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_PRECISION is int8, but audiocraft"):
        find_installed_models(settings).get("mono").describe()


def test_weights_that_do_not_fit_the_configuration_are_rejected(mono: Path, tmp_path: Path, audiocraft: None) -> None:
    folder = rewrite(mono, tmp_path, lambda config: config["transformer_lm"].update(num_layers=2))
    with pytest.raises(FailedPrecondition, match=r"audiocraft can't load it \(RuntimeError") as refused:
        load_audiocraft(folder)
    assert refused.value.reason == "CHECKPOINT_INVALID"


def test_other_kind_of_model_is_rejected_before_loading(mono: Path, tmp_path: Path) -> None:
    folder = rewrite(mono, tmp_path, lambda config: config.pop("transformer_lm"))
    with pytest.raises(
        FailedPrecondition, match=r"does not describe a MusicGen language model \(KeyError\('transformer_lm'\)\)"
    ):
        find_audiocraft(folder)


def test_magnet_is_rejected(tmp_path: Path) -> None:
    """audiocraft's loader of MusicGen accepts it, and what it decodes step by step would be noise."""
    write_magnet(tmp_path)
    with pytest.raises(FailedPrecondition, match="'transformer_lm_magnet', which this engine does not run; set DGX_M"):
        find_audiocraft(tmp_path)


@pytest.mark.slow
def test_missing_audiocraft_error_names_the_install_command(mono: Path) -> None:
    reason, message = load_in_subprocess(mono, "audiocraft")
    assert reason == "AUDIOCRAFT_MISSING"
    assert "make setup-audiocraft" in message


def test_missing_text_encoder_is_reported(mono: Path, tmp_path: Path, audiocraft: None) -> None:
    reason, message = load_in_subprocess(mono, hf_home=tmp_path)
    assert reason == "TEXT_ENCODER_MISSING"
    assert "t5-base" in message


def rewrite(folder: Path, to: Path, change: Any) -> Path:
    """Writes the same weights with a changed configuration."""
    package = torch.load(folder / "state_dict.bin", weights_only=True)
    config = yaml.safe_load(package["xp.cfg"])
    change(config)
    torch.save({**package, "xp.cfg": yaml.safe_dump(config)}, to / "state_dict.bin")
    (to / "compression_state_dict.bin").write_bytes((folder / "compression_state_dict.bin").read_bytes())
    return to


def load_in_subprocess(folder: Path, *blocked: str, hf_home: Path | None = None) -> list[str]:
    """Reason and message of the error that loading raises in a process that can't import the blocked modules."""
    environment = {**os.environ, "HF_HOME": str(hf_home)} if hf_home else None
    command = [sys.executable, "-c", LOAD_SCRIPT, str(folder), *blocked]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return ended.stdout.splitlines()
