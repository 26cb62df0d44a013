"""What shapes a generation besides its prompt: conditions, edits and loops. Each service checks them at its boundary.

They are mappings of the contract's names and values, with only those fields that are set; an enum value has its name.
Each check raises InvalidArgument, which names the field by its path in the request.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dgx_music.errors import InvalidArgument
from dgx_music.limits import (
    ADAPTER_SCALE_RANGE,
    LOOP_BPM_RANGE,
    MAX_ADAPTERS,
    MAX_BEATS_PER_BAR,
    MAX_DURATION_SECONDS,
    MAX_FURTHER_PROMPTS,
    MAX_LOOP_BARS,
    MAX_NAME_CHARACTERS,
    MAX_PROMPT_CHARACTERS,
    MAX_PROMPT_SECTIONS,
    MAX_PROMPT_WEIGHT,
    MAX_STEPS,
    MAX_STYLE_QUANTIZERS,
    MIN_DURATION_SECONDS,
    STYLE_SECONDS_RANGE,
    TEXT_GUIDANCE_RANGE,
)
from service_runtime.validation import check_finite, check_prompt, check_range, check_text, check_uuid

Fields = Mapping[str, Any]

DEFAULT_BEATS_PER_BAR = 4
LENGTH_TOLERANCE_SECONDS = 0.01
"""How much a given duration may differ from the one that an edit or a loop has: less than a rounded text does."""

EXTEND_LEFT, EXTEND_RIGHT, REPAINT = "EDIT_KIND_EXTEND_LEFT", "EDIT_KIND_EXTEND_RIGHT", "EDIT_KIND_REPAINT"


def check_conditioning(field: str, conditioning: Fields, duration_seconds: float) -> None:
    """Checks everything but whether the model can do it and whether sources and adapters exist."""
    check_text(f"{field}.negative_prompt", conditioning.get("negative_prompt", ""), MAX_PROMPT_CHARACTERS)
    check_text(f"{field}.lyrics", conditioning.get("lyrics", ""), MAX_PROMPT_CHARACTERS)
    check_range(f"{field}.steps", conditioning.get("steps", 0), 0, MAX_STEPS)
    _check_further_prompts(field, conditioning)
    _check_sections(f"{field}.sections", conditioning.get("sections", ()), duration_seconds)
    if "melody" in conditioning:
        _check_excerpt(f"{field}.melody", conditioning["melody"])
    if "style" in conditioning:
        _check_style(f"{field}.style", conditioning["style"])
    _check_adapters(f"{field}.adapters", conditioning.get("adapters", ()))


def _check_further_prompts(field: str, conditioning: Fields) -> None:
    further = conditioning.get("further_prompts", ())
    if len(further) > MAX_FURTHER_PROMPTS:
        raise InvalidArgument(
            f"{field}.further_prompts", f"must be at most {MAX_FURTHER_PROMPTS} prompts, not {len(further)}"
        )
    if further and conditioning.get("sections"):
        raise InvalidArgument(
            f"{field}.further_prompts", "can't be combined with sections, which have prompts of their own"
        )
    if "prompt_weight" in conditioning:
        if not further:
            raise InvalidArgument(f"{field}.prompt_weight", "is only used beside further_prompts")
        _check_weight(f"{field}.prompt_weight", conditioning["prompt_weight"])
    for index, one in enumerate(further):
        check_prompt(f"{field}.further_prompts[{index}].prompt", one.get("prompt", ""))
        _check_weight(f"{field}.further_prompts[{index}].weight", one.get("weight", 0.0))


def _check_weight(field: str, weight: float) -> None:
    if not 0 < weight <= MAX_PROMPT_WEIGHT:  # Also rejects NaN.
        raise InvalidArgument(field, f"must be above 0 and at most {MAX_PROMPT_WEIGHT:g}, not {weight:g}")


def _check_sections(field: str, sections: Any, duration_seconds: float) -> None:
    if len(sections) > MAX_PROMPT_SECTIONS:
        raise InvalidArgument(field, f"must be at most {MAX_PROMPT_SECTIONS} sections, not {len(sections)}")
    last_end = 0.0
    for index, section in enumerate(sections):
        path = f"{field}[{index}]"
        start, end = section.get("start_seconds", 0.0), section.get("end_seconds", 0.0)
        check_finite(f"{path}.start_seconds", start)
        check_finite(f"{path}.end_seconds", end)
        if start < last_end:
            raise InvalidArgument(
                f"{path}.start_seconds",
                f"must be at least {last_end:g}, the end of the section before it, not {start:g}",
            )
        if end <= start:
            raise InvalidArgument(f"{path}.end_seconds", f"must be after the section's start at {start:g}, not {end:g}")
        if end > duration_seconds + LENGTH_TOLERANCE_SECONDS:
            raise InvalidArgument(
                f"{path}.end_seconds", f"must be at most the duration of {duration_seconds:g} s, not {end:g}"
            )
        check_prompt(f"{path}.prompt", section.get("prompt", ""))
        last_end = end


def _check_excerpt(field: str, excerpt: Fields) -> None:
    check_uuid(f"{field}.source_id", excerpt.get("source_id", ""))
    check_finite(f"{field}.start_seconds", excerpt.get("start_seconds", 0.0))


def _check_style(field: str, style: Fields) -> None:
    _check_excerpt(field, style)
    if style.get("seconds"):
        check_range(f"{field}.seconds", style["seconds"], *STYLE_SECONDS_RANGE, "s")
    check_range(f"{field}.quantizers", style.get("quantizers", 0), 0, MAX_STYLE_QUANTIZERS)
    if "text_guidance" in style:
        check_range(f"{field}.text_guidance", style["text_guidance"], *TEXT_GUIDANCE_RANGE)


def _check_adapters(field: str, adapters: Any) -> None:
    if len(adapters) > MAX_ADAPTERS:
        raise InvalidArgument(field, f"must be at most {MAX_ADAPTERS} adapters, not {len(adapters)}")
    names: set[str] = set()
    for index, adapter in enumerate(adapters):
        name = adapter.get("name", "")
        if not name.strip():
            raise InvalidArgument(f"{field}[{index}].name", "must not be empty; name an installed adapter")
        check_text(f"{field}[{index}].name", name, MAX_NAME_CHARACTERS)
        if name in names:
            raise InvalidArgument(f"{field}[{index}].name", f"{name!r} is named twice; give it once, with one scale")
        names.add(name)
        if "scale" in adapter:
            check_range(f"{field}[{index}].scale", adapter["scale"], *ADAPTER_SCALE_RANGE)


def check_edit(field: str, edit: Fields) -> None:
    """Checks everything but what depends on the source."""
    check_uuid(f"{field}.source_id", edit.get("source_id", ""))
    kind = edit.get("kind")
    if kind not in (EXTEND_LEFT, EXTEND_RIGHT, REPAINT):
        raise InvalidArgument(f"{field}.kind", "must be EXTEND_LEFT, EXTEND_RIGHT or REPAINT")
    start, end, added = (edit.get(name, 0.0) for name in ("start_seconds", "end_seconds", "added_seconds"))
    if kind == REPAINT:
        check_finite(f"{field}.start_seconds", start)
        check_range(f"{field}.end_seconds", end, start + MIN_DURATION_SECONDS, MAX_DURATION_SECONDS, "s")
        unused = {"added_seconds": added}
    else:
        check_range(f"{field}.added_seconds", added, MIN_DURATION_SECONDS, MAX_DURATION_SECONDS, "s")
        unused = {"start_seconds": start, "end_seconds": end}
    for name, value in unused.items():
        if value != 0:
            raise InvalidArgument(f"{field}.{name}", f"is not used by {kind.removeprefix('EDIT_KIND_')}; leave it 0")


def edited_seconds(field: str, edit: Fields, source_seconds: float) -> float:
    """Returns the length of the result in seconds. Raises InvalidArgument if the edit reaches beyond its source."""
    if edit["kind"] != REPAINT:
        added: float = edit["added_seconds"]
        if source_seconds + added > MAX_DURATION_SECONDS:
            most = max(0.0, MAX_DURATION_SECONDS - source_seconds)
            problem = f"must be at most {most:.10g} s, so that the result has at most {MAX_DURATION_SECONDS:g}"
            raise InvalidArgument(f"{field}.added_seconds", f"{problem}, not {added:g}")
        return source_seconds + added
    if edit["end_seconds"] > source_seconds + LENGTH_TOLERANCE_SECONDS:
        raise InvalidArgument(
            f"{field}.end_seconds",
            f"must be at most the length of the source, {source_seconds:.10g} s, not {edit['end_seconds']:g}",
        )
    return source_seconds


def check_loop(field: str, loop: Fields) -> None:
    """Checks a loop whose tempo is known."""
    check_range(f"{field}.bars", loop.get("bars", 0), 1, MAX_LOOP_BARS)
    check_range(f"{field}.beats_per_bar", loop.get("beats_per_bar", 0), 0, MAX_BEATS_PER_BAR)
    check_range(f"{field}.bpm", loop.get("bpm", 0.0), *LOOP_BPM_RANGE)


def loop_seconds(loop: Fields) -> float:
    """Returns the length of a loop that `check_loop` has accepted, in seconds."""
    beats: int = loop["bars"] * (loop.get("beats_per_bar") or DEFAULT_BEATS_PER_BAR)
    return beats * 60.0 / float(loop["bpm"])


def check_length(field: str, duration_seconds: float, length_seconds: float) -> None:
    """Requires a given duration to be the length that the rest of the request determines."""
    if not math.isclose(duration_seconds, length_seconds, rel_tol=0, abs_tol=LENGTH_TOLERANCE_SECONDS):
        raise InvalidArgument(
            field,
            f"must be {length_seconds:.10g} s, the length of the result, not {duration_seconds:g}; or left out",
        )
