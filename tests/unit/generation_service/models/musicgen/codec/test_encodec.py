"""The codec equals audiocraft's and transformers' from the same files, and its decoded chunks join to the whole."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.base import FloatArray  # noqa: E402
from generation_service.models.musicgen.codec.encodec import Encodec, StreamingDecoder  # noqa: E402
from generation_service.models.musicgen.codec.encodec_checkpoint import load_encodec  # noqa: E402
from tests.support.compression_checkpoints import (  # noqa: E402
    FULL_CODEC,
    TINY_CODEC,
    CodecShape,
    write_compression_checkpoint,
    write_transformers_codec,
)

LONG_MEMORY = 6.0
"""With this forget bias, the LSTM's state decays by a factor of e in about 400 frames."""

SHAPES = {
    "constant": TINY_CODEC,
    "reflect": CodecShape(4, (8, 5, 4, 4), 16, 64, pad_mode="reflect"),
    "plain weights, odd ratios, conv shortcut": CodecShape(
        4, (5, 3, 2), 8, 32, codebooks=2, n_residual_layers=2, true_skip=False, pad_mode="reflect", weight_norm=False
    ),
    "dilated, three LSTM layers": CodecShape(3, (2, 2), 8, 16, codebooks=3, n_residual_layers=3, lstm_layers=3),
    "wide enough for matrix products": CodecShape(256, (16,), 8, 32, pad_mode="reflect"),
}


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest) -> CodecShape:
    return SHAPES[request.param]


@pytest.fixture(scope="module")
def checkpoint(shape: CodecShape, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_compression_checkpoint(tmp_path_factory.mktemp("codec"), shape, forget_bias=LONG_MEMORY)


@pytest.fixture(scope="module")
def codec(checkpoint: Path) -> Encodec:
    return load_encodec(checkpoint)


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


def random_codes(shape: CodecShape, frames: int, channels: int = 1, seed: int = 1) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, shape.codebook_size, (shape.codebooks * channels, frames), generator=generator)


def random_samples(frames: int, channels: int) -> FloatArray:
    noise = np.random.default_rng(2).standard_normal((frames, channels)) * 0.3
    return noise.astype(np.float32)


def stream(codec: Encodec, codes: Any, sizes: Sequence[int]) -> tuple[FloatArray, list[int]]:
    """Decodes in chunks of these sizes, cyclically → all samples, and the frames that each chunk returned."""
    channels = codes.shape[0] // codec.config.codebooks
    decoder = StreamingDecoder(codec, channels)
    chunks, position, turn = [], 0, 0
    while position < codes.shape[1]:
        chunks.append(decoder.decode_chunk(codes[:, position : position + sizes[turn % len(sizes)]]))
        position, turn = position + sizes[turn % len(sizes)], turn + 1
    frames = [len(chunk) for chunk in chunks]
    return np.concatenate([*chunks, decoder.flush()]), frames


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
    np.testing.assert_allclose(stream(codec, codes, [5])[0], expected, atol=2e-5)
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


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sizes", [[1], [3], [5], [25], [50], [5, 10, 25, 50], [4, 1, 0, 2, 7]], ids=str)
def test_chunks_join_to_the_whole(codec: Encodec, shape: CodecShape, sizes: list[int], channels: int) -> None:
    codes = random_codes(shape, 121, channels)
    joined, _ = stream(codec, codes, sizes)
    whole = codec.decode(codes, channels)
    assert joined.shape == whole.shape == (121 * codec.config.hop_frames, channels)
    np.testing.assert_allclose(joined, whole, atol=1e-5)


@pytest.mark.parametrize("sizes", [[1], [2], [3], [8]], ids=str)
@pytest.mark.parametrize("frames", range(1, 9))
def test_chunks_of_short_streams_join_to_the_whole(
    codec: Encodec, shape: CodecShape, frames: int, sizes: list[int]
) -> None:
    codes = random_codes(shape, frames)
    joined, _ = stream(codec, codes, sizes)
    assert joined.shape == (frames * codec.config.hop_frames, 1)
    np.testing.assert_allclose(joined, codec.decode(codes, 1), atol=1e-5)


