"""Who makes a call, and how long it waits."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from generation_service.rpc.servicer import _origin_of
from service_runtime.access.caller import Caller, Scope, calling_as


def context(remaining_seconds: float | None = None) -> Any:
    return SimpleNamespace(time_remaining=lambda: remaining_seconds)


def test_client_of_the_call_is_that_of_the_request():
    with calling_as(Caller(Scope.GENERATE, "studio")):
        assert _origin_of(context()).client == "studio"


def test_deadline_of_the_call_is_that_of_the_request():
    origin = _origin_of(context(20.0))
    assert origin.deadline == pytest.approx(time.monotonic() + 20.0, abs=5.0)
    assert _origin_of(context()).deadline is None
