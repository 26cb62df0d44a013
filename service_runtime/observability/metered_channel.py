"""A channel whose calls appear in the metrics, with the names of go-grpc-middleware."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import grpc.aio

from dgx_music.wrapping_channel import Call, WrappingChannel
from service_runtime.observability.call_metrics import METHOD_LABELS, code_label, method_labels
from service_runtime.observability.metrics import Counter, Histogram

STARTED = Counter("grpc_client_started_total", "Total number of RPCs started on the client.", METHOD_LABELS)
HANDLED = Counter(
    "grpc_client_handled_total",
    "Total number of RPCs completed by the client, regardless of success or failure.",
    (*METHOD_LABELS, "grpc_code"),
)
HANDLING = Histogram(
    "grpc_client_handling_seconds", "Duration of RPCs until the client has their status.", METHOD_LABELS
)


def metered(channel: grpc.aio.Channel) -> grpc.aio.Channel:
    """Returns a channel that counts the calls to `channel`; the same one if the process shows no metrics."""
    return MeteredChannel(channel) if STARTED.is_shown else channel


class MeteredChannel(WrappingChannel):
    """Passes all calls to `channel`."""

    def _wrap(
        self, bind: Callable[[grpc.aio.Channel], Call], method: str, request_streaming: bool, response_streaming: bool
    ) -> Call:
        call = bind(self._channel)
        labels = method_labels(method, request_streaming, response_streaming)

        def counted_call(*arguments: Any, **options: Any) -> Any:
            started_at = time.monotonic()
            STARTED.inc(*labels)
            running = call(*arguments, **options)

            def count(ended: Any) -> None:
                HANDLED.inc(*labels, code_label(_code_of(ended)))
                HANDLING.observe(time.monotonic() - started_at, *labels)

            running.add_done_callback(count)
            return running

        return counted_call


def _code_of(ended: Any) -> str:
    """Returns the name of the status code of a call that has ended, for which `code()` never suspends."""
    coroutine: Coroutine[Any, Any, grpc.StatusCode] = ended.code()
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return str(stop.value.name)
    coroutine.close()
    return "UNKNOWN"
