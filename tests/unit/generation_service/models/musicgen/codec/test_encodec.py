"""The codec equals audiocraft's and transformers' from the same files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.base import FloatArray  # noqa: E402
from generation_service.models.musicgen.codec.encodec import Encodec  # noqa: E402
from generation_service.models.musicgen.codec.encodec_checkpoint import load_encodec  # noqa: E402
from tests.support.compression_checkpoints import (  # noqa: E402
    FULL_CODEC,
    LONG_MEMORY,
    CodecShape,
    random_codes,
    write_compression_checkpoint,
    write_transformers_codec,
)


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Any:
    return load_with_audiocraft(checkpoint)


def require_audiocraft() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("audiocraft", reason="the reference is audiocraft; make setup-audiocraft")


def load_with_audiocraft(checkpoint: Path) -> Any:
    """audiocraft's own model from the same file."""
    require_audiocraft()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from audiocraft.models.loaders import load_compression_model

        return load_compression_model(str(checkpoint))


def random_samples(frames: int, channels: int) -> FloatArray:
    noise = np.random.default_rng(2).standard_normal((frames, channels)) * 0.3
    return noise.astype(np.float32)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 8, 60])
@pytest.mark.parametrize("channels", [1, 2])
def test_decode_equals_audiocraft(
    codec: Encodec, reference: Any, shape: CodecShape, frames: int, channels: int
) -> None:
    from audiocraft.models.encodec import InterleaveStereoCompressionModel

    codes = random_codes(shape, frames, channels)
    with torch.inference_mode():
        model = reference if channels == 1 else InterleaveStereoCompressionModel(reference)
        expected = model.decode(codes[None])[0].t().numpy()
    assert expected.shape == (frames * codec.config.hop_frames, channels)
    assert expected.std() > 0.05
    np.testing.assert_allclose(codec.decode(codes, channels), expected, atol=2e-5)


def test_codec_of_full_size_equals_audiocraft(tmp_path: Path) -> None:
    require_audiocraft()
    checkpoint = write_compression_checkpoint(tmp_path, FULL_CODEC, forget_bias=LONG_MEMORY)
    codec, reference = load_encodec(checkpoint), load_with_audiocraft(checkpoint)
    codes, samples = random_codes(FULL_CODEC, 20), random_samples(6_000, 1)
    with torch.inference_mode():
        expected = reference.decode(codes[None])[0].t().numpy()
        expected_codes, _ = reference.encode(torch.from_numpy(samples).t()[None])
    np.testing.assert_allclose(codec.decode(codes, 1), expected, atol=2e-5)
    assert codec.encode(samples).tolist() == expected_codes[0].tolist()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("hops", [0.01, 1, 2.3, 3, 40, 40.5])
def test_encode_equals_audiocraft(
    codec: Encodec, reference: Any, shape: CodecShape, hops: float, channels: int
) -> None:
    from audiocraft.models.encodec import InterleaveStereoCompressionModel

    samples = random_samples(max(1, round(hops * codec.config.hop_frames)), channels)
    with torch.inference_mode():
        model = reference if channels == 1 else InterleaveStereoCompressionModel(reference)
        expected, scale = model.encode(torch.from_numpy(samples).t()[None])
    codes = codec.encode(samples)
    assert scale is None
    assert codes.dtype == torch.int64
    assert codes.tolist() == expected[0].tolist()
    assert hops < 40 or len(set(codes.flatten().tolist())) > 5


@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
def test_codec_in_transformers_format_equals_transformers(tmp_path: Path, pad_mode: str) -> None:
    transformers = pytest.importorskip("transformers")
    shape = CodecShape(4, (8, 5, 4, 4), 16, 64, pad_mode=pad_mode)
    folder = write_transformers_codec(tmp_path, shape, forget_bias=LONG_MEMORY)
    reference = transformers.EncodecModel.from_pretrained(folder).eval()
    codec = load_encodec(folder)
    codes, samples = random_codes(shape, 30), random_samples(10_000, 1)
    with torch.inference_mode():
        expected = reference.decode(codes[None, None], [None])[0][0].t().numpy()
        expected_codes = reference.encode(torch.from_numpy(samples).t()[None]).audio_codes[0, 0]
    np.testing.assert_allclose(codec.decode(codes, 1), expected, atol=2e-5)
    assert codec.encode(samples).tolist() == expected_codes.tolist()


def test_stereo_equals_the_mono_codec_per_channel(codec: Encodec, shape: CodecShape) -> None:
    codes = random_codes(shape, 10, 2)
    both = codec.decode(codes, 2)
    np.testing.assert_allclose(both[:, :1], codec.decode(codes[0::2], 1), atol=1e-5)
    np.testing.assert_allclose(both[:, 1:], codec.decode(codes[1::2], 1), atol=1e-5)
    samples = random_samples(3 * codec.config.hop_frames, 2)
    assert codec.encode(samples)[1::2].tolist() == codec.encode(samples[:, 1:]).tolist()
