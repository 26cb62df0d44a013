# ruff: noqa: E402
"""Modules that are rows of one layer are put together."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.adapters.adapter_file import LowRank
from generation_service.models.musicgen.adapters.adapter_targets import EMBEDDING, Target
from generation_service.models.musicgen.adapters.adapter_weights import (
    AppliedAdapter,
    combine_modules,
    describe_adapters,
)


def draw(target: Target, rank: int) -> LowRank:
    return LowRank(target, torch.randn(rank, target.inputs), torch.randn(target.outputs, rank))


def test_product_of_a_fused_layer_has_that_of_each_module_in_its_rows() -> None:
    q = draw(Target("w", 0, 4, 3, "0.qkv", 12, 3, output=0), rank=2)
    v = draw(Target("w", 8, 4, 3, "0.qkv", 12, 3, output=8), rank=5)
    up = draw(Target("u", 0, 6, 3, "0.up", 6, 3), rank=1)
    layers = combine_modules("jazz", "1f", [q, up, v]).layers
    assert layers.keys() == {"0.qkv", "0.up"}
    qkv = layers["0.qkv"]
    assert qkv.rank == 7
    torch.testing.assert_close(qkv.b @ qkv.a, torch.cat([q.delta(), torch.zeros(4, 3), v.delta()]))
    torch.testing.assert_close(layers["0.up"].b @ layers["0.up"].a, up.delta())


def test_embedding_is_a_table_over_the_codes_of_all_codebooks() -> None:
    first = draw(Target("emb.0.weight", 0, 4, 5, EMBEDDING, 4, 10, input=0), rank=2)
    second = draw(Target("emb.1.weight", 0, 4, 5, EMBEDDING, 4, 10, input=5), rank=3)
    layer = combine_modules("jazz", "1f", [first, second]).layers[EMBEDDING]
    table = layer.a @ layer.b.t()  # [10, 4]
    torch.testing.assert_close(table, torch.cat([first.delta(), second.delta()]))


def test_description_has_name_scale_and_digest() -> None:
    jazz, vinyl = combine_modules("jazz", "1f", []), combine_modules("vinyl", "2e", [])
    assert describe_adapters([AppliedAdapter(jazz, 0.8), AppliedAdapter(vinyl, 1.0)]) == "jazz:0.8 (1f), vinyl (2e)"
    assert describe_adapters([]) == ""
