"""The labels of calls, as dashboards and alerts for other gRPC services expect them."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health

from service_runtime.observability.call_metrics import (
    BYTES_SENT,
    HANDLED,
    IN_PROGRESS,
    MESSAGES_SENT,
    MethodMetrics,
    code_label,
    method_labels,
)
from tests.support.shown_metrics import shown

LABELS = ("unary", "s", "m")


@pytest.mark.parametrize(
    ("streams", "kind"),
    [
        ((False, False), "unary"),
        ((False, True), "server_stream"),
        ((True, False), "client_stream"),
        ((True, True), "bidi_stream"),
    ],
)
def test_method_is_split_as_go_does(streams: tuple[bool, bool], kind: str) -> None:
    assert method_labels("/a.b.Service/Method", *streams) == (kind, "a.b.Service", "Method")


def test_refused_call_is_of_its_methods_kind() -> None:
    labels = method_labels(f"/{health.SERVICE_NAME}/Watch", True, True)
    assert labels == ("server_stream", health.SERVICE_NAME, "Watch")


def test_codes_are_spelled_as_go_does() -> None:
    assert [code_label(code.name) for code in sorted(grpc.StatusCode, key=lambda code: code.value[0])] == [
        *("OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists"),
        *("PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented"),
        *("Internal", "Unavailable", "DataLoss", "Unauthenticated"),
    ]


def test_a_call_is_in_progress_until_it_is_handled() -> None:
    with shown(IN_PROGRESS) as in_progress, shown(HANDLED) as handled:
        metrics = MethodMetrics(LABELS)
        metrics.count_started()
        assert in_progress == {LABELS: [1.0]}
        metrics.count_handled("NOT_FOUND", 0.5)
    assert in_progress == {LABELS: [1.0, -1.0]}
    assert handled == {(*LABELS, "NotFound"): [1.0]}


def test_messages_are_counted_as_they_are_serialized() -> None:
    with shown(MESSAGES_SENT) as messages, shown(BYTES_SENT) as size:
        serialize = MethodMetrics(LABELS).count_sent(str.encode)
        assert [serialize("four"), serialize("seven")] == [b"four", b"seven"]
    assert (messages, size) == ({LABELS: [1.0, 1.0]}, {LABELS: [4, 5]})
