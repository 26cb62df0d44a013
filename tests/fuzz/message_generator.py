"""Generates requests from their descriptors: plausible ones, in which a few fields are replaced by hostile values."""

from __future__ import annotations

import base64
import io
import json
import math
import uuid
import wave
from collections.abc import Callable
from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Value

from dgx_music.export.v1 import export_pb2
from dgx_music.pcm import PcmWriter, live_header
from tests.fuzz import hostile_values as hostile
from tests.fuzz.known_objects import KnownObjects

PROMPTS = ("house at 120 BPM", "slow piano in A minor", "lo-fi hip hop", "drums, then silence", "日本の音楽 \U0001f3b5")
PLAUSIBLE: dict[str, Callable[[Random], Any]] = {
    "prompt": lambda rng: rng.choice(PROMPTS),
    "negative_prompt": lambda rng: rng.choice(PROMPTS),
    "text": lambda rng: rng.choice(PROMPTS),
    "prompt_contains": lambda rng: rng.choice(("house", "%", "")),
    "text_contains": lambda rng: rng.choice(("house", "_", "")),
    "model_name": lambda rng: rng.choice(("sketch", "sketch", "unserved", "unserved", "", "musicgen-small")),
    "model_names": lambda rng: rng.choice(("sketch", "unserved")),
    "name": lambda rng: rng.choice(("sketch", f"token {rng.randrange(10**9)}")),
    "duration_seconds": lambda rng: rng.choice((0.1, 0.25, 0.5, 1.0)),
    "sample_rate_hz": lambda rng: rng.choice((8_000, 44_100, 48_000)),
    "channels": lambda rng: rng.choice((1, 2)),
    "error_message": lambda rng: rng.choice(PROMPTS),
    "file_path": lambda rng: "outputs/2026/01/01/x.wav",
    "file_sha256": lambda rng: "0" * 64,
    "scope": lambda rng: rng.choice((1, 2, 3)),
    "seed": lambda rng: rng.randrange(2**63),
    "temperature": lambda rng: 1.0,
    "top_k": lambda rng: rng.choice((0, 250)),
    "top_p": lambda rng: 0.9,
    "guidance_scale": lambda rng: 3.0,
    "priority": lambda rng: rng.randrange(-10, 11),
    "max_attempts": lambda rng: rng.randrange(4),
    "rating": lambda rng: rng.randrange(6),
    "min_rating": lambda rng: rng.randrange(6),
    "page_size": lambda rng: rng.choice((0, 1, 3, 1000)),
    "worker_id": lambda rng: rng.choice(("fuzz", "fuzz-2")),
    "lease_seconds": lambda rng: rng.choice((1.0, 60.0)),
    "wait_seconds": lambda rng: rng.choice((0.0, 0.1)),
    "progress": lambda rng: rng.random(),
    "bars": lambda rng: rng.choice((1, 2)),
    "beats_per_bar": lambda rng: rng.choice((0, 4)),
    "bpm": lambda rng: rng.choice((120.0, 240.0)),
    "start_seconds": lambda rng: rng.choice((0.0, 0.25)),
    "end_seconds": lambda rng: rng.choice((0.0, 0.5, 1.0)),
    "added_seconds": lambda rng: rng.choice((0.0, 0.5)),
    "seconds": lambda rng: rng.choice((0.0, 0.5, 2.0)),
    "weight": lambda rng: 1.0,
    "target_lufs": lambda rng: -14.0,
    "ceiling_dbtp": lambda rng: -1.0,
    "bit_rate_kbps": lambda rng: rng.choice((0, 128, 320)),
    "quality": lambda rng: 5.0,
    "points": lambda rng: rng.choice((0, 10, 1000)),
    "days": lambda rng: rng.choice((0, 7)),
    "start_frame": lambda rng: rng.choice((0, 1, 1000)),
    "start_byte": lambda rng: rng.choice((0, 100)),
    "byte_count": lambda rng: rng.choice((0, 100)),
    "file_size_bytes": lambda rng: 1000,
    "generation_time_seconds": lambda rng: 1.0,
    "calls_per_minute": lambda rng: rng.choice((0, 60)),
    "max_queued": lambda rng: rng.choice((0, 10)),
    "minutes_per_day": lambda rng: rng.choice((0.0, 60.0)),
    "older_than_seconds": lambda rng: 3600.0,
    "keep_newest_bytes": lambda rng: 10**9,
    "dry_run": lambda rng: rng.random() < 0.9,
    "secret_sha256": lambda rng: bytes(32),
    "attempt": lambda rng: rng.choice((1, 1, 2)),
    "encoding": lambda rng: 1,
}
"""Field → a value with which a request may well be accepted."""
REQUIRED = frozenset(
    {"id", "generation_id", "source_id", "lease_token", "prompt", "text", "duration_seconds", "model_name", "worker_id"}
    | {"model_names", "lease_seconds", "error_message", "file_path", "file_size_bytes", "file_sha256", "name", "scope"}
    | {
        "generation_time_seconds",
        "encoding",
        "stage",
        "requests",
        "kind",
        "bars",
        "secret_sha256",
        "previous_file_sha256",
    }
)
"""Fields without which a request is mostly refused. Others are left out of some requests altogether."""
POSITIONS = (
    *(
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2026-01-01",
        "2026-01-01T00:00:00Z",
        "a\0b",
        "\ud800",
        "",
    ),
    *(None, True, -1, 2**63, 10**400, 1.5, [], {}, "00000000-0000-0000-0000-000000000000", "output//", "x" * 10_000),
)
"""What a forged page token says that a page begins after."""
RARE = frozenset({"continuation", "conditioning", "edit", "loop", "variation_of", "max_attempts"})
"""Fields of which few go together."""
INTEGERS = {
    FieldDescriptor.TYPE_INT32: hostile.INT32,
    FieldDescriptor.TYPE_SINT32: hostile.INT32,
    FieldDescriptor.TYPE_INT64: hostile.INT64,
    FieldDescriptor.TYPE_FIXED32: hostile.UINT32,
    FieldDescriptor.TYPE_UINT32: hostile.UINT32,
}
STRUCT = "google.protobuf.Struct"
TIMESTAMP = "google.protobuf.Timestamp"
MAX_DEPTH = 4


