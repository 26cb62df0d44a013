"""What a request is conditioned on in each of its windows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from generation_service.models.base import GenerationParameters, MetadataValue
from generation_service.models.musicgen.adapters.adapter_weights import (
    AppliedAdapter,
    LoadAdapters,
    describe_adapters,
    load_none,
)
from generation_service.models.musicgen.code_generator import Reservation
from generation_service.models.musicgen.conditioners.prefix_conditioner import PrefixConditioner, RequestPrefixes
from generation_service.models.musicgen.conditioners.t5_conditioner import TextConditioner
from generation_service.models.musicgen.conditions import Branch, Condition, WindowConditions
from generation_service.models.musicgen.planning.request_plan import RequestPlan


@dataclass(frozen=True, slots=True)
class RequestConditions:
    """The conditions from each of a few frames of codes on."""

    starts: Sequence[int]
    """Ascending. A window begins at each of them, or goes on from the one before it."""
    windows: Sequence[WindowConditions]
    plan: RequestPlan
    prefixes: RequestPrefixes | None = None
    """What is read before the texts, in a model that reads them before the codes."""
    adapters: tuple[AppliedAdapter, ...] = ()
    longest_text: str = "prompt"
    """The field of the request that has the longest text."""

    def at(self, window_start: int, first_read: int) -> WindowConditions:
        """The conditions of a window, by its first new frame and the first one that it reads."""
        conditions = self.windows[bisect_right(self.starts, window_start) - 1]
        if self.prefixes is None:
            return conditions
        return self.prefixes.prepend(conditions, self.plan.output_frame(first_read))

    def reserve(self, steps: int) -> Reservation:
        """What windows of at most `steps` need. Raises InvalidArgument if the texts are too many or too long."""
        reservation = replace(Reservation.for_windows(steps, self.windows), longest_text=self.longest_text)
        return reservation if self.prefixes is None else self.prefixes.reserve(reservation)

    @property
    def metadata(self) -> Mapping[str, MetadataValue]:
        """What the metadata of the generation says about how it was conditioned."""
        own = {"adapters": describe_adapters(self.adapters)} if self.adapters else {}
        return own if self.prefixes is None else {**self.prefixes.metadata, **own}


class ConditionEncoder:
    """Encodes what requests are conditioned on. Any thread can call it."""

    def __init__(
        self,
        texts: TextConditioner,
        prefixes: PrefixConditioner | None = None,
        load_adapters: LoadAdapters = load_none,
    ) -> None:
        """`prefixes` if the model reads the texts before the codes."""
        self.texts = texts
        self._prefixes = prefixes
        self._load_adapters = load_adapters

    @property
    def batch_size(self) -> int:
        """How many requests to pass to `encode_ahead` at once."""
        return self.texts.prompt_batch_size

    def encode_ahead(self, requests: Sequence[GenerationParameters], plans: Sequence[RequestPlan]) -> None:
        """Encodes texts and audio of requests, and loads their adapters, for `encode` to find them. Raises what
        `encode` would raise."""
        texts: dict[tuple[AppliedAdapter, ...], list[str]] = {}
        for parameters in requests:
            texts.setdefault(self._load_adapters(parameters.adapters), []).extend(_all_texts(parameters))
        for adapters, own in texts.items():
            self.texts.encode_prompts(own, adapters)
        for parameters, plan in zip(requests, plans, strict=True):
            if (prefixes := self._encode_prefixes(parameters, plan)) is not None:
                prefixes.prepare(map(plan.output_frame, plan.window_starts))

    def encode(self, parameters: GenerationParameters, plan: RequestPlan) -> RequestConditions:
        """Encodes what has not been encoded ahead. The same text is the same tensor everywhere."""
        adapters = self._load_adapters(parameters.adapters)
        texts = {text: self.texts.encode(text, adapters) for text in dict.fromkeys(_all_texts(parameters))}
        negative = Condition(texts[_negative_text(parameters)])
        windows = [
            WindowConditions(
                tuple(Branch(Condition(texts[each.text]), each.first_weight, each.last_weight) for each in span.texts),
                negative,
            )
            for span in plan.spans
        ]
        prefixes = self._encode_prefixes(parameters, plan)
        # The first of several: one tensor may be the text of two fields.
        tokens = {field: 0 if (one := texts[text]) is None else len(one) for field, text in _texts_of(parameters)}
        longest = max(tokens, key=tokens.__getitem__)
        return RequestConditions([span.start for span in plan.spans], windows, plan, prefixes, adapters, longest)

    def _encode_prefixes(self, parameters: GenerationParameters, plan: RequestPlan) -> RequestPrefixes | None:
        if self._prefixes is None:
            return None
        # A clip shifts the melody, which the windows of a longer piece provide for.
        has_one_window = len(plan.window_starts) == 1 and plan.output_frame(0) == 0
        return self._prefixes.encode(parameters, has_one_window=has_one_window)


def _all_texts(parameters: GenerationParameters) -> Iterator[str]:
    return (text for _, text in _texts_of(parameters))


def _texts_of(parameters: GenerationParameters) -> Iterator[tuple[str, str]]:
    """Yields each text after the field of the request that has it."""
    yield "prompt", parameters.prompt
    yield "conditioning.negative_prompt", _negative_text(parameters)
    for index, further in enumerate(parameters.further_prompts):
        yield f"conditioning.further_prompts[{index}].prompt", further.prompt
    for index, section in enumerate(parameters.sections):
        yield f"conditioning.sections[{index}].prompt", section.prompt


def _negative_text(parameters: GenerationParameters) -> str:
    """The negative prompt, or none where it has no effect."""
    return "" if parameters.guidance_scale == 1 else parameters.negative_prompt
