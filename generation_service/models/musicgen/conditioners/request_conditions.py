"""What a request is conditioned on in each of its windows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.code_generator import Reservation
from generation_service.models.musicgen.conditioners.t5_conditioner import TextConditioner
from generation_service.models.musicgen.conditions import Branch, Condition, WindowConditions
from generation_service.models.musicgen.planning.prompt_plan import PromptSpan


@dataclass(frozen=True, slots=True)
class RequestConditions:
    """The conditions from each of a few frames of codes on."""

    starts: Sequence[int]
    """Ascending. A window begins at each of them, or goes on from the one before it."""
    windows: Sequence[WindowConditions]

    def at(self, frame: int) -> WindowConditions:
        """The conditions of the window whose first new frame this is."""
        return self.windows[bisect_right(self.starts, frame) - 1]

    def reserve(self, steps: int) -> Reservation:
        """What windows of at most `steps` need."""
        return Reservation.for_windows(steps, self.windows)


class ConditionEncoder:
    """Encodes what requests are conditioned on. Any thread can call it."""

    def __init__(self, texts: TextConditioner) -> None:
        self.texts = texts

    @property
    def batch_size(self) -> int:
        """How many requests to pass to `encode_ahead` at once."""
        return self.texts.prompt_batch_size

    def encode_ahead(self, requests: Iterable[GenerationParameters]) -> None:
        """Encodes the texts of requests, for `encode` to find them."""
        self.texts.encode_prompts([text for parameters in requests for text in _all_texts(parameters)])

    def encode(self, parameters: GenerationParameters, spans: Sequence[PromptSpan]) -> RequestConditions:
        """Encodes the texts that have not been encoded ahead. The same text is the same tensor everywhere."""
        texts = {text: self.texts.encode(text) for text in dict.fromkeys(_all_texts(parameters))}
        negative = Condition(texts[_negative_text(parameters)])
        windows = [
            WindowConditions(
                tuple(Branch(Condition(texts[each.text]), each.first_weight, each.last_weight) for each in span.texts),
                negative,
            )
            for span in spans
        ]
        return RequestConditions([span.start for span in spans], windows)


def _all_texts(parameters: GenerationParameters) -> Iterator[str]:
    yield parameters.prompt
    yield _negative_text(parameters)
    yield from (further.prompt for further in parameters.further_prompts)
    yield from (section.prompt for section in parameters.sections)


def _negative_text(parameters: GenerationParameters) -> str:
    """The negative prompt, or none where it has no effect."""
    return "" if parameters.guidance_scale == 1 else parameters.negative_prompt
