"""Errors keep their class, message and details on the way from a server to its caller."""

from __future__ import annotations

from urllib.parse import quote

import grpc
import grpc.aio
import pytest

from dgx_music import errors
from dgx_music.error_status import DETAILS_KEY, to_exception, to_status
from dgx_music.errors import InvalidArgument, NotFound, ServiceError

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ServiceError)]


def received(error: ServiceError) -> ServiceError:
    code = grpc.StatusCode[error.code]
    trailing = grpc.aio.Metadata((DETAILS_KEY, to_status(error).SerializeToString()))
    return to_exception(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, error.message))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_class_is_kept(kind: type[ServiceError]) -> None:
    reasons = {errors.GenerationFailed: "GENERATION_FAILED", errors.GenerationCancelled: "GENERATION_CANCELLED"}
    sent = kind.received("what", reason=reasons.get(kind, "WHY"), metadata={"a": "b"}, retry_after_seconds=1.5)
    back = received(sent)
    assert type(back) is (errors.Unavailable if kind is errors.ConnectionLost else kind)
    assert str(back) == "what"
    assert vars(back) == vars(sent)


def test_every_class_is_in_the_tree_of_the_docstring() -> None:
    assert errors.__doc__ is not None
    assert [kind.__name__ for kind in ALL if f"─ {kind.__name__} " not in errors.__doc__] == ["ServiceError"]


def test_field_is_kept() -> None:
    back = received(InvalidArgument("requests[2].seed", "must not be negative"))
    assert isinstance(back, InvalidArgument)
    assert (back.field, back.problem) == ("requests[2].seed", "must not be negative")
    assert received(NotFound("model", "x")).metadata == {"kind": "model", "name": "x"}


def test_status_of_grpc_itself_is_put_into_words() -> None:
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNIMPLEMENTED, grpc.aio.Metadata(), grpc.aio.Metadata(), "Method?")
    exception = to_exception(error)
    assert type(exception) is errors.Unimplemented
    assert "does not know this call" in exception.message
    assert exception.reason == ""


def test_status_fits_into_the_trailing_metadata_of_a_call() -> None:
    """gRPC sends the message percent-encoded and the status in base64, and gives up a call with more than 8 KiB."""
    for text in ("x" * 100_000, "音" * 100_000, "\U0001f3b5" * 100_000):
        for error in (
            InvalidArgument("prompt", text),
            NotFound("generation", text),
            errors.GenerationFailed.received(text, reason="GENERATION_FAILED", metadata={"error_message": text}),
        ):
            status = to_status(error)
            assert len(quote(status.message)) + len(status.SerializeToString()) * 4 / 3 < 8000
            assert status.message.endswith("…") or isinstance(error, NotFound)
            assert received(error).reason == error.reason
