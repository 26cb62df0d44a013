"""The calls that a thread sends to the event loop."""

from __future__ import annotations

from generation_service.engine.shared_state import LoopCalls


def test_calls_wake_the_loop_once_and_are_made_in_order():
    wake_ups = []
    made: list[object] = []
    calls = LoopCalls(lambda function, batch: wake_ups.append((function, batch)))
    calls.send()
    assert wake_ups == []
    calls.add(made.append, 1)
    calls.add(made.append, 2)
    calls.send()
    calls.send()
    assert len(wake_ups) == 1
    function, batch = wake_ups[0]
    function(batch)
    assert made == [1, 2]
