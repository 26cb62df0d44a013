"""PEFT's configuration of a LoRA adapter: what is read, and what is refused by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.adapters.adapter_config import AdapterConfig, read_adapter_config

MODULE = "decoder.model.decoder.layers.3.self_attn.q_proj"


def read(folder: Path, **fields: Any) -> AdapterConfig:
    content = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], **fields}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    return read_adapter_config(folder)


def test_scaling_is_alpha_by_rank_or_by_its_root(tmp_path: Path) -> None:
    assert read(tmp_path).scaling_of(MODULE) == 2
    assert read(tmp_path, use_rslora=True).scaling_of(MODULE) == 16 / math.sqrt(8)


def test_patterns_match_the_end_of_a_path_and_the_first_one_counts(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        rank_pattern={r"layers\.[0-3]\.self_attn\.q_proj": 4, "q_proj": 2},
        alpha_pattern={"attn.q_proj": 1, "self_attn.q_proj": 12},
    )
    assert (config.rank_of(MODULE), config.scaling_of(MODULE)) == (4, 3)
    assert config.rank_of(MODULE.replace("3", "4")) == 2
    assert config.rank_of("decoder.model.decoder.layers.3.self_attn.xq_proj") == 8


@pytest.mark.parametrize(
    ("targets", "is_target"),
    [
        (["q_proj"], True),
        (["proj"], False),
        ([MODULE], True),
        (r".*\.q_proj", True),
        ("q_proj", False),
        ("all-linear", True),
    ],
)
def test_targets_are_ends_of_paths_or_one_expression_for_whole_paths(
    tmp_path: Path, targets: object, is_target: bool
) -> None:
    assert read(tmp_path, target_modules=targets).is_target(MODULE) is is_target


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "use_dora is True, which is not supported"),
        ({"modules_to_save": ["lm_heads"]}, "modules_to_save is"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication is"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens is"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices is"),
        ({"target_parameters": ["emb.0.weight"]}, "target_parameters is"),
        ({"bias": "lora_only"}, "bias is 'lora_only'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which changes the model's own weights"),
        ({"r": 0}, "r is 0; expected an integer from 1 to 1024"),
        ({"r": 10**12}, "r is 1000000000000; expected"),
        ({"rank_pattern": {"q_proj": "2"}}, r"rank_pattern\['q_proj'\] is '2'"),
        ({"rank_pattern": {"(": 2}}, "rank_pattern has '\\(', which is not a regular expression"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan; expected a number"),
        ({"lora_alpha": 10**400}, r"lora_alpha is 10+\.\.\.0+; expected a number"),
        ({"target_modules": None}, "target_modules is None"),
        ({"target_modules": "(.+)+x"}, "target_modules has .*could take forever to match"),
        ({"target_modules": ".*a.*b.*c.*d.*"}, "target_modules has .*could take forever to match"),
        ({"rank_pattern": {"(?i)q_proj": 2}}, "rank_pattern has .*, which is not a regular expression"),
        ({"target_modules": "("}, "target_modules has '\\('"),
    ],
)
def test_anything_but_plain_lora_is_refused_by_name(tmp_path: Path, fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(FailedPrecondition, match=problem) as caught:
        read(tmp_path, **fields)
    assert caught.value.reason == "ADAPTER_INVALID"
    assert caught.value.metadata["file"] == str(tmp_path / "adapter_config.json")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b" " * 2**21, "larger than 1 MiB"),
        (b"[" * 10**5, "not valid JSON"),
    ],
)
def test_damaged_file_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "adapter_config.json").write_bytes(content)
    with pytest.raises(FailedPrecondition, match=problem):
        read_adapter_config(tmp_path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"adapter_config\.json: can't be read \(No such file"):
        read_adapter_config(tmp_path)
