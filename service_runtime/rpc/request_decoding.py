"""Bytes that are no valid message: gRPC would answer UNKNOWN, with the names of our classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from dgx_music.errors import InvalidArgument, ServiceError

if TYPE_CHECKING:
    from service_runtime.method_wrapping import Handler


@dataclass(frozen=True)
class Undecodable:
    """Stands for the request of a unary call: gRPC hides from the server what its decoding raises."""

    error: ServiceError


def decode_or_refuse(handler: Handler) -> Callable[[bytes], Any] | None:
    """Returns a deserializer that refuses what is no valid message as INVALID_ARGUMENT: it returns Undecodable, or
    raises the error if the request is a stream."""
    deserialize = handler.request_deserializer
    if deserialize is None:
        return None

    def decode(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            error = InvalidArgument.received(
                "the request is not a valid message: it is cut off, corrupt, nested too deeply, or has text that is "
                "not UTF-8",
                reason="MALFORMED_REQUEST",
            )
            if handler.request_streaming:
                raise error from None
            return Undecodable(error)

    return decode
