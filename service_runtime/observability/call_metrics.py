"""The metrics of gRPC calls, with the names and labels of https://github.com/grpc-ecosystem/go-grpc-middleware, for
which dashboards and alerts exist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from google.protobuf import descriptor_pool

from service_runtime.observability.metrics import Counter, Gauge, Histogram

METHOD_LABELS = ("grpc_type", "grpc_service", "grpc_method")

STARTED = Counter("grpc_server_started_total", "Total number of RPCs started on the server.", METHOD_LABELS)
HANDLED = Counter(
    "grpc_server_handled_total",
    "Total number of RPCs completed on the server, regardless of success or failure.",
    (*METHOD_LABELS, "grpc_code"),
)
HANDLING = Histogram(
    "grpc_server_handling_seconds", "Duration of RPCs on the server; of a stream, until its end.", METHOD_LABELS
)
MESSAGES_RECEIVED = Counter(
    "grpc_server_msg_received_total", "Total number of RPC messages received by the server.", METHOD_LABELS
)
MESSAGES_SENT = Counter("grpc_server_msg_sent_total", "Total number of RPC messages sent by the server.", METHOD_LABELS)
BYTES_RECEIVED = Counter(
    "dgx_music_rpc_received_bytes_total", "Size of the messages that the server received.", METHOD_LABELS
)
BYTES_SENT = Counter("dgx_music_rpc_sent_bytes_total", "Size of the messages that the server sent.", METHOD_LABELS)
IN_PROGRESS = Gauge(
    "dgx_music_rpcs_in_progress", "RPCs that the server is serving, such as open streams.", METHOD_LABELS
)

MethodLabels = tuple[str, str, str]

_TYPES = {
    (False, False): "unary",
    (False, True): "server_stream",
    (True, False): "client_stream",
    (True, True): "bidi_stream",
}


@lru_cache(maxsize=1000)
def method_labels(path: str, request_streaming: bool, response_streaming: bool) -> MethodLabels:
    """Returns the values of METHOD_LABELS for a method such as "/package.Service/Method".

    Its contract decides what it is, if this process has it: a call that is refused is served as a stream.
    """
    _, service, method = path.split("/")
    with suppress(KeyError):
        contract = descriptor_pool.Default().FindMethodByName(f"{service}.{method}")
        request_streaming, response_streaming = contract.client_streaming, contract.server_streaming
    return _TYPES[request_streaming, response_streaming], service, method


@lru_cache(maxsize=100)
def code_label(name: str) -> str:
    """Returns the value of the label grpc_code for the name of a status code: "NOT_FOUND" → "NotFound"."""
    match name:
        case "OK":
            return name
        case "CANCELLED":
            return "Canceled"
    return "".join(word.capitalize() for word in name.split("_"))


class MethodMetrics:
    """The metrics of one method of a server, found once so that a call only updates them."""

    def __init__(self, labels: MethodLabels) -> None:
        self._labels = labels
        self._started, self._in_progress = STARTED.bind(*labels), IN_PROGRESS.bind(*labels)
        self._handling = HANDLING.bind(*labels)
        self._handled: dict[str, Sequence[Any]] = {}
        self._messages = MESSAGES_RECEIVED.bind(*labels), MESSAGES_SENT.bind(*labels)
        self._bytes = BYTES_RECEIVED.bind(*labels), BYTES_SENT.bind(*labels)

    def count_started(self) -> None:
        """Counts a call that the server begins to serve."""
        for metric in (*self._started, *self._in_progress):
            metric.inc()

    def count_handled(self, code: str, seconds: float) -> None:
        """Counts a call that has ended. `code` is the status code's name."""
        for metric in self._in_progress:
            metric.dec()
        if code not in self._handled:
            self._handled[code] = HANDLED.bind(*self._labels, code_label(code))
        for metric in self._handled[code]:
            metric.inc()
        for metric in self._handling:
            metric.observe(seconds)

    def count_received(self, deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
        """Returns a deserializer that counts the messages; None deserializes nothing."""

        def deserialize_and_count(data: bytes) -> Any:
            self._count_message(0, data)
            return data if deserialize is None else deserialize(data)

        return deserialize_and_count

    def count_sent(self, serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes]:
        """Returns a serializer that counts the messages; None is for those that are bytes."""

        def serialize_and_count(message: Any) -> bytes:
            data = message if serialize is None else serialize(message)
            self._count_message(1, data)
            return data

        return serialize_and_count

    def _count_message(self, direction: int, data: bytes) -> None:
        for metric in self._messages[direction]:
            metric.inc()
        for metric in self._bytes[direction]:
            metric.inc(len(data))
