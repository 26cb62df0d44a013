"""What a request needs of a model, and the error for a model that lacks it."""

from __future__ import annotations

import pytest

from dgx_music.errors import InvalidArgument
from dgx_music.generation.v1 import generation_pb2
from dgx_music.storage.v1.conditioning_pb2 import Conditioning
from generation_service.models.published import PUBLISHED
from service_runtime.capabilities import Capability, check_adapter, needed_capabilities, unsupported_error


def test_contract_has_the_same_names() -> None:
    names = [name.removeprefix("CAPABILITY_") for name in generation_pb2.Capability.keys()[1:]]
    assert names == [capability.name for capability in Capability]


def test_every_condition_needs_a_capability() -> None:
    fields = {field.name for field in Conditioning.DESCRIPTOR.fields} - {"prompt_weight"}
    needed = dict(needed_capabilities(dict.fromkeys(fields, 1)))
    assert set(needed) == {f"conditioning.{name}" for name in fields}


def test_only_what_is_set_needs_a_capability() -> None:
    assert list(needed_capabilities({"negative_prompt": "", "sections": []})) == []
    assert list(needed_capabilities(None, edit=True)) == [("edit", Capability.CONTINUATION)]
    assert dict(needed_capabilities({"melody": {"source_id": "x"}}, continuation=True)) == {
        "continuation": Capability.CONTINUATION,
        "conditioning.melody": Capability.MELODY,
    }


@pytest.mark.parametrize(
    ("capability", "capable", "hint"),
    [
        (Capability.MELODY, ["a", "b"], "can't follow a melody; models that can: a, b"),
        (Capability.MELODY, [], "run `dgx-music models pull musicgen-melody`"),
        (Capability.SECTIONS, [], "run `dgx-music models pull musicgen-small`"),
        (Capability.LYRICS, [], "run `dgx-music models pull acestep-v15-xl-turbo-diffusers`"),
    ],
)
def test_error_says_what_to_use_instead(capability: Capability, capable: list[str], hint: str) -> None:
    error = unsupported_error("conditioning.x", "sketch", capability, capable)
    assert error.field == "conditioning.x"
    assert "'sketch'" in error.problem
    assert hint in error.problem


@pytest.mark.parametrize("capability", Capability)
def test_a_model_to_pull_is_published(capability: Capability) -> None:
    named = unsupported_error("x", "sketch", capability, []).problem.rpartition("models pull ")[2].rstrip("`")
    assert named in PUBLISHED


@pytest.mark.parametrize(
    ("name", "problems", "reason", "hint"),
    [
        ("rock", {"jazz": "", "large": "other"}, "ADAPTER_NOT_FOUND", "adapters for model 'tiny': jazz"),
        ("rock", {"large": "other"}, "ADAPTER_NOT_FOUND", "none is installed for model 'tiny'; put one into adapters/"),
        ("large", {"large": "other shapes"}, "ADAPTER_UNUSABLE", "model 'tiny' can't take the adapter 'large': other"),
    ],
)
def test_adapter_error_names_the_field_and_what_there_is(
    name: str, problems: dict[str, str], reason: str, hint: str
) -> None:
    check_adapter(0, "jazz", "tiny", {"jazz": ""})
    with pytest.raises(InvalidArgument, match=hint) as caught:
        check_adapter(2, name, "tiny", problems)
    assert (caught.value.field, caught.value.reason) == ("conditioning.adapters[2].name", reason)


def test_long_name_is_not_quoted_whole() -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_adapter(0, "x" * 100_000, "tiny", {})
    assert len(caught.value.problem) < 300