def test_chunk_boundary_can_be_anywhere(codec: Encodec, shape: CodecShape) -> None:
    codes = random_codes(shape, 14)
    whole = codec.decode(codes, 1)
    for first in range(15):
        decoder = StreamingDecoder(codec, 1)
        joined = np.concatenate(
            [decoder.decode_chunk(codes[:, :first]), decoder.decode_chunk(codes[:, first:]), decoder.flush()]
        )
        np.testing.assert_allclose(joined, whole, atol=1e-5)


def test_lstm_state_of_the_test_codec_is_long_lived(tmp_path: Path) -> None:
    """With a short-lived state, a decoder that lost its state would pass these tests."""
    codec = load_encodec(write_compression_checkpoint(tmp_path, forget_bias=LONG_MEMORY))
    codes = random_codes(TINY_CODEC, 121)
    other = codes.clone()
    other[:, :40] = random_codes(TINY_CODEC, 40, seed=9)
    late = slice(100 * codec.config.hop_frames, None)
    assert np.abs(codec.decode(codes, 1)[late] - codec.decode(other, 1)[late]).max() > 1e-2


def test_output_lags_by_at_most_four_frames(tmp_path: Path) -> None:
    codec = load_encodec(write_compression_checkpoint(tmp_path))
    _, frames = stream(codec, random_codes(TINY_CODEC, 12), [1])
    hop = codec.config.hop_frames
    assert frames[:3] == [0, 0, 0]
    lags = [(index + 1) * hop - sum(frames[: index + 1]) for index in range(3, 12)]
    assert all(3 * hop < lag <= 4 * hop for lag in lags)
    assert set(frames[4:]) == {hop}


def test_interleaved_streams_are_independent(tmp_path: Path) -> None:
    codec = load_encodec(write_compression_checkpoint(tmp_path, forget_bias=LONG_MEMORY))
    first, second = random_codes(TINY_CODEC, 20, seed=1), random_codes(TINY_CODEC, 20, seed=2)
    decoders = StreamingDecoder(codec, 1), StreamingDecoder(codec, 1)
    chunks: tuple[list[FloatArray], list[FloatArray]] = ([], [])
    for start in range(0, 20, 4):
        chunks[0].append(decoders[0].decode_chunk(first[:, start : start + 4]))
        chunks[1].append(decoders[1].decode_chunk(second[:, start : start + 4]))
    for decoder, own, codes in zip(decoders, chunks, (first, second), strict=True):
        np.testing.assert_allclose(np.concatenate([*own, decoder.flush()]), codec.decode(codes, 1), atol=1e-5)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("sizes", [[1], [5], [25]], ids=str)
def test_stream_on_cuda_equals_the_cpu(
    checkpoint: Path, codec: Encodec, shape: CodecShape, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    codes = random_codes(shape, 60, 2)
    joined, _ = stream(load_encodec(checkpoint).to("cuda"), codes, sizes)
    np.testing.assert_allclose(joined, codec.decode(codes, 2), atol=1e-4)


def test_empty_stream_yields_no_samples(codec: Encodec) -> None:
    assert StreamingDecoder(codec, 2).flush().shape == (0, 2)


def test_stereo_equals_the_mono_codec_per_channel(codec: Encodec, shape: CodecShape) -> None:
    codes = random_codes(shape, 10, 2)
    both = codec.decode(codes, 2)
    np.testing.assert_allclose(both[:, :1], codec.decode(codes[0::2], 1), atol=1e-5)
    np.testing.assert_allclose(both[:, 1:], codec.decode(codes[1::2], 1), atol=1e-5)
    samples = random_samples(3 * codec.config.hop_frames, 2)
    assert codec.encode(samples)[1::2].tolist() == codec.encode(samples[:, 1:]).tolist()
