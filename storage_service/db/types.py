"""Column types that SQLite and Postgres store differently: UUIDs, and JSON objects that are packed if they are long."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import LargeBinary, Text, Uuid
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

from service_runtime.validation import is_uuid

PACK_THRESHOLD_BYTES = 256
"""JSON text of at least this length is packed."""

_PACKED_PREFIX = b"\x01"
"""The number of the dictionary. JSON text begins with "{" instead."""
_DICTIONARY = (
    b'CC-BY-NC-4.0,"continued_from":","continued_seconds":,"normalization_mode":"LIMITED","normalization_reason":"'
    b'"WAV_PCM_16","WAV_FLOAT","FLAC","MP3","OGG_VORBIS","OPUS","file_sample_rate_hz":44100.0,48000.0,'
    b'"provenance":"INFO, BEXT, C2PA"'
    b'"key":"C major","C# minor","D minor","D# minor","E minor","F major","F# minor","G major","G# minor","A minor",'
    b'"A# major","B minor","genre":"lo-fi hip hop","house","techno","ambient","jazz","synthwave","orchestral","folk",'
    b'"frames":512000.0,960000.0,1920000.0,"instruments":"drums, piano, soft bass, bells, warm pad, strings, guitar"'
    b'{"bpm":120.0,"file_channels":2.0,"file_format":"WAV_PCM_24","file_sample_rate_hz":32000.0,"file_sha256":"",'
    b'"frames":256000.0,"gain_db":-1.73,"genre":"","instruments":"drums, ","integrated_lufs":-16.0,'
    b'"is_synthesiser":true,"key":"A minor","largest_reduction_db":0.0,"license":"Apache-2.0","limited_share":0.0,'
    b'"loudness_range_lu":0.96,"measured_bpm":120.0,"measured_bpm_alternative":60.0,"measured_bpm_confidence":0.8,'
    b'"measured_key":"A minor","measured_key_confidence":0.8,"normalization_mode":"LINEAR","pcm_sha256":"",'
    b'"peak_to_loudness_lu":13.0,"provenance":"INFO, BEXT","rms_dbfs":-17.0,"shortfall_lu":0.0,'
    b'"time_signature":"4/4","true_peak_dbtp":-2.0}'
)
"""Text that rows have in common. It must never change: rows packed with it are unpacked with it."""

_WINDOW_BITS = -12
"""Raw deflate with a window of 4 KiB, which spans the whole dictionary and what is packed."""
_MEMORY_LEVEL = 5
"""From 1 to 9. Clearing the tables of higher levels takes longer than the packing itself."""


class UuidText(TypeDecorator[str]):
    """A UUID in lower case, such as 1b4e28ba-2fa1-41d2-883f-0016d3cca427.

    It is text in Python and in SQLite, and UUID in Postgres, which takes 16 bytes instead of 37.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        native: TypeEngine[Any] = Text() if dialect.name == "sqlite" else Uuid(as_uuid=False)
        return dialect.type_descriptor(native)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        # No row has an id that is not a UUID. NULL equals none of them, whereas Postgres would reject the comparison.
        return value if value is None or dialect.name == "sqlite" or is_uuid(value) else None


class LazyJsonObject(Mapping[str, Any]):
    """A read-only JSON object from the database, decoded on first access.

    Decoding eagerly would be half of the work of listing a thousand rows, most of which nobody looks into.
    """

    __slots__ = ("_encoded", "_members")

    def __init__(self, encoded: str | bytes) -> None:
        self._encoded = encoded
        self._members: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        return self._decode()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decode())

    def __len__(self) -> int:
        return len(self._decode())

    def __repr__(self) -> str:
        return repr(self._decode())

    def _decode(self) -> dict[str, Any]:
        if self._members is None:
            self._members = json.loads(self._encoded)
        return self._members


class PackedJsonObject(LazyJsonObject):
    """A JSON object that may be stored packed."""

    @property
    def is_object(self) -> bool:
        """False if the stored value is damaged or not a JSON object."""
        try:
            return isinstance(self._decode(), dict)
        except ValueError:
            return False

    def _decode(self) -> dict[str, Any]:
        if self._members is None:
            self._members = json.loads(unpack_json(self._encoded))
        return self._members


class PackedJson(TypeDecorator[Mapping[str, Any]]):
    """The metadata column: a JSON object that is never NULL, packed when it is long. JSON in SQLite, BYTEA in Postgres.

    A short object is JSON text, which a person can read. What a worker and the export add is 800 bytes of JSON, most of
    them the same in every row: as raw deflate (RFC 1951) with a dictionary of these it takes 200 bytes.
    """

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        native: TypeEngine[Any] = _PostgresPackedJson()
        if dialect.name == "sqlite":
            native = _SqlitePackedJson()
        return dialect.type_descriptor(native)


class _SqlitePackedJson(UserDefinedType[Mapping[str, Any]]):
    """Text or a blob, which SQLite stores unchanged in any column.

    Declared as JSON, but not as one of SQLAlchemy's JSON types, which SQLAlchemy would replace by its own.
    """

    __visit_name__ = "JSON"

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], str | bytes]:
        return pack_json

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str | bytes], PackedJsonObject]:
        return PackedJsonObject


class _PostgresPackedJson(postgresql.BYTEA):
    """The bytes of the JSON text or of the packed form."""

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], bytes]:
        def encode(value: Mapping[str, Any]) -> bytes:
            packed = pack_json(value)
            return packed.encode() if isinstance(packed, str) else packed

        return encode

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return PackedJsonObject


def encode_json(value: Any, *, sort_keys: bool = False) -> str:
    """Returns compact JSON, without spaces or escapes beyond those that are required."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys, default=dict)


def pack_json(value: Mapping[str, Any]) -> str | bytes:
    """Returns the JSON text of an object, or its packed form if the text is long."""
    text = encode_json(value)
    if len(text) < PACK_THRESHOLD_BYTES:
        return text
    # Sorted like the dictionary: runs of consecutive names then match it as a whole.
    compressor = zlib.compressobj(
        zlib.Z_BEST_COMPRESSION, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY
    )
    sorted_text = encode_json(value, sort_keys=True)
    return _PACKED_PREFIX + compressor.compress(sorted_text.encode()) + compressor.flush()


def unpack_json(stored: str | bytes) -> str | bytes:
    """Returns the JSON that `pack_json` was given. Raises ValueError if it is damaged."""
    if isinstance(stored, str) or not stored.startswith(_PACKED_PREFIX):
        return stored
    try:
        return zlib.decompressobj(_WINDOW_BITS, _DICTIONARY).decompress(stored[len(_PACKED_PREFIX) :])
    except zlib.error as error:
        raise ValueError(f"the packed JSON is damaged: {error}") from error
