"""The column of what is known of the music: a JSON object, packed where it is long.

Short, it is JSON text, for a person to read. What a worker and the export leave is 800 bytes of JSON, most of them the
same in every row: as raw deflate (RFC 1951) with these as its dictionary it takes 200. So packed it begins with the
dictionary's number, 1, and not with "{".
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import LargeBinary
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

from storage_service.db.json_object import JsonObject, encode

LONG_BYTES = 256
"""From here on an object is packed."""

_PACKED = b"\x01"
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
"""What rows have in common. As it is for good: rows that were packed with it are read with it."""

_WINDOW_BITS = -12
"""Raw, and 4 KiB back: all of the dictionary and of what is packed."""
_MEMORY_LEVEL = 5
"""Of 1 to 9. Tables that are larger take longer to clear than the whole packing."""


def pack(value: Mapping[str, Any]) -> str | bytes:
    """JSON text, or where that is long, it packed."""
    text = encode(value)
    if len(text) < LONG_BYTES:
        return text
    # Its names in the dictionary's order, or they would not be found there one after the other.
    packing = zlib.compressobj(
        zlib.Z_BEST_COMPRESSION, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY
    )
    return _PACKED + packing.compress(encode(value, sort_keys=True).encode()) + packing.flush()


def unpack(stored: str | bytes) -> str | bytes:
    """The JSON of what `pack` gave. ValueError where it is damaged."""
    if isinstance(stored, str) or not stored.startswith(_PACKED):
        return stored
    try:
        return zlib.decompressobj(_WINDOW_BITS, _DICTIONARY).decompress(stored[len(_PACKED) :])
    except zlib.error as error:
        raise ValueError(f"is packed, and damaged: {error}") from error


class PackedObject(JsonObject):
    """An object that may be packed."""

    @property
    def is_object(self) -> bool:
        """False where what is stored is damaged, or no JSON object."""
        try:
            return isinstance(self._decoded(), dict)
        except ValueError:
            return False

    def _decoded(self) -> dict[str, Any]:
        if self._members is None:
            self._members = json.loads(unpack(self._encoded))
        return self._members


class _SqlitePacked(UserDefinedType[Mapping[str, Any]]):
    """Text or a blob, which SQLite keeps in any column as it is. Declared as JSON, and not one of SQLAlchemy's JSON
    types, in whose place it would put its own."""

    __visit_name__ = "JSON"

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], str | bytes]:
        return pack

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str | bytes], PackedObject]:
        return PackedObject


class _PostgresPacked(postgresql.BYTEA):
    """Bytes: of the text or of what is packed."""

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], bytes]:
        def processed(value: Mapping[str, Any]) -> bytes:
            packed = pack(value)
            return packed.encode() if isinstance(packed, str) else packed

        return processed

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return PackedObject


class PackedJson(TypeDecorator[Mapping[str, Any]]):
    """A JSON object that is never NULL: JSON in SQLite, BYTEA in Postgres."""

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        own: TypeEngine[Any] = _PostgresPacked()
        if dialect.name == "sqlite":
            own = _SqlitePacked()
        return dialect.type_descriptor(own)
