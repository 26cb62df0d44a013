# ruff: noqa: E402
"""Requests with LoRA adapters generate what PEFT generates with them, with several adapters in one batch."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("peft", reason="the adapters are PEFT's")

from dgx_music.errors import InvalidArgument
from generation_service.config import PrecisionName
from generation_service.models.base import AdapterUse, GenerationParameters, PromptSection, WeightedPrompt
from generation_service.models.musicgen.adapters import adapter_registry
from generation_service.models.musicgen.adapters.adapter_file import read_adapter
from generation_service.models.musicgen.adapters.merged_checkpoint import merge_adapters
from generation_service.models.musicgen.loader import FoundModel, find_musicgen
from generation_service.models.musicgen.model import MusicGen
from tests.support.golden_codes import FRAME_RATE_HZ, HOP, RATE_HZ
from tests.support.musicgen_runs import greedy, load_model, run
from tests.support.peft_adapters import EVERYTHING, apply_by_peft, write_adapter
from tests.support.transformers_checkpoints import generate_with_transformers, write_transformers_checkpoint

PROMPT, FRAMES = "calm piano", 16
CASES: tuple[dict[str, float], ...] = (
    {"attention": 1.0},
    {},
    {"everything": 1.0},
    {"attention": -0.7},
    {"ff": 1.5, "everything": 0.5},
    {"decoder": 1.0},
)


@dataclass(frozen=True)
class Installed:
    """A model, and a folder of adapters for it."""

    found: FoundModel
    adapters: Path

    def expected(self, uses: dict[str, float], *, merge: bool = False) -> np.ndarray:
        """PEFT's greedy codes."""
        folders, decoder_only = [self.adapters / name for name in uses], "decoder" in uses
        adapt = apply_by_peft(folders, list(uses.values()), merge=merge, decoder_only=decoder_only)
        (generated,) = generate_with_transformers(self.found.folder, [PROMPT], FRAMES, adapt)
        codes: np.ndarray = generated.codes.numpy()
        return codes


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("adapters")
    model = write_transformers_checkpoint(folder / "model")
    adapters = folder / "adapters"
    write_adapter(adapters / "attention", model, seed=1, use_rslora=True, r=3)
    write_adapter(adapters / "everything", model, EVERYTHING, seed=2)
    write_adapter(adapters / "ff", model, r".*\.layers\.[02]\.fc[12]", seed=3, rank_pattern={"layers.0.fc1": 20})
    write_adapter(
        adapters / "decoder", model, ["q_proj", "lm_heads.1"], seed=4, decoder_only=True, alpha_pattern={"q_proj": 3}
    )
    return Installed(find_musicgen(model, adapter_folder=adapters), adapters)


@pytest.fixture(scope="module", params=["eager", "resident"])
def model(request: pytest.FixtureRequest, installed: Installed) -> MusicGen:
    return load_model(installed.found, request.param)


def using(uses: dict[str, float], prompt: str = PROMPT, frames: int = FRAMES) -> GenerationParameters:
    adapters = tuple(AdapterUse(name, scale) for name, scale in uses.items())
    return replace(greedy(prompt, frames), adapters=adapters)


def codes_of(model: MusicGen, *requests: GenerationParameters) -> list[np.ndarray]:
    """The codes of requests that share a batch, which each joins two steps after the one before it."""
    results = run(model, [(parameters, 2 * index) for index, parameters in enumerate(requests)])
    return [state.codes.select_frames(0, state.codes.total_frames) for state, _ in results]


def test_greedy_codes_equal_those_of_peft_with_several_adapters_in_one_batch(
    model: MusicGen, installed: Installed
) -> None:
    expected = [installed.expected(uses) for uses in CASES]
    assert len({codes.tobytes() for codes in expected}) == len(CASES), "each adapter changes the music"
    for uses, codes, want in zip(CASES, codes_of(model, *map(using, CASES)), expected, strict=True):
        assert np.array_equal(codes, want), uses


def test_request_without_adapters_is_not_changed_by_one_before_it(model: MusicGen, installed: Installed) -> None:
    plain = installed.expected({})
    codes_of(model, using({"everything": 1.0}))
    assert np.array_equal(codes_of(model, using({}))[0], plain)
    codes_of(model, using({"everything": 1.0}))
    # It has the place of the one before it, and the batch has adapters.
    assert np.array_equal(codes_of(model, using({}), using({"attention": 1.0}))[0], plain)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_samples_are_the_same_to_the_last_bit_in_any_batch(installed: Installed, precision: PrecisionName) -> None:
    model = load_model(replace(installed.found, precision=precision), "eager")
    alone = [run(model, [(using(uses), 0)])[0][1] for uses in CASES[:4]]
    together = run(model, [(using(uses), index % 2) for index, uses in enumerate(CASES[:4])])
    for own, (_, shared) in zip(alone, together, strict=True):
        assert np.array_equal(own, shared)
    assert len({samples.tobytes() for samples in alone}) == 4


