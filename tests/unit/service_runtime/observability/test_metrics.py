"""Metrics that are off."""

from __future__ import annotations

from service_runtime.observability.metrics import metrics_endpoint


def test_without_a_port_there_is_no_recorder() -> None:
    with metrics_endpoint(None) as recorder:
        assert recorder is None
