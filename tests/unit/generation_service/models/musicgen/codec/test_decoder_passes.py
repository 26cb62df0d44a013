"""Passes over states in slots: what a CUDA graph captures, checked on the CPU, and the runner for CUDA on CUDA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.codec.chunk_decoder import CUDA_ROWS, ChunkDecoder  # noqa: E402
from generation_service.models.musicgen.codec.decoder_network import DecoderNetwork  # noqa: E402
from generation_service.models.musicgen.codec.decoder_passes import ChunkShape, SlotDecoder  # noqa: E402
from generation_service.models.musicgen.codec.encodec import Encodec  # noqa: E402
from generation_service.models.musicgen.codec.encodec_checkpoint import load_encodec  # noqa: E402
from tests.support.compression_checkpoints import CodecShape, random_codes, snr_db  # noqa: E402

CPU = torch.device("cpu")
FIRST, MIDDLE, LAST = (
    ChunkShape(12, begins=True, ends=False),
    ChunkShape(12, begins=False, ends=False),
    ChunkShape(12, begins=False, ends=True),
)


def test_a_pass_can_be_captured(codec: Encodec, shape: CodecShape) -> None:
    rules: Any = pytest.importorskip("tests.support.capture_rules")
    decoder = SlotDecoder(DecoderNetwork(codec, "cuda"), 2, 4, CPU)
    codes = random_codes(shape, 12, 2).view(1, -1, 2, 12).transpose(1, 2).repeat(3, 1, 1, 1)
    slots = torch.tensor([2, 0, 4])

    def change_inputs() -> None:
        codes.copy_(codes.flip(-1))
        slots.copy_(torch.tensor([1, 3, 2]))

    for chunk in (FIRST, MIDDLE, LAST):
        rules.assert_capturable(lambda chunk=chunk: decoder(codes, slots, chunk), between=change_inputs)


def test_rows_use_and_change_the_state_of_their_slot_alone(codec: Encodec, shape: CodecShape) -> None:
    decoder = SlotDecoder(DecoderNetwork(codec, "cpu"), 1, 4, CPU)
    codes = torch.stack([random_codes(shape, 12, seed=seed)[None] for seed in range(3)])
    decoder(codes, torch.tensor([3, 1, 0]), FIRST)
    expected = decoder(codes, torch.tensor([3, 1, 0]), LAST)
    before = decoder._states.clone()
    actual = decoder(codes[[1, 2, 0, 0]], torch.tensor([1, 0, 4, 4]), LAST)
    torch.testing.assert_close(actual[:2], expected[1:], atol=1e-5, rtol=0)
    assert torch.equal(decoder._states, before)
    decoder(codes[:1], torch.tensor([1]), MIDDLE)
    changed = (decoder._states != before).flatten(1).any(1)
    assert changed.tolist() == [False, True, False, False, False]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("is_warm", [False, True])
def test_streams_on_cuda_equal_the_cpu_in_any_batch(
    checkpoint: Path, codec: Encodec, shape: CodecShape, is_warm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = ChunkDecoder(load_encodec(checkpoint).to("cuda"), 2)
    if is_warm:
        decoder.warm_up()
    all_codes = [random_codes(shape, 97, 2, seed=seed) for seed in range(CUDA_ROWS + 3)]
    alone = _decode(decoder, all_codes[:1])[0]
    together = _decode(decoder, all_codes)
    assert np.array_equal(together[0], alone)
    for codes, actual in zip(all_codes, together, strict=True):
        expected = codec.decode(codes, 2)
        assert actual.shape == expected.shape
        assert snr_db(actual, expected) > 60


def _decode(decoder: ChunkDecoder, all_codes: list[Any]) -> list[Any]:
    streams = [decoder.open() for _ in all_codes]
    position = 0
    for size in (15, 5, 10, 25, 42):
        for stream, codes in zip(streams, all_codes, strict=True):
            decoder.submit(stream, codes[:, position : position + size], is_last=position + size == 97)
        position += size
        decoder.run()
    results = []
    for stream in streams:
        decoder.wait(stream)
        results.append(decoder.take(stream))
        decoder.close(stream)
    return results