def _export(rng: Random, message: Message) -> list[Message]:
    """An export of silence or noise, under an id of its own or that of a generation."""
    samples = bytes(8 * rng.randrange(1, 20_000))
    writer = PcmWriter(2)
    given: export_pb2.ExportHeader = message.header  # type: ignore[attr-defined]
    known_id = given.audio.generation_id
    generation_id = known_id if known_id and rng.random() < 0.3 else str(uuid.UUID(int=rng.getrandbits(128), version=4))
    given.audio.CopyFrom(live_header(generation_id, 1, 32_000, 2, len(samples) // 8))
    header = export_pb2.ExportRequest(header=given)
    return [
        header,
        *(export_pb2.ExportRequest(chunk=chunk) for chunk in writer.chunks(samples)),
        export_pb2.ExportRequest(end=writer.end()),
    ]


def _import_clip(rng: Random, message: Message) -> list[Message]:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(rng.randbytes(2 * rng.randrange(8_000)))
    data = content.getvalue()
    return [export_pb2.ImportClipRequest(data=data[at : at + 4096]) for at in range(0, len(data), 4096)]


UPLOADS: dict[str, Callable[[Random, Message], list[Message]]] = {
    "dgx_music.export.v1.ExportRequest": _export,
    "dgx_music.export.v1.ImportClipRequest": _import_clip,
}
"""Request that is sent as a stream → what builds the messages of one."""


class MessageGenerator:
    """Generates messages of any kind. The same random numbers and the same known objects give the same message."""

    def __init__(self, rng: Random, known: KnownObjects) -> None:
        self._rng, self._known = rng, known
        self._share = rng.choice((0.0, 0.05, 0.2, 0.5))
        """Of the fields that are set."""

    def request(self, descriptor: Descriptor) -> Message:
        """Returns a request: three in seven are plausible as a whole, the others have one to three hostile values."""
        message = self.plausible(descriptor)
        for _ in range(self._rng.choice((0, 0, 0, 1, 1, 2, 3))):
            self.mutate(message)
        return message

    def requests(self, descriptor: Descriptor) -> list[Message]:
        """Returns the messages of a stream: a few at random, or a plausible upload, of which one may be mutated."""
        rng = self._rng
        if descriptor.full_name not in UPLOADS or rng.random() < 0.2:
            return [self.request(descriptor) for _ in range(rng.choice((0, 1, 2, 3, 8)))]
        messages = UPLOADS[descriptor.full_name](rng, self.plausible(descriptor))
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            self.mutate(rng.choice(messages))
        if rng.random() < 0.1:
            del messages[rng.randrange(len(messages))]
        return messages

    def plausible(self, descriptor: Descriptor, depth: int = 0) -> Message:
        """Returns a message with the fields that its kind mostly has."""
        message: Message = GetMessageClass(descriptor)()
        chosen = {oneof.name: self._rng.choice(oneof.fields).name for oneof in descriptor.oneofs}
        for field in descriptor.fields:
            oneof = field.containing_oneof
            if oneof is not None and len(oneof.fields) > 1 and chosen[oneof.name] != field.name:
                continue
            if field.name in REQUIRED or self._rng.random() < (self._share / 5 if field.name in RARE else self._share):
                self._set(message, field, depth)
        if "CreateGenerationRequest" in descriptor.full_name and self._rng.random() < 0.5:
            message.sample_rate_hz, message.channels, message.model_name = 32_000, 2, "sketch"  # type: ignore[attr-defined]
        if {"id", "lease_token"} <= set(descriptor.fields_by_name.keys()) and self._known.leases:
            message.id, message.lease_token = self._rng.choice(self._known.leases)  # type: ignore[attr-defined]
        return message

    def mutate(self, message: Message) -> None:
        """Replaces one field of the message, or of one within it, by a hostile value, or adds it."""
        fields = message.DESCRIPTOR.fields
        if message.DESCRIPTOR.full_name == STRUCT:
            _fill(message.fields[hostile.string(self._rng)[:300]], self._struct_value())  # type: ignore[attr-defined]
            return
        if not fields:
            return
        field = self._rng.choice(fields)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if field.is_repeated:
                self._mutate_repeated(message, field)
            elif self._rng.random() < 0.15:
                message.ClearField(field.name)
            else:
                inner = getattr(message, field.name)
                inner.SetInParent()
                self.mutate(inner)
            return
        value = self._hostile(field)
        if field.is_repeated:
            is_large = isinstance(value, str) and len(value) > hostile.LARGE
            getattr(message, field.name).extend([value] * (1 if is_large else self._rng.choice((1, 2, 101, 1001))))
        else:
            setattr(message, field.name, value)

    def _mutate_repeated(self, message: Message, field: FieldDescriptor) -> None:
        values = getattr(message, field.name)
        if field.message_type.GetOptions().map_entry:
            return
        if values and self._rng.random() < 0.5:
            self.mutate(self._rng.choice(values))
        else:
            one = self.plausible(field.message_type, MAX_DEPTH - 1)
            values.extend([one] * self._rng.choice((1, 4, 33, 101)))

    def _set(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            kind = field.message_type
            if kind.full_name == STRUCT:
                getattr(message, field.name).update({"genre": "house", "bpm": 120})
            elif kind.full_name == TIMESTAMP:
                getattr(message, field.name).FromSeconds(self._rng.choice((0, 2_500_000_000)))
            elif depth < MAX_DEPTH and not field.is_repeated:
                getattr(message, field.name).CopyFrom(self.plausible(kind, depth + 1))
            elif depth < MAX_DEPTH:
                many = [self.plausible(kind, depth + 1) for _ in range(self._rng.choice((1, 1, 2)))]
                getattr(message, field.name).extend(many)
            return
        value = self._plausible_value(field)
        if value is None:
            return
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)

    def _plausible_value(self, field: FieldDescriptor) -> Any:
        if field.type == FieldDescriptor.TYPE_STRING and (
            name := self._known.draw(self._rng, field.name, field.containing_type.name)
        ):
            return name if field.name != "request_id" or self._rng.random() < 0.2 else str(self._uuid())
        if field.name == "request_id":
            return str(self._uuid())
        if (draw := PLAUSIBLE.get(field.name)) is not None:
            value = draw(self._rng)
            return value.encode() if field.type == FieldDescriptor.TYPE_BYTES and isinstance(value, str) else value
        if field.enum_type is not None:
            return self._rng.choice(field.enum_type.values).number
        if field.type == FieldDescriptor.TYPE_BOOL:
            return self._rng.random() < 0.2
        return None

    def _hostile(self, field: FieldDescriptor) -> Any:
        rng = self._rng
        match field.type:
            case FieldDescriptor.TYPE_STRING:
                name = self._known.draw(rng, field.name, field.containing_type.name)
                if field.name == "page_token" and name:
                    return self._forge(name)
                return self._tamper(name) if name and rng.random() < 0.5 else hostile.string(rng)
            case FieldDescriptor.TYPE_BYTES:
                return rng.choice(hostile.BYTES)
            case FieldDescriptor.TYPE_BOOL:
                return rng.random() < 0.5
            case FieldDescriptor.TYPE_DOUBLE:
                return rng.choice(hostile.FLOATS) if rng.random() < 0.8 else math.ldexp(rng.random(), rng.randrange(64))
            case FieldDescriptor.TYPE_ENUM:
                return rng.choice((*range(24), 99, -1, 2**31 - 1))
            case _:
                return rng.choice(INTEGERS[field.type])

    def _forge(self, token: str) -> str:
        """A page token with another position, or one that is none."""
        if self._rng.random() < 0.2:
            return base64.urlsafe_b64encode(b"[" * 100_000).decode()
        try:
            content = json.loads(base64.urlsafe_b64decode(token))
            content[self._rng.randrange(len(content))] = self._rng.choice(POSITIONS)
        except (ValueError, TypeError, KeyError):
            return token
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()

    def _tamper(self, name: str) -> str:
        rng, at = self._rng, self._rng.randrange(len(name))
        return rng.choice(
            (
                name,
                name.upper(),
                name[:at],
                name[at:],
                name[:at] + "A" + name[at + 1 :],
                f"{name} ",
                name + name,
                name[::-1],
            )
        )

    def _struct_value(self) -> object:
        return (
            hostile.nested(self._rng.choice((10, 40, 60)))
            if self._rng.random() < 0.1
            else hostile.struct_value(self._rng)
        )

    def _uuid(self) -> uuid.UUID:
        return uuid.UUID(int=self._rng.getrandbits(128), version=4)


def _fill(target: Value, value: object) -> None:
    match value:
        case None:
            target.null_value = 0
        case bool():
            target.bool_value = value
        case float():
            target.number_value = value
        case str():
            target.string_value = value
        case list():
            target.list_value.SetInParent()
            for one in value:
                _fill(target.list_value.values.add(), one)
        case dict():
            target.struct_value.SetInParent()
            for name, one in value.items():
                _fill(target.struct_value.fields[name], one)
