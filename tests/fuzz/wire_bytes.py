"""Messages as bytes, some of which are no longer valid messages."""

from __future__ import annotations

from random import Random

from google.protobuf.message import Message

UNKNOWN_FIELDS = (
    b"\xfa\xff\xff\xff\x0f\x05hello",  # The highest field number, of bytes.
    b"\xf8\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # A varint of 64 bits.
    b"\x93\x7d\x94\x7d",  # An empty group.
)
BROKEN = (
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",  # A tag of eleven bytes.
    b"\x0a\xff\xff\xff\xff\x07",  # Two gigabytes announced.
    b"\x0b" * 200,  # Groups in groups.
    b"\x0a\x02\xff\xfe",  # Field 1, not UTF-8.
    b"\x07",  # A wire type that does not exist.
    b"\x00",  # Field 0.
)


def encode(rng: Random, message: Message) -> bytes:
    """Returns the message as bytes: nine of ten as it is, of the others some with fields that nobody knows, repeated
    fields, and damage."""
    data = message.SerializeToString()
    match rng.randrange(40):
        case 0:
            return data + rng.choice(UNKNOWN_FIELDS)
        case 1:
            return data + data  # The last value of a field counts; submessages are merged.
        case 2:
            return data + rng.choice(BROKEN)
        case 3 if data:
            at = rng.randrange(len(data))
            return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        case 4 if data:
            return data[: rng.randrange(len(data))]
    return data
