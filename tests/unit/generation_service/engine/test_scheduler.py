"""What is admitted, and what is stepped together. Times are given, so nothing waits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from generation_service.engine.scheduler import (
    MAX_OVERTAKES,
    MAX_STALL_SECONDS,
    MIN_ROWS_PER_NEWCOMER,
    Scheduler,
    choose_newcomers,
)
from generation_service.engine.sequence import PromptState, Sequence
from tests.support.tone_model import BLOCK_FRAMES, ToneModel, tone_parameters

INFO, OTHER = ToneModel().info, ToneModel("other").info
SINK: Any = None


def request(name: str, blocks: float = 4, **fields: Any) -> Sequence:
    return Sequence(fields.pop("info", INFO), tone_parameters(name, blocks), 10**9, SINK, **fields)


def fill(scheduler: Scheduler, *sequences: Sequence) -> None:
    for sequence in sequences:
        scheduler.add(sequence)


def admit_all(scheduler: Scheduler) -> list[str]:
    """Admits without a limit of time, as if each admission succeeded."""
    names = []
    while (sequence := scheduler.admit()) is not None:
        sequence.state = object()
        names.append(sequence.parameters.prompt)
    return names


def batch_names(scheduler: Scheduler) -> list[list[str]]:
    return [[sequence.parameters.prompt for sequence in batch] for batch in scheduler.next_batches()]


def test_many_are_admitted_between_two_steps_within_the_time_budget():
    scheduler = Scheduler(128, 128)
    fill(scheduler, *(request(str(number)) for number in range(128)))
    rounds, stalls = [], []
    while scheduler.waiting_count:
        stalled_seconds, admitted = 0.0, 0
        while (sequence := scheduler.admit(stalled_seconds)) is not None:
            sequence.state = object()
            scheduler.record_admission(0.003)
            stalled_seconds += 0.003
            admitted += 1
        rounds.append(admitted)
        stalls.append(stalled_seconds)
    assert max(stalls) <= MAX_STALL_SECONDS
    assert rounds == [13] * 9 + [11]


def test_slow_admissions_come_one_at_a_time_but_do_come():
    scheduler = Scheduler(8, 8)
    fill(scheduler, request("a"), request("b"))
    assert scheduler.admit() is not None
    scheduler.record_admission(0.5)
    assert scheduler.admit(0.5) is None
    assert scheduler.admit(0.0) is not None


def test_slow_admission_long_ago_is_forgotten():
    scheduler = Scheduler(64, 64)
    scheduler.record_admission(0.5)
    fill(scheduler, *(request(str(number)) for number in range(20)))
    for _ in range(8):
        scheduler.record_admission(0.001)
    assert scheduler.admit(0.001) is not None


def test_encoded_request_overtakes_those_being_encoded():
    scheduler = Scheduler(8, 8)
    first, second = request("first", prompt=PromptState.ENCODING), request("second", prompt=PromptState.WAITING)
    fill(scheduler, first, second, request("third"), request("fourth", prompt=PromptState.UNKNOWN))
    assert admit_all(scheduler) == ["third", "fourth"]
    assert not any(sequence.is_waiting for sequence in scheduler.running)
    first.prompt = second.prompt = PromptState.READY
    assert admit_all(scheduler) == ["first", "second"]


def test_prompts_are_encoded_in_the_order_of_admission_and_not_far_ahead():
    scheduler = Scheduler(2, 100)
    fill(scheduler, *(request(f"a{number}", client="a", prompt=PromptState.WAITING) for number in range(50)))
    fill(scheduler, request("b", client="b", prompt=PromptState.WAITING), request("c", info=OTHER, client="c"))
    names = [sequence.parameters.prompt for sequence in scheduler.prompts_to_encode()]
    assert names[:3] == ["a0", "b", "a1"]
    assert len(names) == 2 + 16 - 1
    for sequence in scheduler.prompts_to_encode():
        sequence.prompt = PromptState.READY
    assert scheduler.prompts_to_encode() == []
    assert admit_all(scheduler) == ["a0", "b"]
    assert [sequence.parameters.prompt for sequence in scheduler.prompts_to_encode()] == ["a16", "a17"]


def test_prompts_of_one_call_are_those_of_one_model():
    scheduler = Scheduler(8, 8)
    for name, info in (("a", INFO), ("b", OTHER), ("c", INFO)):
        fill(scheduler, request(name, info=info, prompt=PromptState.WAITING))
    assert [sequence.parameters.prompt for sequence in scheduler.prompts_to_encode()] == ["a", "c"]


def test_batches_with_newcomers_come_first():
    scheduler = Scheduler(8, 8)
    fill(scheduler, request("a"), request("b"), request("other", info=OTHER), request("c"))
    admit_all(scheduler)
    a, b, other, _ = scheduler.running
    a.frames_delivered = b.frames_delivered = 1
    assert batch_names(scheduler) == [["a", "b", "c"], ["other"]]
    scheduler.running[3].frames_delivered = 1
    assert batch_names(scheduler) == [["other"], ["a", "b", "c"]]
    other.frames_delivered = 1
    assert batch_names(scheduler) == [["a", "b", "c"], ["other"]]


def newcomer_names(rows: int, *newcomers: Sequence) -> list[str]:
    """Those that are stepped before a batch of so many rows."""
    others = [request(str(number), frames_delivered=1) for number in range(rows - len(newcomers))]
    return [sequence.parameters.prompt for sequence in choose_newcomers([*others, *newcomers])]


def test_few_newcomers_are_stepped_ahead_of_a_large_batch():
    a, b = request("a"), request("b")
    assert newcomer_names(MIN_ROWS_PER_NEWCOMER, a) == [], "the default batch on a CPU, where a row takes long"
    assert newcomer_names(MIN_ROWS_PER_NEWCOMER + 1, a) == ["a"]
    assert newcomer_names(2 * MIN_ROWS_PER_NEWCOMER, a, b) == []
    assert newcomer_names(2 * MIN_ROWS_PER_NEWCOMER + 1, a, b) == ["a", "b"]
    a.frames_delivered = 1
    assert newcomer_names(128, a, b) == ["b"]


def test_newcomer_that_has_a_clip_to_read_is_not_stepped_ahead():
    sequence = request("a")
    sequence.parameters = replace(sequence.parameters, prompt_audio=_silence(1))
    assert newcomer_names(128, sequence) == []


def test_groups_are_stepped_apart():
    scheduler = Scheduler(8, 8)
    fill(scheduler, *(request(name) for name in "abcd"))
    admit_all(scheduler)
    scheduler.running[1].group = scheduler.running[2].group = 7
    assert batch_names(scheduler) == [["a", "d"], ["b", "c"]]


def test_request_that_waits_for_memory_is_overtaken_a_few_times_only():
    scheduler = Scheduler(64, 64)
    fill(scheduler, request("running"))
    admit_all(scheduler)
    large = request("large", 9)
    fill(scheduler, large, *(request(str(number), 1) for number in range(20)))
    assert scheduler.admit() is large
    scheduler.requeue(large)
    assert admit_all(scheduler) == [str(number) for number in range(MAX_OVERTAKES)]
    assert not scheduler._next_admissible()
    scheduler.finish(scheduler.running[0])
    assert scheduler.admit() is large


def test_request_that_waits_for_memory_does_not_hold_up_other_models():
    scheduler = Scheduler(64, 64)
    fill(scheduler, request("running"), request("running too", info=OTHER))
    admit_all(scheduler)
    large = request("large", 9)
    fill(scheduler, large, *(request(f"other {number}", 1, info=OTHER) for number in range(20)))
    assert scheduler.admit() is large
    scheduler.requeue(large)
    assert len(admit_all(scheduler)) == 20
    assert large.times_overtaken == 0, "they take none of its memory"
    fill(scheduler, *(request(str(number), 1) for number in range(20)))
    fill(scheduler, request("other", 1, info=OTHER))
    assert admit_all(scheduler) == [*(str(number) for number in range(MAX_OVERTAKES)), "other"]


def test_request_as_large_as_a_rejected_one_is_not_tried():
    scheduler = Scheduler(64, 64)
    fill(scheduler, request("running"), request("running too"))
    admit_all(scheduler)
    rejected = request("rejected", 5)
    clip = tone_parameters("clip", 3)
    continued = request("continued", 3)
    continued.parameters = type(clip)("continued", clip.frames, 1, prompt_audio=_silence(2))
    fill(scheduler, rejected, request("equal", 5), continued, request("other", 50, info=OTHER), request("small", 4))
    scheduler.admit()
    scheduler.requeue(rejected)
    assert admit_all(scheduler) == ["other", "small"]
    scheduler.finish(scheduler.running[0])
    assert admit_all(scheduler) == ["rejected", "equal", "continued"]


def _silence(blocks: int) -> Any:
    import numpy as np

    return np.zeros((blocks * BLOCK_FRAMES, 2), np.float32)


def test_late_requests_are_those_that_could_not_end_in_time_if_they_started_now():
    scheduler = Scheduler(1, 64)
    fill(scheduler, request("running", deadline=1.0))
    admit_all(scheduler)
    passed, tight, ample = (
        request(name, 10, deadline=deadline) for name, deadline in {"p": 9, "t": 11, "a": 13}.items()
    )
    fill(scheduler, passed, tight, ample, request("patient"))
    assert scheduler.next_deadline == 9
    assert scheduler.discard_late(10.0, lambda sequence: 2 * sequence.audio_seconds) == [passed, tight]
    assert (scheduler.next_deadline, scheduler.waiting_count) == (13, 2)
    assert not tight.is_waiting
    scheduler.cancel(ample)
    assert scheduler.next_deadline is None


def test_deadline_is_kept_when_a_request_is_requeued():
    scheduler = Scheduler(8, 8)
    fill(scheduler, request("running"))
    admit_all(scheduler)
    sequence = request("a", deadline=5.0)
    fill(scheduler, sequence)
    assert scheduler.admit() is sequence
    assert scheduler.next_deadline is None
    scheduler.requeue(sequence)
    assert scheduler.next_deadline == 5.0


def test_audio_ahead_is_what_remains_of_the_running_and_all_of_the_waiting():
    scheduler = Scheduler(1, 8)
    fill(scheduler, request("a", 10), request("b", 20))
    scheduler.admit()
    scheduler.running[0].frames_delivered = 3 * BLOCK_FRAMES
    assert round(scheduler.audio_seconds_ahead, 6) == 2.7
