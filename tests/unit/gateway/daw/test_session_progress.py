"""The share of a session that is done."""

from __future__ import annotations

from gateway.daw.session_progress import SessionProgress


def test_steps_add_up() -> None:
    told: list[tuple[str, float]] = []
    steps = SessionProgress(lambda text, share: told.append((text, share)), 4.0)
    steps.begin("audio", 1.0)
    steps.begin("stems", 2.0)
    steps.advance(0.5)
    steps.begin("writing", 1.0)
    steps.advance(2.0)
    assert told == [("audio", 0.0), ("stems", 0.25), ("stems", 0.5), ("writing", 0.75), ("writing", 1.0)]


def test_nobody_need_listen() -> None:
    SessionProgress(None, 1.0).begin("audio", 1.0)
