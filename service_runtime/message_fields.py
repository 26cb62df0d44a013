"""The fields of a message as plain values, which `service_runtime.shaping` checks and storage keeps as JSON."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


def read_fields(message: Message) -> dict[str, Any]:
    """Returns the fields of a message that are set: enum values by their names, ids of sources in lower case.

    Unlike JSON, it leaves numbers that are not finite as they are, for checks to reject them.
    """
    return {field.name: _read_value(field, value) for field, value in message.ListFields()}


def _read_value(field: FieldDescriptor, value: Any) -> Any:
    if field.is_repeated:
        return [read_fields(one) for one in value]
    if field.message_type is not None:
        return read_fields(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return value.lower() if field.name == "source_id" else value
