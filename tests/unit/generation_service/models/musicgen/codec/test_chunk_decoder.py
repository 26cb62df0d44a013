"""The chunks of any number of streams join to the whole, whatever is decoded beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from dgx_music.errors import ResourceExhausted  # noqa: E402
from generation_service.models.base import FloatArray  # noqa: E402
from generation_service.models.musicgen.codec.chunk_decoder import CHUNK_FRAMES, ChunkDecoder  # noqa: E402
from generation_service.models.musicgen.codec.decoder_passes import ChunkShape, PassResult  # noqa: E402
from generation_service.models.musicgen.codec.encodec import Encodec  # noqa: E402
from generation_service.models.musicgen.codec.encodec_checkpoint import load_encodec  # noqa: E402
from tests.support.compression_checkpoints import (  # noqa: E402
    CODEC_SHAPES,
    LONG_MEMORY,
    TINY_CODEC,
    CodecShape,
    random_codes,
    snr_db,
    write_compression_checkpoint,
)

HOP = 640


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Encodec:
    return load_encodec(write_compression_checkpoint(tmp_path_factory.mktemp("tiny"), forget_bias=LONG_MEMORY))


def decode_chunks(decoder: ChunkDecoder, codes: Any, sizes: Sequence[int]) -> list[FloatArray]:
    """Decodes in chunks of these sizes, cyclically; the audio of each chunk, and that of the flush."""
    stream = decoder.open()
    chunks, position, turn = [], 0, 0
    while position < codes.shape[1]:
        size = sizes[turn % len(sizes)]
        decoder.submit(stream, codes[:, position : position + size], is_last=False)
        decoder.run()
        chunks.append(decoder.take(stream))
        position, turn = position + size, turn + 1
    decoder.submit(stream, codes[:, :0], is_last=True)
    decoder.wait(stream)
    chunks.append(decoder.take(stream))
    decoder.close(stream)
    return chunks


class RecordedPasses:
    """Stands between a decoder and its runner, as a device that may be slow or fail."""

    def __init__(self, decoder: ChunkDecoder) -> None:
        self._runner = decoder._runner
        decoder._runner = self
        self.passes: list[tuple[int, ChunkShape]] = []
        """The rows and the shape of each pass."""
        self.failing_slots: set[int] = set()
        self.is_slow = False
        self.unfinished: list[Copy] = []

    def warm_up(self, shapes: Iterable[ChunkShape], codebooks: int, channels: int) -> None:
        self.warm_shapes = set(shapes)

    def run(self, codes: Sequence[Any], slots: Sequence[int], shape: ChunkShape) -> PassResult:
        if self.failing_slots.intersection(slots):
            raise RuntimeError("out of memory")
        self.passes.append((len(codes), shape))
        result = self._runner.run(codes, slots, shape)
        if not self.is_slow:
            return result
        self.unfinished.append(Copy())
        return PassResult(result.audio, self.unfinished[-1])  # type: ignore[arg-type]


class Copy:
    """What a decoder needs of a CUDA event."""

    is_done = False

    def query(self) -> bool:
        return self.is_done

    def synchronize(self) -> None:
        self.is_done = True


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sizes", [[1], [3], [50], [5, 10, 25, 50], [4, 1, 0, 2, 7]], ids=str)
def test_chunks_join_to_the_whole(codec: Encodec, shape: CodecShape, sizes: list[int], channels: int) -> None:
    codes = random_codes(shape, 121, channels)
    joined = np.concatenate(decode_chunks(ChunkDecoder(codec, channels, max_streams=1), codes, sizes))
    whole = codec.decode(codes, channels)
    assert joined.shape == whole.shape == (121 * codec.config.hop_frames, channels)
    np.testing.assert_allclose(joined, whole, atol=1e-5)


@pytest.mark.parametrize("frames", range(1, 13))
def test_chunks_of_short_streams_join_to_the_whole(codec: Encodec, shape: CodecShape, frames: int) -> None:
    codes = random_codes(shape, frames)
    whole = codec.decode(codes, 1)
    decoder = ChunkDecoder(codec, 1, max_streams=1)
    for sizes in ([1], [2], [3], [8]):
        joined = np.concatenate(decode_chunks(decoder, codes, sizes))
        assert joined.shape == whole.shape == (frames * codec.config.hop_frames, 1)
        np.testing.assert_allclose(joined, whole, atol=1e-5)


def test_chunk_boundary_can_be_anywhere(codec: Encodec, shape: CodecShape) -> None:
    codes = random_codes(shape, 14)
    whole = codec.decode(codes, 1)
    decoder = ChunkDecoder(codec, 1, max_streams=1)
    for first in range(15):
        stream = decoder.open()
        decoder.submit(stream, codes[:, :first], is_last=False)
        decoder.submit(stream, codes[:, first:], is_last=True)
        decoder.run()
        np.testing.assert_allclose(decoder.take(stream), whole, atol=1e-5)
        decoder.close(stream)


def test_a_stream_of_one_chunk_is_the_whole(codec: Encodec, shape: CodecShape) -> None:
    decoder = ChunkDecoder(codec, 2, max_streams=1)
    for frames in (1, 2, 3, 4, 9):
        codes = random_codes(shape, frames, 2)
        stream = decoder.open()
        decoder.submit(stream, codes, is_last=True)
        decoder.run()
        np.testing.assert_allclose(decoder.take(stream), codec.decode(codes, 2), atol=1e-5)
        decoder.close(stream)


def test_lstm_state_of_the_test_codec_is_long_lived(tiny: Encodec) -> None:
    """With a short-lived state, a decoder that lost its state would pass these tests."""
    codes = random_codes(TINY_CODEC, 121)
    other = codes.clone()
    other[:, :40] = random_codes(TINY_CODEC, 40, seed=9)
    late = slice(100 * HOP, None)
    assert np.abs(tiny.decode(codes, 1)[late] - tiny.decode(other, 1)[late]).max() > 1e-2


def test_samples_are_returned_as_soon_as_they_no_longer_depend_on_codes_to_come(tiny: Encodec) -> None:
    decoder = ChunkDecoder(tiny, 1)
    chunks = decode_chunks(decoder, random_codes(TINY_CODEC, 95), [5, 5, 10, 25, 50])
    assert [len(chunk) for chunk in chunks] == [798, 3200, 6400, 16_000, 32_000, 4 * HOP - 158]
    chunks = decode_chunks(decoder, random_codes(TINY_CODEC, 6), [1])
    assert [len(chunk) for chunk in chunks] == [0, 0, 0, 158, HOP, HOP, 4 * HOP - 158]


def test_two_chunks_yield_100_ms_and_no_fewer_frames_would(tiny: Encodec) -> None:
    first, second, *_ = CHUNK_FRAMES
    decoder, hundred_ms = ChunkDecoder(tiny, 1), tiny.config.sample_rate_hz // 10
    for frames, is_enough in ((first + second, True), (first + second - 1, False)):
        chunks = decode_chunks(decoder, random_codes(TINY_CODEC, frames), [first, second])
        assert (sum(len(chunk) for chunk in chunks[:2]) >= hundred_ms) == is_enough


def test_layers_with_a_wide_receptive_field_hold_back_more(tmp_path: Any) -> None:
    dilated = CODEC_SHAPES["dilated, three LSTM layers"]
    decoder = ChunkDecoder(load_encodec(write_compression_checkpoint(tmp_path, dilated)), 1)
    chunks = decode_chunks(decoder, random_codes(dilated, 12), [1])
    assert [len(chunk) for chunk in chunks] == [0] * 9 + [1, 4, 4, 39]


def test_empty_stream_yields_no_samples(tiny: Encodec) -> None:
    assert [chunk.shape for chunk in decode_chunks(ChunkDecoder(tiny, 2), random_codes(TINY_CODEC, 0, 2), [1])] == [
        (0, 2)
    ]


def test_samples_are_the_same_to_the_last_bit_in_any_batch(tiny: Encodec) -> None:
    codes = random_codes(TINY_CODEC, 90, 2)

    def decode(others_at_a_time: int) -> tuple[FloatArray, set[int]]:
        """Streams of other ages come and go, and share some passes of the stream that is watched."""
        decoder = ChunkDecoder(tiny, 2, max_streams=8, rows=4)
        recorded = RecordedPasses(decoder)
        watched, others, pieces = decoder.open(), [], []
        for turn in range(18):
            if turn % 3 == 0 and others_at_a_time:
                others.append(decoder.open())
            if len(others) > others_at_a_time:
                decoder.close(others.pop(0))
            for index, other in enumerate(others):
                decoder.submit(other, random_codes(TINY_CODEC, 5 + index % 2, 2, seed=index), is_last=False)
            decoder.submit(watched, codes[:, 5 * turn : 5 * turn + 5], is_last=turn == 17)
            decoder.run()
            pieces.append(decoder.take(watched))
        return np.concatenate(pieces), {rows for rows, _ in recorded.passes}

    alone, rows_alone = decode(0)
    together, rows_together = decode(5)
    assert np.array_equal(together, alone)
    assert (rows_alone, rows_together) == ({1}, {1, 2, 3, 4})


def test_chunks_of_one_shape_are_decoded_together_and_first_chunks_before_others(tiny: Encodec) -> None:
    decoder = ChunkDecoder(tiny, 1, rows=4)
    recorded = RecordedPasses(decoder)
    old, new = [decoder.open() for _ in range(6)], [decoder.open() for _ in range(2)]
    for stream in old:
        decoder.submit(stream, random_codes(TINY_CODEC, 5), is_last=False, is_first=True)
    decoder.run()
    for stream in old:
        decoder.submit(stream, random_codes(TINY_CODEC, 10), is_last=False)
    for stream in new:
        decoder.submit(stream, random_codes(TINY_CODEC, 10), is_last=False, is_first=True)
    decoder.run()
    first, later = ChunkShape(5, begins=True, ends=False), ChunkShape(10, begins=False, ends=False)
    longer = ChunkShape(10, begins=True, ends=False)
    assert recorded.passes == [(4, first), (2, first), (2, longer), (4, later), (2, later)]


def test_a_chunk_that_nobody_waits_for_waits_for_others(tiny: Encodec) -> None:
    decoder = ChunkDecoder(tiny, 1, rows=2, patience=3)
    recorded = RecordedPasses(decoder)
    streams = [decoder.open() for _ in range(3)]
    for stream in streams:
        decoder.submit(stream, random_codes(TINY_CODEC, 5), is_last=False, is_first=True)
    decoder.run()
    assert [rows for rows, _ in recorded.passes] == [2, 1]

    def passes_of_runs(submitted: Sequence[Sequence[int]]) -> list[int]:
        """Submits a chunk to these streams before each run → the number of passes of each run."""
        counts = []
        for indices in submitted:
            for index in indices:
                decoder.submit(streams[index], random_codes(TINY_CODEC, 10), is_last=False)
            recorded.passes.clear()
            decoder.run()
            counts.append(len(recorded.passes))
        return counts

    assert passes_of_runs([[0], [], [], []]) == [0, 0, 0, 1]
    assert passes_of_runs([[0], [], [1], []]) == [0, 0, 1, 0]
    decoder.close(streams.pop())
    decoder.close(streams.pop())
    assert passes_of_runs([[0]]) == [1]


@pytest.mark.parametrize("sizes", [[1], [5, 10, 25, 50], [37, 4, 0, 61]], ids=str)
def test_form_for_cuda_decodes_any_chunks_in_the_shapes_that_are_warmed_up(
    codec: Encodec, shape: CodecShape, sizes: list[int]
) -> None:
    decoder = ChunkDecoder(codec, 2, form="cuda")
    recorded = RecordedPasses(decoder)
    decoder.warm_up()
    codes = random_codes(shape, 121, 2)
    expected = codec.decode(codes, 2)
    actual = np.concatenate(decode_chunks(decoder, codes, sizes))
    assert actual.shape == expected.shape
    assert snr_db(actual, expected) > 60
    used = {chunk for _, chunk in recorded.passes}
    assert {chunk for chunk in used if not chunk.begins} <= recorded.warm_shapes
    if sizes[0] >= 5 and decoder._min_first_frames <= 5:
        assert used <= recorded.warm_shapes


def test_form_for_cuda_decodes_short_streams(codec: Encodec, shape: CodecShape) -> None:
    decoder = ChunkDecoder(codec, 1, form="cuda", max_streams=1)
    for frames in range(1, 14):
        codes = random_codes(shape, frames)
        stream = decoder.open()
        decoder.submit(stream, codes, is_last=True)
        decoder.run()
        np.testing.assert_allclose(decoder.take(stream), codec.decode(codes, 1), atol=1e-2)
        decoder.close(stream)


def test_take_does_not_wait_for_the_device_and_keeps_the_order(tiny: Encodec) -> None:
    codes = random_codes(TINY_CODEC, 20)
    decoder = ChunkDecoder(tiny, 1)
    recorded = RecordedPasses(decoder)
    recorded.is_slow = True
    stream = decoder.open()
    for start in range(0, 20, 5):
        decoder.submit(stream, codes[:, start : start + 5], is_last=start == 15)
    decoder.run()
    first, second, *_ = recorded.unfinished
    assert len(decoder.take(stream)) == 0
    second.is_done = True
    assert len(decoder.take(stream)) == 0
    first.is_done = True
    begin = decoder.take(stream)
    assert len(begin) == 798 + 3200
    decoder.wait(stream)
    np.testing.assert_allclose(np.concatenate([begin, decoder.take(stream)]), tiny.decode(codes, 1), atol=1e-5)


def test_a_stream_that_fails_fails_alone(tiny: Encodec) -> None:
    codes = random_codes(TINY_CODEC, 15)
    decoder = ChunkDecoder(tiny, 1)
    recorded = RecordedPasses(decoder)
    streams = [decoder.open() for _ in range(3)]
    for stream in streams:
        decoder.submit(stream, codes[:, :5], is_last=False)
    decoder.run()
    recorded.failing_slots = {streams[1].slot}
    for stream in streams:
        decoder.submit(stream, codes[:, 5:], is_last=True)
    decoder.run()
    for stream in streams[0], streams[2]:
        np.testing.assert_allclose(decoder.take(stream), tiny.decode(codes, 1), atol=1e-5)
    assert len(decoder.take(streams[1])) == 798
    decoder.wait(streams[1])
    with pytest.raises(RuntimeError, match="out of memory"):
        decoder.take(streams[1])


def test_code_outside_the_codebook_is_rejected(tiny: Encodec) -> None:
    """On a GPU it would end the process."""
    decoder = ChunkDecoder(tiny, 1)
    stream = decoder.open()
    for value in (-1, 64):
        with pytest.raises(ValueError, match="0 to 63"):
            decoder.submit(stream, torch.full((4, 5), value), is_last=False)


def test_closed_stream_frees_its_state_for_the_next(tiny: Encodec) -> None:
    codes = random_codes(TINY_CODEC, 20)
    decoder = ChunkDecoder(tiny, 1, max_streams=2)
    first, second = decoder.open(), decoder.open()
    decoder.submit(first, random_codes(TINY_CODEC, 20, seed=2), is_last=False)
    decoder.run()
    with pytest.raises(ResourceExhausted, match="all 2 streams"):
        decoder.open()
    decoder.close(first)
    decoder.close(first)
    again = np.concatenate(decode_chunks(decoder, codes, [5]))
    np.testing.assert_allclose(again, tiny.decode(codes, 1), atol=1e-5)
    assert decoder.open().slot == first.slot != second.slot
    with pytest.raises(ResourceExhausted):
        decoder.open()
