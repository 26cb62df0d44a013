"""The metrics of gRPC calls, with the names and labels of https://github.com/grpc-ecosystem/go-grpc-middleware, for
which dashboards and alerts exist."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

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
    """Returns the values of METHOD_LABELS for a method such as "/package.Service/Method"."""
    _, service, method = path.split("/")
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


def count_started(labels: MethodLabels) -> None:
    """Counts a call that the server begins to serve."""
    STARTED.inc(*labels)
    IN_PROGRESS.add(1.0, *labels)


def count_handled(labels: MethodLabels, code: str, seconds: float) -> None:
    """Counts a call that has ended. `code` is the status code's name."""
    IN_PROGRESS.add(-1.0, *labels)
    HANDLED.inc(*labels, code_label(code))
    HANDLING.observe(seconds, *labels)


def count_received(labels: MethodLabels, deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Returns a deserializer that counts the messages."""
    assert deserialize is not None, "generated code gives one"

    def deserialize_and_count(data: bytes) -> Any:
        MESSAGES_RECEIVED.inc(*labels)
        BYTES_RECEIVED.inc(*labels, by=len(data))
        return deserialize(data)

    return deserialize_and_count


def count_sent(labels: MethodLabels, serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes]:
    """Returns a serializer that counts the messages."""
    assert serialize is not None, "generated code gives one"

    def serialize_and_count(message: Any) -> bytes:
        data = serialize(message)
        MESSAGES_SENT.inc(*labels)
        BYTES_SENT.inc(*labels, by=len(data))
        return data

    return serialize_and_count
