"""The prefix of a style equals that of audiocraft's modules, and unusable excerpts are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="MERT's network is transformers' HuBERT")

import torch
import torch.nn.functional as F

from dgx_music.errors import FailedPrecondition, InvalidArgument
from generation_service.models.base import StyleExcerpt
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from generation_service.models.musicgen.codec.encodec_checkpoint import build_encodec
from generation_service.models.musicgen.conditioners.mert import Mert
from generation_service.models.musicgen.conditioners.style_conditioner import StyleConditioner
from tests.support.checkpoints import save_lm_package
from tests.support.golden_codes import RATE_HZ
from tests.support.golden_prefixes import STYLES, check_weights, stored, style_clip
from tests.support.prefix_checkpoints import ENCODEC_CODEBOOKS, style_weights, write_style_checkpoint


@pytest.fixture(scope="module")
def conditioner(style: Path) -> StyleConditioner:
    return load(style)


def load(folder: Path) -> StyleConditioner:
    checkpoint = read_checkpoint(folder)
    config = parse_lm_config(checkpoint)
    assert config.style is not None
    source = Mert() if config.style.feature_model == "mert" else build_encodec(checkpoint.open_codec())
    return StyleConditioner(checkpoint, config.style, config.dim, source)


def test_prefixes_equal_audiocraft(conditioner: StyleConditioner, style: Path, t5: None) -> None:
    check_weights(style)
    for (seconds, quantizers), want in zip(STYLES, stored("style/prefixes"), strict=True):
        prefix = conditioner.encode(StyleExcerpt(style_clip(seconds), quantizers))
        torch.testing.assert_close(prefix, want, atol=2e-4, rtol=1e-4)


def test_encodec_features_are_the_sum_of_the_embeddings_of_its_first_codes(tmp_path: Path) -> None:
    write_style_checkpoint(tmp_path, feature_model="encodec")
    conditioner, codec = load(tmp_path), build_encodec(read_checkpoint(tmp_path).open_codec())
    samples = style_clip(2.0)
    codes, weights = codec.encode(samples), style_weights("encodec")
    expected = sum(F.embedding(codes[k], weights[f"embed.{k}.weight"]) for k in range(ENCODEC_CODEBOOKS))
    found = conditioner._features.extract(torch.from_numpy(samples[:, 0]), RATE_HZ)
    torch.testing.assert_close(found, expected)
    assert conditioner.encode(StyleExcerpt(samples)).shape == (7, 64)  # 100 frames, of which every 15th is kept.


def test_only_the_beginning_of_long_audio_is_read(conditioner: StyleConditioner) -> None:
    long = style_clip(8.0)
    assert torch.equal(conditioner.encode(StyleExcerpt(long)), conditioner.encode(StyleExcerpt(long[: 3 * RATE_HZ])))


def test_more_quantizers_keep_more(conditioner: StyleConditioner) -> None:
    prefixes = [conditioner.encode(StyleExcerpt(style_clip(3.0), quantizers)) for quantizers in range(5)]
    assert torch.equal(prefixes[0], prefixes[2]), "the model's default is 2"
    assert not torch.equal(prefixes[1], prefixes[2])
    assert not torch.equal(prefixes[3], prefixes[4])


@pytest.mark.parametrize(
    ("excerpt", "field"),
    [
        (StyleExcerpt(style_clip(1.4)), r"conditioning\.style\.seconds: .*1\.40 s; at least 1\.5 s"),
        (StyleExcerpt(style_clip(2.0), 5), r"conditioning\.style\.quantizers: 5 .*at most 4"),
    ],
)
def test_unusable_excerpt_is_refused(conditioner: StyleConditioner, excerpt: StyleExcerpt, field: str) -> None:
    with pytest.raises(InvalidArgument, match=field):
        conditioner.encode(excerpt)


def test_stereo_excerpt_is_read_as_mono(conditioner: StyleConditioner) -> None:
    mono = style_clip(2.0)
    assert torch.equal(
        conditioner.encode(StyleExcerpt(np.repeat(mono, 2, axis=1))), conditioner.encode(StyleExcerpt(mono))
    )


def test_missing_weight_is_named(style: Path, tmp_path: Path) -> None:
    package = torch.load(style / "state_dict.bin")
    del package["best_state"]["condition_provider.conditioners.self_wav.rvq.vq.layers.1._codebook.embed"]
    save_lm_package(tmp_path, package)
    (tmp_path / "compression_state_dict.bin").write_bytes((style / "compression_state_dict.bin").read_bytes())
    with pytest.raises(FailedPrecondition, match=r"no .*self_wav\.rvq\.vq\.layers\.1\._codebook\.embed"):
        load(tmp_path)


def test_config_of_the_published_model_is_understood(style: Path) -> None:
    config = parse_lm_config(read_checkpoint(style))
    assert config.style is not None
    assert replace(config.style, dim=512) == replace(config.style, dim=512, num_layers=4, codebooks=4)
    assert not config.has_cross_attention
    assert config.melody is None