def test_merged_checkpoint_generates_what_peft_generates_after_merging(installed: Installed) -> None:
    uses, found = {"everything": 0.5, "ff": 1.5}, installed.found
    files = [
        (read_adapter(installed.adapters / name, found.config, found.checkpoint.headers), scale)
        for name, scale in uses.items()
    ]
    merged = load_model(replace(found, checkpoint=merge_adapters(found.checkpoint, files)), "eager")
    assert np.array_equal(codes_of(merged, using({}))[0], installed.expected(uses, merge=True))


def test_adapters_apply_to_all_texts_and_in_all_windows(installed: Installed) -> None:
    """The eager and the resident generator agree, and differ from what they generate without the adapter."""
    found = replace(installed.found, config=replace(installed.found.config, max_duration_seconds=60 / FRAME_RATE_HZ))
    clip = np.random.default_rng(1).standard_normal((RATE_HZ // 2, 1), np.float32) / np.float32(10)
    shaped = (
        replace(using({"everything": 1.0}, frames=70), negative_prompt="drums", guidance_scale=4.0),
        replace(using({"attention": 1.0}), further_prompts=(WeightedPrompt("a choir", 0.5),)),
        replace(using({"ff": 1.0}, frames=80), sections=(PromptSection(20 * HOP, 50 * HOP, "a choir"),)),
        replace(using({"decoder": 1.0}), prompt_audio=clip),
    )
    eager, resident = load_model(found, "eager"), load_model(found, "resident", prefill_positions=8)
    codes = codes_of(eager, *shaped)
    for index, (own, other) in enumerate(zip(codes, codes_of(resident, *shaped), strict=True)):
        assert np.array_equal(own, other), index
    for index, (own, without) in enumerate(
        zip(codes, codes_of(eager, *(replace(each, adapters=()) for each in shaped)), strict=True)
    ):
        assert not np.array_equal(own, without), index


def test_metadata_names_adapters_with_scale_and_digest(model: MusicGen) -> None:
    (state, _), (plain, _) = run(model, [(using({"ff": 1.5, "attention": 1.0}, frames=1), 0), (using({}, frames=1), 0)])
    assert plain.metadata == {}
    assert re.fullmatch(r"attention \([0-9a-f]{16}\), ff:1.5 \([0-9a-f]{16}\)", str(state.metadata["adapters"]))


def test_adapter_that_is_replaced_is_read_again(installed: Installed, tmp_path: Path) -> None:
    adapters = shutil.copytree(installed.adapters, tmp_path / "adapters")
    model = load_model(replace(installed.found, adapter_folder=adapters), "resident")
    first = codes_of(model, using({"attention": 1.0}))[0]
    shutil.rmtree(adapters / "attention")
    shutil.copytree(installed.adapters / "ff", adapters / "attention")
    second = codes_of(model, using({"attention": 1.0}))[0]
    assert np.array_equal(first, installed.expected({"attention": 1.0}))
    assert np.array_equal(second, installed.expected({"ff": 1.0}))


def test_adapters_and_texts_are_prepared_ahead(
    model: MusicGen, installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the thread of the device reads no file and runs no text encoder."""
    uses = {"everything": 0.25, "ff": 1.0}
    request = replace(using(uses, "a text of its own"), negative_prompt="another one")
    model.encode_prompts([using({}, "plain"), request])
    monkeypatch.setattr(adapter_registry, "load_adapter", None)
    monkeypatch.setattr(model._conditions.texts, "_encoder", None)
    assert codes_of(model, request)[0].shape[1] == FRAMES
    assert codes_of(model, using({}, "plain"))[0].shape[1] == FRAMES


def test_unknown_adapter_fails_its_request_alone(model: MusicGen, installed: Installed) -> None:
    with pytest.raises(InvalidArgument, match="there is no adapter 'jazz'") as caught:
        model.prefill(using({"attention": 1.0, "jazz": 1.0}))
    assert caught.value.field == "conditioning.adapters[1].name"
    assert model.memory.reserved_bytes == 0
    assert np.array_equal(codes_of(model, using({"attention": 1.0}))[0], installed.expected({"attention": 1.0}))
