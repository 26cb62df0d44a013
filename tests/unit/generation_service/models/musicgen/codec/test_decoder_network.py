"""What runs on a GPU, on the CPU: capture of a chunk, and the precision of the parts in float16."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.codec.chunk_decoder import ChunkDecoder  # noqa: E402
from generation_service.models.musicgen.codec.decoder_network import DecoderNetwork, NetworkForm  # noqa: E402
from generation_service.models.musicgen.codec.encodec import Encodec  # noqa: E402
from generation_service.models.musicgen.codec.encodec_checkpoint import load_encodec  # noqa: E402
from tests.support.compression_checkpoints import (  # noqa: E402
    FULL_CODEC,
    LONG_MEMORY,
    CodecShape,
    random_codes,
    snr_db,
    write_compression_checkpoint,
)

MIN_SNR_DB = 60.0


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Encodec:
    return load_encodec(
        write_compression_checkpoint(tmp_path_factory.mktemp("full"), FULL_CODEC, forget_bias=LONG_MEMORY)
    )


def test_float16_keeps_60_db_from_the_first_to_the_last_frame(full: Encodec) -> None:
    codes = random_codes(FULL_CODEC, 75)
    expected = full.decode(codes, 1)
    assert 0.1 < expected.std() < 1.0
    decoder = ChunkDecoder(full, 1, form="cuda")
    stream = decoder.open()
    for start in range(0, 75, 25):
        decoder.submit(stream, codes[:, start : start + 25], is_last=start == 50)
    decoder.run()
    actual = decoder.take(stream)
    assert actual.shape == expected.shape
    for part, expected_part in zip(np.split(actual, 3), np.split(expected, 3), strict=True):
        assert MIN_SNR_DB < snr_db(part, expected_part) < 80


def test_memory_of_128_stereo_streams_of_full_size(full: Encodec) -> None:
    """Without the states' memory of a GPU growing, streams come and go."""
    assert ChunkDecoder(full, 2, max_streams=128).state_bytes < 10 * 2**20


@pytest.mark.parametrize("form", ["cpu", "cuda"])
def test_batch_equals_its_rows(codec: Encodec, shape: CodecShape, form: NetworkForm) -> None:
    codes = torch.stack([random_codes(shape, 30, seed=seed) for seed in range(5)])
    network = DecoderNetwork(codec, form)
    with torch.inference_mode():
        _, states = network(codes, None, is_last=False)
        together, _ = network(codes, states, is_last=False)
        for row in range(5):
            alone, _ = network(codes[row : row + 1], states[row : row + 1], is_last=False)
            # A last bit can change how an operand is rounded to float16.
            assert snr_db(alone[0].numpy(), together[row].numpy()) > (100 if form == "cpu" else MIN_SNR_DB)
