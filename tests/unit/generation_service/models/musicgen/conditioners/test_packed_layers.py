# ruff: noqa: E402
"""T5 with packed layers encodes as transformers' own, and holds its weights once."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from transformers import T5EncoderModel

from generation_service.models.musicgen.conditioners.packed_layers import pack_layers


@pytest.mark.parametrize("tokens", [1, 2, 13, 150])
def test_packed_encoder_equals_the_original_without_its_linear_layers(t5: None, tokens: int) -> None:
    original, packed = (T5EncoderModel.from_pretrained("t5-base", local_files_only=True).eval() for _ in range(2))
    mapped = packed.shared.weight.data_ptr()
    pack_layers(packed)
    assert not any(isinstance(module, torch.nn.Linear) for module in packed.modules())
    assert packed.shared.weight.data_ptr() != mapped, "nothing keeps the file in memory"
    ids = torch.arange(tokens)[None] % 100
    with torch.inference_mode():
        expected, actual = (model(input_ids=ids).last_hidden_state for model in (original, packed))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_layer_with_a_bias_is_left_as_it_is() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(8, 8))
    pack_layers(module)
    assert isinstance(module[0], torch.nn.Linear)
