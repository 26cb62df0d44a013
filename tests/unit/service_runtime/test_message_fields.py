"""What checks get to see of a message."""

from __future__ import annotations

import math

import pytest

from dgx_music.errors import InvalidArgument
from dgx_music.storage.v1.conditioning_pb2 import (
    EDIT_KIND_REPAINT,
    Adapter,
    Conditioning,
    Edit,
    Melody,
    PromptSection,
    Style,
    WeightedPrompt,
)
from service_runtime.message_fields import read_fields
from service_runtime.shaping import check_conditioning

ID = "11111111-2222-4333-8444-55555555AAAA"


def test_only_what_is_set_is_read() -> None:
    assert read_fields(Conditioning(adapters=[Adapter(name="a"), Adapter(name="b", scale=0.0)])) == {
        "adapters": [{"name": "a"}, {"name": "b", "scale": 0.0}]
    }


def test_enum_values_have_names_and_source_ids_lower_case() -> None:
    edit = read_fields(Edit(source_id=ID, kind=EDIT_KIND_REPAINT))
    assert edit == {"source_id": ID.lower(), "kind": "EDIT_KIND_REPAINT"}


def test_unknown_enum_value_keeps_its_number() -> None:
    assert read_fields(Edit(kind=77)) == {"kind": 77}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (Conditioning(further_prompts=[WeightedPrompt(prompt="x", weight=math.nan)]), "further_prompts[0].weight"),
        (Conditioning(sections=[PromptSection(end_seconds=math.nan, prompt="x")]), "sections[0].end_seconds"),
        (Conditioning(adapters=[Adapter(name="x", scale=math.inf)]), "adapters[0].scale"),
        (Conditioning(melody=Melody(source_id=ID, start_seconds=math.nan)), "melody.start_seconds"),
        (Conditioning(style=Style(source_id=ID, text_guidance=-math.inf)), "style.text_guidance"),
    ],
)
def test_numbers_that_are_not_finite_are_rejected_by_name(message: Conditioning, field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        check_conditioning("conditioning", read_fields(message), 16.0)
    assert raised.value.field == f"conditioning.{field}"
