"""What a request may hold. Each check names the field by its path in the request and says what would do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from dgx_music.errors import InvalidArgument
from service_runtime.validation import check_text

MAX_NAME_CHARACTERS = 200
MAX_PATH_CHARACTERS = 4096
MAX_ERROR_CHARACTERS = 2000
MAX_MODELS = 1000
MAX_METADATA_BYTES = 16 * 1024
MAX_MERGED_METADATA_BYTES = 64 * 1024
"""Of what updates may come to; there has to be room beside what a caller and a worker left."""


def check_name(field: str, name: str) -> None:
    """1 to 200 characters, not all blank, without control characters."""
    if not name.strip():
        raise InvalidArgument(field, "must not be empty")
    check_text(field, name, MAX_NAME_CHARACTERS)


def check_models(field: str, names: Sequence[str]) -> None:
    """At least one model name."""
    if not 1 <= len(names) <= MAX_MODELS:
        raise InvalidArgument(field, f"must name 1 to {MAX_MODELS} models, not {len(names)}")
    for index, name in enumerate(names):
        check_name(f"{field}[{index}]", name)


def check_file_path(field: str, path: str) -> None:
    """A path that stays below the library's folder."""
    if not path.strip():
        raise InvalidArgument(field, "must not be empty; say where the file is, relative to the library's folder")
    check_text(field, path, MAX_PATH_CHARACTERS)
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise InvalidArgument(field, "must stay below the library's folder: relative, and without '..'")


def check_metadata(field: str, metadata: Mapping[str, Any], max_bytes: int | None = MAX_METADATA_BYTES) -> None:
    """What JSON can hold, at most 16 KiB of it, or what is said; None: any."""
    try:
        size = len(json.dumps(metadata, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError) as error:
        raise InvalidArgument(field, f"is not what JSON can hold: {error}") from error
    if max_bytes is not None and size > max_bytes:
        raise InvalidArgument(field, f"has {size} bytes as JSON; at most {max_bytes} are taken")
