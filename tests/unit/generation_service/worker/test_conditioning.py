"""What a request asks for besides its prompt, as parameters of the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dgx_music.errors import InvalidArgument
from dgx_music.storage.v1.conditioning_pb2 import Adapter, Conditioning, PromptSection, WeightedPrompt
from generation_service.models.base import AdapterUse, GenerationParameters
from generation_service.models.base import PromptSection as SectionInFrames
from generation_service.worker.conditioning import build_conditions
from tests.support.tone_model import RATE_HZ, ToneModel


async def build(message: Conditioning, seconds: float = 10.0, **times: float) -> GenerationParameters:
    """Without audio, nothing is asked of export."""
    export: Any = None
    fields = await build_conditions(message, ToneModel().info, export, seconds, **times)
    return replace(GenerationParameters("a", 1, 1), **fields)


async def test_every_text_number_and_adapter_reaches_the_model() -> None:
    parameters = await build(
        Conditioning(
            negative_prompt="noise",
            further_prompts=[WeightedPrompt(prompt="strings", weight=0.5)],
            prompt_weight=2.0,
            adapters=[Adapter(name="jazz"), Adapter(name="vinyl", scale=0.0), Adapter(name="lo-fi", scale=0.5)],
            lyrics="la",
            steps=8,
        )
    )
    assert (parameters.negative_prompt, parameters.lyrics, parameters.steps) == ("noise", "la", 8)
    assert parameters.prompt_weight == 2.0
    assert [(each.prompt, each.weight) for each in parameters.further_prompts] == [("strings", 0.5)]
    assert parameters.adapters == (AdapterUse("jazz", 1.0), AdapterUse("vinyl", 0.0), AdapterUse("lo-fi", 0.5))


async def test_what_is_not_set_is_as_without_conditions() -> None:
    assert await build(Conditioning()) == GenerationParameters("a", 1, 1)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({}, [(0, 2, "a"), (2, 4, "b"), (8, 10, "c")]),
        ({"start_seconds": 3.0, "generated_seconds": 4.0}, [(0, 1, "b")]),
        ({"start_seconds": 3.0, "generated_seconds": 6.0}, [(0, 1, "b"), (5, 6, "c")]),
        ({"start_seconds": -2.0, "generated_seconds": 12.5}, [(0, 4, "a"), (4, 6, "b"), (10, 12, "c")]),
    ],
)
async def test_sections_are_those_of_what_is_generated(times: dict[str, float], expected: list[Any]) -> None:
    sections = [
        PromptSection(end_seconds=2, prompt="a"),
        PromptSection(start_seconds=2, end_seconds=4, prompt="b"),
        PromptSection(start_seconds=8, end_seconds=10, prompt="c"),
    ]
    parameters = await build(Conditioning(sections=sections), **times)
    assert parameters.sections == tuple(
        SectionInFrames(start * RATE_HZ, end * RATE_HZ, prompt) for start, end, prompt in expected
    )


async def test_conditions_are_checked_again() -> None:
    """A request that a queue of an older version holds was checked by other rules."""
    with pytest.raises(InvalidArgument) as error:
        await build(Conditioning(sections=[PromptSection(end_seconds=11, prompt="a")]))
    assert error.value.field == "conditioning.sections[0].end_seconds"
