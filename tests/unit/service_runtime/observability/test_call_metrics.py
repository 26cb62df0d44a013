"""The labels of calls, as dashboards and alerts for other gRPC services expect them."""

from __future__ import annotations

import grpc
import pytest

from service_runtime.observability.call_metrics import (
    HANDLED,
    IN_PROGRESS,
    code_label,
    count_handled,
    count_started,
    method_labels,
)
from tests.support.shown_metrics import shown


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
    assert method_labels("/dgx_music.storage.v1.StorageService/GetPrompt", *streams) == (
        kind,
        "dgx_music.storage.v1.StorageService",
        "GetPrompt",
    )


def test_codes_are_spelled_as_go_does() -> None:
    assert [code_label(code.name) for code in sorted(grpc.StatusCode, key=lambda code: code.value[0])] == [
        *("OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists"),
        *("PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented"),
        *("Internal", "Unavailable", "DataLoss", "Unauthenticated"),
    ]


def test_a_call_is_in_progress_until_it_is_handled() -> None:
    labels = ("unary", "s", "m")
    with shown(IN_PROGRESS) as in_progress, shown(HANDLED) as handled:
        count_started(labels)
        assert in_progress == {labels: [1.0]}
        count_handled(labels, "NOT_FOUND", 0.5)
    assert in_progress == {labels: [1.0, -1.0]}
    assert handled == {(*labels, "NotFound"): [1.0]}
