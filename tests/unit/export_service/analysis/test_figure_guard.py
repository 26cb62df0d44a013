"""Figures that fail, and that succeed."""

from __future__ import annotations

import json

import pytest

from export_service.analysis.figure_guard import FigureGuard, NotMeasured
from tests.support.log_capture import captured_logs


def test_error_is_logged_and_reported_for_each_figure():
    figures = FigureGuard()
    with captured_logs("json") as log, figures.guard("tempo", "key"):
        raise ValueError("operands could not be broadcast together")
    reason = "an unexpected error occurred (ValueError); the export service's log shows it"
    assert figures.failures == (NotMeasured("tempo", reason), NotMeasured("key", reason))
    entry = json.loads(log.getvalue())
    assert (entry["event"], entry["figures"]) == ("figure_not_measured", ["tempo", "key"])
    assert entry["exception"][0]["exc_value"] == "operands could not be broadcast together"


def test_figures_that_were_measured_are_not_reported():
    figures = FigureGuard()
    with figures.guard("tempo"):
        pass
    assert figures.failures == ()


def test_an_interrupt_is_not_suppressed():
    figures = FigureGuard()
    with pytest.raises(KeyboardInterrupt), figures.guard("tempo"):
        raise KeyboardInterrupt
    assert figures.failures == ()
