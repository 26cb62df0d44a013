"""Checks of conditions, edits and loops: each names the field at fault."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dgx_music.errors import InvalidArgument
from service_runtime.shaping import (
    EXTEND_LEFT,
    EXTEND_RIGHT,
    REPAINT,
    check_conditioning,
    check_edit,
    check_length,
    check_loop,
    edited_seconds,
    loop_seconds,
)

ID = "11111111-2222-4333-8444-55555555aaaa"
NAN = math.nan


def section(start: float, end: float, prompt: str = "calm piano") -> dict[str, Any]:
    return {"start_seconds": start, "end_seconds": end, "prompt": prompt}


def weighted(weight: float, prompt: str = "strings") -> dict[str, Any]:
    return {"prompt": prompt, "weight": weight}


@pytest.mark.parametrize(
    "conditioning",
    [
        {},
        {"negative_prompt": "drums", "lyrics": "[chorus]\nla la", "steps": 500},
        {"prompt_weight": 10.0, "further_prompts": [weighted(0.001), weighted(10), weighted(1)]},
        {"sections": [section(0, 8), section(8, 8.5), section(10, 16)]},
        {"sections": [section(0, 16.004)]},
        {"melody": {"source_id": ID, "start_seconds": 3.5}},
        {"style": {"source_id": ID, "seconds": 1.5, "quantizers": 6, "text_guidance": 1.0}},
        {"style": {"source_id": ID}},
        {"adapters": [{"name": "a", "scale": -4.0}, {"name": "b"}]},
    ],
)
def test_valid_conditioning_passes(conditioning: dict[str, Any]) -> None:
    check_conditioning("conditioning", conditioning, 16.0)


@pytest.mark.parametrize(
    ("field", "conditioning"),
    [
        ("negative_prompt", {"negative_prompt": "x" * 10001}),
        ("negative_prompt", {"negative_prompt": "\x1b[0m"}),
        ("lyrics", {"lyrics": "x" * 10001}),
        ("steps", {"steps": 501}),
        ("steps", {"steps": -1}),
        ("prompt_weight", {"prompt_weight": 2.0}),
        ("prompt_weight", {"prompt_weight": NAN, "further_prompts": [weighted(1)]}),
        ("prompt_weight", {"prompt_weight": 0.0, "further_prompts": [weighted(1)]}),
        ("further_prompts", {"further_prompts": [weighted(1)] * 4}),
        ("further_prompts", {"further_prompts": [weighted(1)], "sections": [section(0, 1)]}),
        ("further_prompts[1].weight", {"further_prompts": [weighted(1), weighted(10.1)]}),
        ("further_prompts[0].weight", {"further_prompts": [{"prompt": "x"}]}),
        ("further_prompts[0].prompt", {"further_prompts": [weighted(1, " ")]}),
        ("sections", {"sections": [section(n / 4, n / 4 + 0.25) for n in range(33)]}),
        ("sections[1].start_seconds", {"sections": [section(0, 8), section(7.9, 16)]}),
        ("sections[0].start_seconds", {"sections": [section(NAN, 8)]}),
        ("sections[0].end_seconds", {"sections": [section(0, NAN)]}),
        ("sections[0].end_seconds", {"sections": [section(4, 4)]}),
        ("sections[0].end_seconds", {"sections": [section(0, 16.1)]}),
        ("sections[0].prompt", {"sections": [section(0, 16, "")]}),
        ("melody.source_id", {"melody": {"source_id": "../a.wav"}}),
        ("melody.start_seconds", {"melody": {"source_id": ID, "start_seconds": -1.0}}),
        ("style.source_id", {"style": {}}),
        ("style.seconds", {"style": {"source_id": ID, "seconds": 5.0}}),
        ("style.quantizers", {"style": {"source_id": ID, "quantizers": 33}}),
        ("style.text_guidance", {"style": {"source_id": ID, "text_guidance": NAN}}),
        ("adapters", {"adapters": [{"name": str(n)} for n in range(5)]}),
        ("adapters[0].name", {"adapters": [{"scale": 1.0}]}),
        ("adapters[0].name", {"adapters": [{"name": " "}]}),
        ("adapters[0].name", {"adapters": [{"name": "\x1b[0m"}]}),
        ("adapters[1].name", {"adapters": [{"name": "a"}, {"name": "a"}]}),
        ("adapters[0].scale", {"adapters": [{"name": "a", "scale": 4.5}]}),
    ],
)
def test_invalid_conditioning_names_the_field(field: str, conditioning: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as error:
        check_conditioning("conditioning", conditioning, 16.0)
    assert error.value.field == f"conditioning.{field}"


@pytest.mark.parametrize(
    ("edit", "seconds"),
    [
        ({"kind": EXTEND_LEFT, "added_seconds": 4.0}, 20.0),
        ({"kind": EXTEND_RIGHT, "added_seconds": 0.1}, 16.1),
        ({"kind": REPAINT, "end_seconds": 16.0}, 16.0),
        ({"kind": REPAINT, "end_seconds": 16.004}, 16.0),
        ({"kind": REPAINT, "start_seconds": 2.0, "end_seconds": 2.2}, 16.0),
    ],
)
def test_edit_determines_the_length(edit: dict[str, Any], seconds: float) -> None:
    edit = {"source_id": ID, **edit}
    check_edit("edit", edit)
    assert edited_seconds("edit", edit, 16.0) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("field", "edit"),
    [
        ("source_id", {"kind": REPAINT, "end_seconds": 1.0, "source_id": "x"}),
        ("kind", {}),
        ("kind", {"kind": 77}),
        ("added_seconds", {"kind": EXTEND_LEFT}),
        ("added_seconds", {"kind": EXTEND_RIGHT, "added_seconds": NAN}),
        ("added_seconds", {"kind": REPAINT, "end_seconds": 1.0, "added_seconds": 1.0}),
        ("start_seconds", {"kind": EXTEND_LEFT, "added_seconds": 1.0, "start_seconds": 1.0}),
        ("end_seconds", {"kind": EXTEND_LEFT, "added_seconds": 1.0, "end_seconds": NAN}),
        ("start_seconds", {"kind": REPAINT, "start_seconds": -1.0, "end_seconds": 1.0}),
        ("end_seconds", {"kind": REPAINT, "start_seconds": 1.0, "end_seconds": 1.0}),
        ("end_seconds", {"kind": REPAINT, "start_seconds": 1.0, "end_seconds": NAN}),
    ],
)
def test_invalid_edit_names_the_field(field: str, edit: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as error:
        check_edit("edit", {"source_id": ID, **edit})
    assert error.value.field == f"edit.{field}"


def test_repaint_must_stay_within_its_source() -> None:
    edit = {"source_id": ID, "kind": REPAINT, "start_seconds": 12.0, "end_seconds": 20.0}
    with pytest.raises(InvalidArgument, match="at most the length of the source, 16 s, not 20") as error:
        edited_seconds("edit", edit, 16.0)
    assert error.value.field == "edit.end_seconds"


@pytest.mark.parametrize(
    ("loop", "seconds"),
    [
        ({"bars": 8, "bpm": 120.0}, 16.0),
        ({"bars": 4, "beats_per_bar": 3, "bpm": 90.0}, 8.0),
        ({"bars": 1, "beats_per_bar": 16, "bpm": 400.0}, 2.4),
    ],
)
def test_loop_determines_the_length(loop: dict[str, Any], seconds: float) -> None:
    check_loop("loop", loop)
    assert loop_seconds(loop) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("field", "loop"),
    [
        ("bars", {"bpm": 120.0}),
        ("bars", {"bars": 65, "bpm": 120.0}),
        ("beats_per_bar", {"bars": 1, "beats_per_bar": 17, "bpm": 120.0}),
        ("bpm", {"bars": 1}),
        ("bpm", {"bars": 1, "bpm": NAN}),
        ("bpm", {"bars": 1, "bpm": 401.0}),
    ],
)
def test_invalid_loop_names_the_field(field: str, loop: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as error:
        check_loop("loop", loop)
    assert error.value.field == f"loop.{field}"


def test_length_may_be_rounded_but_not_another() -> None:
    check_length("duration_seconds", 22.86, 160 / 7)
    with pytest.raises(InvalidArgument, match=r"must be 22\.85714286 s"):
        check_length("duration_seconds", 22.8, 160 / 7)
