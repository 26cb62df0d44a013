"""The order in which several clients are served."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from generation_service.engine.fair_queue import FairQueue
from generation_service.engine.sequence import Sequence
from tests.support.tone_model import ToneModel, tone_parameters

INFO = ToneModel().info
SINK: Any = None


def request(client: str, blocks: float = 10, name: str = "", weight: float = 1.0) -> Sequence:
    """A request for a tenth of a second of audio per block."""
    return Sequence(INFO, tone_parameters(name or client, blocks), 1, SINK, client=client, weight=weight)


def take_all(queue: FairQueue) -> list[str]:
    """Takes every request, and returns their prompts."""
    taken = []
    while len(queue):
        sequence = next(iter(queue))
        queue.take(sequence)
        taken.append(sequence.parameters.prompt)
    return taken


def fill(queue: FairQueue, *sequences: Sequence) -> None:
    for sequence in sequences:
        queue.push(sequence)


def test_one_client_is_served_first_come_first_served():
    queue = FairQueue()
    fill(queue, *(request("a", blocks, f"a{blocks}") for blocks in (30, 1, 20)))
    assert take_all(queue) == ["a30", "a1", "a20"]


def test_thousands_of_requests_of_one_client_do_not_delay_the_first_of_another():
    queue = FairQueue()
    fill(queue, *(request("a") for _ in range(5000)))
    queue.take(next(iter(queue)))
    fill(queue, request("b"))
    assert "b" in take_all(queue)[:2]


def test_clients_share_the_audio_not_the_requests():
    queue = FairQueue()
    fill(queue, *(request("long", 40) for _ in range(50)), *(request("short", 10) for _ in range(200)))
    assert Counter(take_all(queue)[:50]) == {"long": 10, "short": 40}


def test_shares_follow_the_weights():
    queue = FairQueue()
    fill(queue, *(request("a", weight=3.0) for _ in range(60)), *(request("b") for _ in range(60)))
    assert Counter(take_all(queue)[:40]) == {"a": 30, "b": 10}


def test_client_that_was_away_does_not_save_up_its_share():
    queue = FairQueue()
    fill(queue, *(request("a") for _ in range(20)))
    for _ in range(10):
        queue.take(next(iter(queue)))
    fill(queue, *(request("b") for _ in range(10)))
    assert Counter(take_all(queue)[:10]) == {"a": 5, "b": 5}


def test_client_cannot_jump_the_queue_by_coming_back():
    queue = FairQueue()
    fill(queue, request("a", 40), request("b", 10, "b1"), request("b", 10, "b2"), request("b", 10, "b3"))
    queue.take(next(iter(queue)))
    fill(queue, request("a", 10))
    assert take_all(queue) == ["b1", "b2", "b3", "a"]


def test_request_that_is_returned_is_next_and_costs_nothing():
    queue = FairQueue()
    first = request("a", 30, "a1")
    fill(queue, first, request("a", 30, "a2"), request("b", 10, "b1"), request("b", 10, "b2"))
    queue.take(first)
    queue.push_front(first)
    assert (len(queue), first.is_waiting) == (4, True)
    assert take_all(queue) == ["a1", "b1", "b2", "a2"]


def test_only_request_of_a_client_can_be_returned():
    queue = FairQueue()
    only = request("a", 30)
    fill(queue, only)
    queue.take(only)
    fill(queue, request("b"))
    queue.push_front(only)
    assert take_all(queue) == ["a", "b"]


def test_returned_request_stays_before_those_of_clients_with_the_same_share():
    queue = FairQueue()
    only = request("a", 30)
    fill(queue, only, request("b"))
    queue.take(only)
    queue.push_front(only)
    assert take_all(queue) == ["a", "b"]


def test_removed_request_costs_its_client_nothing():
    queue = FairQueue()
    dropped = request("a", 1000, "dropped")
    fill(queue, dropped, request("a", 10, "a2"), request("b", 10), request("b", 10))
    queue.remove(dropped)
    assert not dropped.is_waiting
    assert take_all(queue) == ["a2", "b", "b"]


def test_iteration_foretells_the_order_and_the_audio_is_counted():
    draw = random.Random(5)
    queue = FairQueue()
    waiting: list[Sequence] = []
    for _ in range(400):
        sequence = request(f"client {draw.randrange(7)}", draw.randrange(1, 50))
        queue.push(sequence)
        waiting.append(sequence)
        if draw.random() < 0.4:
            (queue.take if draw.random() < 0.7 else queue.remove)(chosen := draw.choice(list(queue)[:3]))
            waiting.remove(chosen)
    assert queue.audio_seconds == pytest.approx(sum(sequence.audio_seconds for sequence in waiting))
    assert set(queue.unordered()) == set(waiting)
    foretold = [sequence.parameters.prompt for sequence in queue]
    assert take_all(queue) == foretold
    assert (len(queue), queue.audio_seconds) == (0, 0.0)


def test_clients_that_have_left_are_forgotten():
    queue = FairQueue()
    for number in range(1000):
        sequence = request(f"client {number}")
        fill(queue, sequence)
        queue.take(sequence)
    assert len(queue._finish) == 0
    assert len(queue._heads) < 100
