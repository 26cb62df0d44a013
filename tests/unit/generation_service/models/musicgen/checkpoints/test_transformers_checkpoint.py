# ruff: noqa: E402
"""Models that transformers saved generate what transformers generates with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the layout is transformers'")

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.loader import find_musicgen, load_musicgen
from tests.support.musicgen_runs import greedy, load_model, run
from tests.support.transformers_checkpoints import generate_with_transformers, write_transformers_checkpoint

PROMPTS = ("calm piano", "an energetic drum and bass track at 174 bpm, with a deep sub", "x")
FRAMES = 30


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_transformers_checkpoint(tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stereo model in several files."""
    folder = write_transformers_checkpoint(tmp_path_factory.mktemp("sharded"), stereo=True, shard_size="200KB")
    assert not (folder / "model.safetensors").exists()
    return folder


@pytest.fixture
def copy(single: Path, tmp_path: Path) -> Path:
    return shutil.copytree(single, tmp_path / "copy")


@pytest.mark.parametrize(("layout", "generator"), [("single", "eager"), ("single", "resident"), ("sharded", "eager")])
def test_greedy_codes_and_samples_equal_transformers(
    layout: str, generator: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(layout)
    expected = generate_with_transformers(folder, PROMPTS, FRAMES)
    assert not torch.equal(expected[0].codes, expected[1].codes), "the reference depends on the prompt"
    model = load_model(find_musicgen(folder), generator)
    assert model.info.channels == (2 if layout == "sharded" else 1)
    results = run(model, [(greedy(prompt, FRAMES), 2 * index) for index, prompt in enumerate(PROMPTS)])
    for (state, samples), want in zip(results, expected, strict=True):
        assert np.array_equal(state.codes.select_frames(0, FRAMES), want.codes.numpy())
        np.testing.assert_allclose(samples, want.samples, atol=1e-5)


def test_window_is_the_length_that_the_model_generates_by_default(copy: Path) -> None:
    found = find_musicgen(copy)
    assert found.config.max_duration_seconds == 30
    _change(copy / "generation_config.json", lambda config: config.update(max_length=500))
    assert find_musicgen(copy).config.max_duration_seconds == 10
    assert find_musicgen(copy).info.version != found.info.version
    _change(copy / "generation_config.json", lambda config: config.update(max_length=None))
    assert find_musicgen(copy).config.max_duration_seconds == 30
    (copy / "generation_config.json").unlink()
    assert find_musicgen(copy).config.max_duration_seconds == 30


def test_version_changes_with_the_configuration_and_with_the_weights(copy: Path) -> None:
    versions = {find_musicgen(copy).info.version}
    _change(copy / "config.json", lambda config: config["decoder"].update(num_attention_heads=2))
    versions.add(find_musicgen(copy).info.version)
    write_transformers_checkpoint(copy, seed=1)
    versions.add(find_musicgen(copy).info.version)
    assert len(versions) == 3


def _change(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


CONFIGS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another architecture": (lambda c: c.update(model_type="llama"), "model_type is 'llama'; expected musicgen"),
    "another activation": (lambda c: c["decoder"].update(activation_function="relu"), "activation_function is 'relu'"),
    "scaled embeddings": (lambda c: c["decoder"].update(scale_embedding=True), "scale_embedding is True"),
    "tied embeddings": (lambda c: c["decoder"].update(tie_word_embeddings=True), "tie_word_embeddings is True"),
    "another code for none": (lambda c: c["decoder"].update(pad_token_id=0), "pad_token_id is 0"),
    "another text encoder": (
        lambda c: c["text_encoder"].update(model_type="bert"),
        "text_encoder.model_type is 'bert'",
    ),
    "no projection": (lambda c: c["text_encoder"].update(d_model=64), "for which transformers saves no projection"),
    "more codes": (
        lambda c: c["decoder"].update(vocab_size=128, pad_token_id=128),
        r"decoder\.model\.decoder\.embed_tokens\.0\.weight has the shape \[65, 64\]; .* expects \[129, 64\]",
    ),
    "more layers": (
        lambda c: c["decoder"].update(num_hidden_layers=4),
        r"have no transformer\.layers\.3\.norm1\.weight",
    ),
    "fewer layers": (lambda c: c["decoder"].update(num_hidden_layers=2), r"does not have the tensor decoder\.model\."),
    "a million layers": (lambda c: c["decoder"].update(num_hidden_layers=10**6), r"have no transformer\.layers\.3\."),
    "100 GB": (
        lambda c: c["decoder"].update(hidden_size=10**6),
        r"has the shape \[65, 64\]; .* expects \[65, 1000000\]",
    ),
    "more than any model has": (lambda c: c["decoder"].update(hidden_size=10**9), "expected at most 1,048,576"),
    "a wider codec": (
        lambda c: c["audio_encoder"].update(num_filters=10**5),
        "the weights do not fit the configuration",
    ),
    "a deeper codec": (lambda c: c["audio_encoder"].update(num_residual_layers=10**6), "expected at most 64"),
    "no codec": (lambda c: c.pop("audio_encoder"), "has no audio_encoder.sampling_rate"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configuration_that_the_weights_do_not_fit_is_rejected(copy: Path, case: str) -> None:
    change, problem = CONFIGS[case]
    _change(copy / "config.json", change)
    with pytest.raises(FailedPrecondition, match=problem) as caught:
        find_musicgen(copy)
    assert caught.value.reason == "CHECKPOINT_INVALID"


def test_preprocessor_of_another_codec_is_rejected(copy: Path) -> None:
    _change(copy / "preprocessor_config.json", lambda config: config.update(sampling_rate=24_000))
    with pytest.raises(FailedPrecondition, match="sampling_rate is 24000; only 32000"):
        find_musicgen(copy)


def test_incomplete_folder_says_what_is_missing(copy: Path) -> None:
    for name in ("tokenizer.json", "spiece.model"):
        (copy / name).unlink(missing_ok=True)
    with pytest.raises(FailedPrecondition, match="it has no tokenizer"):
        load_musicgen(find_musicgen(copy))
    (copy / "model.safetensors").unlink()
    with pytest.raises(FailedPrecondition, match=r"model\.safetensors: no such file") as caught:
        find_musicgen(copy)
    assert caught.value.reason == "CHECKPOINT_MISSING"
