"""`find_order`: whether what clients saw of one request's generations can have happened one call after another
(linearizability; Herlihy and Wing, 1990), also if some answers were lost and leases expired meanwhile.

The sequential behaviour is a third description of the state machine, beside storage's own and `lifecycle_model`: of one
generation, with what may happen by itself, and with time only as far as the clients' clock bounds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

UNKNOWN = "unknown"
"""The answer of a call that failed in a way that does not tell whether it had an effect."""
NOT_FOUND, ILLEGAL, STALE = "NOT_FOUND", "FAILED_PRECONDITION", "ABORTED"
MORE_ATTEMPTS = 3
ANY = "?"
"""An id or a token that only a lost answer contained."""


@dataclass(frozen=True)
class Observed:
    """One call: what was asked, what was answered, and when, in seconds of the client's clock."""

    name: str
    arguments: tuple[Any, ...]
    answer: Any
    began: float
    ended: float
    """Infinite if the answer is UNKNOWN: it may take effect at any time later."""


@dataclass(frozen=True)
class State:
    """The generation of one request id."""

    status: str = "none"
    id: str = ""
    attempt: int = 0
    max_attempts: int = 3
    token: str = ""
    lease_ends: float = math.inf
    """The earliest time at which its lease can have ended."""
    lease_over: float = math.inf
    """The latest time at which it can have ended."""
    due: float = 0.0
    """The earliest time at which it can be claimed."""


NONE = State()


def find_order(history: Sequence[Observed], final: tuple[str, str, int] | None) -> bool:
    """Returns whether there is an order of the calls, or of some of those with an unknown answer, that gives all the
    answers and ends in `final`: id, status and attempt, or None if there is no generation. A call that ended before
    another began must come before it.
    """
    known = frozenset(index for index, one in enumerate(history) if one.answer != UNKNOWN)
    seen: set[tuple[frozenset[int], State]] = set()

    def follow(done: frozenset[int], state: State) -> bool:
        if (done, state) in seen:
            return False
        seen.add((done, state))
        if known <= done and any(is_final(end, final) for end in _by_itself(state, math.inf)):
            return True
        left = [index for index in range(len(history)) if index not in done]
        first_end = min((history[index].ended for index in left), default=math.inf)
        return any(
            follow(done | {index}, after)
            for index in left
            if history[index].began <= first_end
            for before in _by_itself(state, history[index].ended)
            for after in _apply(before, history[index])
        )

    return follow(frozenset(), NONE)


def is_final(state: State, final: tuple[str, str, int] | None) -> bool:
    """Returns whether the state is the stored one."""
    if state.status == "none" or final is None:
        return state.status == "none" and final is None
    return state.id in (ANY, final[0]) and (state.status, state.attempt) == final[1:]


def _by_itself(state: State, now: float) -> Iterator[State]:
    """Yields the state, and what becomes of it if its lease ends before `now`."""
    yield state
    if state.status == "processing" and state.lease_ends <= now:
        is_last = state.attempt >= state.max_attempts
        yield replace(state, status="failed" if is_last else "pending", token="", due=0.0)


def _apply(state: State, call: Observed) -> Iterator[State]:
    """Yields the possible states after the call, if it can give this answer in this state."""
    for answer, after in _outcomes(state, call):
        if call.answer in (UNKNOWN, answer):
            yield after


def _outcomes(state: State, call: Observed) -> Iterator[tuple[Any, State]]:
    """Yields each possible answer with the state after it."""
    match call.name:
        case "create":
            if state.status == "none":
                new_id = ANY if call.answer == UNKNOWN else call.answer
                yield new_id, State("pending", new_id)
            else:
                own_id = call.answer if state.id == ANY and call.answer != UNKNOWN else state.id
                yield own_id, replace(state, id=own_id)
        case "claim":
            yield from _claim(state, call)
        case "get":
            yield from _read(state, call)
        case "renew" | "complete" | "fail" | "hand_back":
            yield from _use_lease(state, call)
        case _:
            yield from _change(state, call)


def _claim(state: State, call: Observed) -> Iterator[tuple[Any, State]]:
    (seconds,) = call.arguments
    if state.status == "pending" and call.ended >= state.due:
        new_id, token, attempt = (ANY, ANY, 0) if call.answer == UNKNOWN else call.answer
        is_same = ANY in (state.id, new_id) or state.id == new_id
        if is_same and attempt in (0, state.attempt + 1):
            yield (
                call.answer,
                replace(
                    state,
                    status="processing",
                    id=state.id if new_id == ANY else new_id,
                    attempt=state.attempt + 1,
                    token=token,
                    lease_ends=call.began + seconds,
                    lease_over=call.ended + seconds,
                ),
            )
    if call.answer == UNKNOWN:  # It claimed another one, or none.
        yield call.answer, state


def _read(state: State, call: Observed) -> Iterator[tuple[Any, State]]:
    if state.status == "none" or call.arguments[0] != state.id:
        yield NOT_FOUND, state
    if state.status != "none" and state.id in (ANY, call.arguments[0]):
        yield (state.status, state.attempt), replace(state, id=call.arguments[0])


def _use_lease(state: State, call: Observed) -> Iterator[tuple[Any, State]]:
    key, token = call.arguments[:2]
    if state.status == "none" or key != state.id:
        yield NOT_FOUND, state
    if state.status == "none" or state.id not in (ANY, key):
        return
    state = replace(state, id=key)
    if token != state.token:  # One that only a lost answer contained can't be sent.
        yield STALE, state
    elif state.status != "processing":
        repeats = {("complete", "completed"): "completed", ("renew", "cancelled"): "stop"}
        yield repeats.get((call.name, state.status), ILLEGAL), state
    else:
        if state.lease_ends <= call.ended:
            yield STALE, state  # It has ended, and no sweep has found it yet.
        if call.began < state.lease_over:
            yield _held(state, call)


def _held(state: State, call: Observed) -> tuple[Any, State]:
    """Returns what the holder of the lease does."""
    match call.name:
        case "renew":
            seconds = call.arguments[2]
            return "renewed", replace(state, lease_ends=call.began + seconds, lease_over=call.ended + seconds)
        case "complete":
            return "completed", replace(state, status="completed")
        case "hand_back":
            return "pending", replace(state, status="pending", token="", due=0.0, max_attempts=state.max_attempts + 1)
        case _ if call.arguments[2] and state.attempt < state.max_attempts:
            due = call.began + 2 ** (state.attempt - 1)
            return "pending", replace(state, status="pending", token="", due=due)
        case _:
            return "failed", replace(state, status="failed")


def _change(state: State, call: Observed) -> Iterator[tuple[Any, State]]:
    """By anybody: cancel, retry, delete."""
    if state.status == "none" or call.arguments[0] != state.id:
        yield NOT_FOUND, state
    if state.status == "none" or state.id not in (ANY, call.arguments[0]):
        return
    state = replace(state, id=call.arguments[0])
    match call.name, state.status:
        case "cancel", "pending" | "processing":
            yield "cancelled", replace(state, status="cancelled")
        case "retry", "failed":
            more = state.attempt + MORE_ATTEMPTS
            yield "pending", replace(state, status="pending", token="", due=0.0, max_attempts=more)
        case "delete", "pending" | "completed" | "failed" | "cancelled":
            yield "gone", NONE
        case _:
            yield ILLEGAL, state
