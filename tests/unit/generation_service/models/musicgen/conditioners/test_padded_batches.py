# ruff: noqa: E402
"""Batches of fixed shapes: a sequence's encoding does not depend on what is encoded with it."""

from __future__ import annotations

import random

import pytest

torch = pytest.importorskip("torch", reason="the encoder needs torch")
transformers = pytest.importorskip("transformers", reason="the text encoder is transformers'")

from torch import Tensor

from generation_service.models.musicgen.conditioners.padded_batches import PaddedBatches, padded_shape

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder():
    """Two layers of a T5 encoder with random weights."""
    torch.manual_seed(1)
    config = transformers.T5Config(vocab_size=200, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4)
    return transformers.T5EncoderModel(config).eval()


class Recorder:
    """Runs the encoder, and notes the shapes that it is given."""

    def __init__(self, encoder) -> None:
        self.encoder = encoder
        self.shapes: list[tuple[int, int]] = []

    @torch.inference_mode()
    def __call__(self, tokens: Tensor, mask: Tensor) -> Tensor:
        self.shapes.append(tuple(tokens.shape))
        return self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state


@pytest.mark.parametrize(
    ("tokens", "shape"),
    [
        (1, (16, 16)),
        (16, (16, 16)),
        (17, (16, 32)),
        (128, (16, 128)),
        (129, (8, 256)),
        (2048, (1, 2048)),
        (2049, (1, 4096)),
    ],
)
def test_shape_depends_on_the_own_length_alone(tokens, shape):
    assert padded_shape(tokens) == shape


def test_encoding_is_the_same_in_any_batch(encoder):
    draw = random.Random(3)
    sequences = [[draw.randrange(2, 200) for _ in range(draw.choice([1, 5, 15, 16, 17, 30, 33]))] for _ in range(40)]
    batches = PaddedBatches(Recorder(encoder), CPU)
    alone = [batches.encode([sequence])[0] for sequence in sequences]
    together = batches.encode(sequences)
    for sequence, one, other in zip(sequences, alone, together, strict=True):
        assert one.shape == (len(sequence), 64)
        assert torch.equal(one, other)


def test_encoding_equals_that_without_padding(encoder):
    sequence = list(range(2, 23))
    padded = PaddedBatches(Recorder(encoder), CPU).encode([sequence])[0]
    with torch.inference_mode():
        plain = encoder(input_ids=torch.tensor([sequence])).last_hidden_state[0]
    assert torch.allclose(padded, plain, atol=1e-5)


def test_shapes_are_few_and_the_batch_is_filled(encoder):
    recorder = Recorder(encoder)
    PaddedBatches(recorder, CPU).encode([[5] * length for length in [3] * 20 + [20]])
    assert recorder.shapes == [(16, 16)] * 3 + [(16, 32)] * 2, "once a width, all rows are compared"


def test_result_does_not_keep_the_batch_in_memory(encoder):
    result = PaddedBatches(Recorder(encoder), CPU).encode([[5] * 3])[0]
    assert result.untyped_storage().nbytes() == 3 * 64 * 4


def test_rows_that_round_differently_are_encoded_one_by_one(encoder):
    recorder = Recorder(encoder)

    def encode(tokens: Tensor, mask: Tensor) -> Tensor:
        rows = torch.arange(len(tokens))[:, None, None]
        return recorder(tokens, mask) + rows * 1e-6

    batches = PaddedBatches(encode, CPU)
    first, second = batches.encode([[5, 6], [5, 6]])
    assert torch.equal(first, second)
    assert recorder.shapes == [(16, 16), (1, 16), (1, 16)]
