# ruff: noqa: E402
"""The text conditioner on a GPU: an encoding does not depend on the other prompts, and equals that of the CPU."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from generation_service.models.musicgen.conditioners.t5_conditioner import TextConditioner
from generation_service.models.musicgen.loader import find_musicgen

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]

PROMPTS = [f"{'calm piano and slow strings ' * (number % 9 + 1)}{number}" for number in range(40)]


def load(mono: Path, device: str) -> TextConditioner:
    found = find_musicgen(mono)
    return TextConditioner(found.checkpoint, found.config, device)


def test_encoding_is_the_same_in_any_batch_and_close_to_that_of_the_cpu(mono: Path, t5: None) -> None:
    alone, together, cpu = load(mono, "cuda"), load(mono, "cuda"), load(mono, "cpu")
    together.encode_prompts(PROMPTS)
    for prompt in PROMPTS:
        encoding = alone.encode(prompt)
        assert torch.equal(encoding, together.encode(prompt)), prompt
        assert torch.allclose(encoding.cpu(), cpu.encode(prompt), atol=1e-3), prompt


def test_stream_that_uses_an_encoding_waits_for_it(mono: Path, t5: None) -> None:
    conditioner, expected = load(mono, "cuda"), load(mono, "cuda")
    thread = threading.Thread(target=conditioner.encode_prompts, args=(PROMPTS,))
    thread.start()
    with torch.cuda.stream(torch.cuda.Stream()):
        copies = [conditioner.encode(prompt) + 0 for prompt in reversed(PROMPTS)]
        torch.cuda.current_stream().synchronize()
    thread.join()
    for prompt, copy in zip(reversed(PROMPTS), copies, strict=True):
        assert torch.equal(copy, expected.encode(prompt)), prompt
