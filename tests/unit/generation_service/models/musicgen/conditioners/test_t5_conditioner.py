# ruff: noqa: E402
"""The text conditioner: it remembers prompts, and encodes each as if it were alone, from any thread."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from generation_service.models.musicgen.conditioners.padded_batches import MAX_ROWS, PaddedBatches
from generation_service.models.musicgen.conditioners.t5_conditioner import TextConditioner
from generation_service.models.musicgen.loader import find_musicgen

PROMPTS = ["calm piano", "fast drums and a very long description of them " * 3, "lofi", "x"]


@pytest.fixture
def conditioner(mono: Path, t5: None) -> TextConditioner:
    found = find_musicgen(mono)
    return TextConditioner(found.checkpoint, found.config)


def test_prompt_that_was_encoded_ahead_is_found(conditioner, monkeypatch):
    expected = [conditioner._encode([prompt])[0].tensor for prompt in PROMPTS]
    conditioner.encode_prompts([*PROMPTS, "", PROMPTS[0]])
    monkeypatch.setattr(conditioner, "_encode", None)
    for prompt, tensor in zip(PROMPTS, expected, strict=True):
        assert torch.equal(conditioner.encode(prompt), tensor)
    conditioner.encode_prompts(PROMPTS)


def test_empty_prompt_means_no_conditioning(conditioner):
    assert conditioner.encode("") is None


def test_each_prompt_is_encoded_once(conditioner, monkeypatch):
    calls = []
    encode = conditioner._encode
    monkeypatch.setattr(conditioner, "_encode", lambda prompts: calls.append(list(prompts)) or encode(prompts))
    conditioner.encode_prompts(["a", "b", "a"])
    conditioner.encode("b")
    conditioner.encode_prompts(["b", "c"])
    assert calls == [["a", "b"], ["c"]]


def test_prompt_that_was_dropped_is_encoded_again(conditioner):
    first = conditioner.encode("calm piano").clone()
    conditioner._cache._max_entries = 1
    conditioner.encode("lofi")
    assert conditioner._cache.get("calm piano") is None
    assert torch.equal(conditioner.encode("calm piano"), first)


def test_cpu_encodes_one_prompt_at_a_time_and_cuda_many(conditioner):
    assert conditioner.prompt_batch_size == 1
    conditioner._batches = PaddedBatches(conditioner._run_t5, torch.device("cpu"))
    assert conditioner.prompt_batch_size == MAX_ROWS


def test_padded_batches_yield_the_same_as_the_plain_way(conditioner):
    plain = [conditioner.encode(prompt) for prompt in PROMPTS]
    conditioner._cache = type(conditioner._cache)(100, 1 << 30)
    conditioner._batches = PaddedBatches(conditioner._run_t5, torch.device("cpu"))
    conditioner.encode_prompts(PROMPTS)
    for prompt, tensor in zip(PROMPTS, plain, strict=True):
        assert torch.allclose(conditioner.encode(prompt), tensor, atol=1e-5)


def test_threads_get_the_same_encodings(conditioner):
    prompts = [f"{prompt} {number}" for prompt in PROMPTS for number in range(5)]
    results: list[list[torch.Tensor]] = [[], [], []]

    def work(own: list[torch.Tensor]) -> None:
        own.extend(conditioner.encode(prompt) for prompt in prompts)

    threads = [threading.Thread(target=work, args=(own,)) for own in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for prompt, *tensors in zip(prompts, *results, strict=True):
        assert all(torch.equal(tensor, conditioner.encode(prompt)) for tensor in tensors)
