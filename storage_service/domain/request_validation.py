"""Validation of requests. Each error names the field by its path in the request and what is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from dgx_music.address import check_tcp_address
from dgx_music.errors import InvalidArgument
from dgx_music.limits import MAX_NAME_CHARACTERS as MAX_NAME_CHARACTERS
from service_runtime.validation import check_text

_SHA256 = re.compile(r"[0-9a-f]{64}")

MAX_PATH_CHARACTERS = 4096
MAX_ERROR_CHARACTERS = 2000
MAX_MODELS = 1000
MAX_METADATA_BYTES = 16 * 1024
MAX_MERGED_METADATA_BYTES = 64 * 1024
"""The limit after updates, which leaves room beside the metadata of the caller and of the worker."""


def check_name(field: str, name: str) -> None:
    """Requires 1 to 200 characters, not all blank and without control characters."""
    if not name.strip():
        raise InvalidArgument(field, "must not be empty")
    check_text(field, name, MAX_NAME_CHARACTERS)


def check_model_names(field: str, names: Sequence[str]) -> None:
    """Requires 1 to 1000 valid model names."""
    if not 1 <= len(names) <= MAX_MODELS:
        raise InvalidArgument(field, f"must name 1 to {MAX_MODELS} models, not {len(names)}")
    for index, name in enumerate(names):
        check_name(f"{field}[{index}]", name)


def check_file_path(field: str, path: str) -> None:
    """Requires a relative path that stays inside the library's folder."""
    if not path.strip():
        raise InvalidArgument(field, "must not be empty; send the path of the file relative to the library's folder")
    check_text(field, path, MAX_PATH_CHARACTERS)
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise InvalidArgument(field, "must be a relative path inside the library's folder, without '..'")


def check_server_address(field: str, address: str) -> str:
    """Returns the address. Requires the `host:port` of one server: others will connect to it."""
    check_text(field, address, MAX_NAME_CHARACTERS)
    try:
        return check_tcp_address(address)
    except ValueError as error:
        raise InvalidArgument(field, str(error)) from error


def check_sha256(field: str, digest: str) -> None:
    """Requires a SHA-256 in lower-case hex."""
    if not _SHA256.fullmatch(digest):
        raise InvalidArgument(field, f"must be a SHA-256 as 64 lower-case hex digits, not {digest[:80]!r}")


def check_metadata(field: str, metadata: Mapping[str, Any], max_bytes: int | None = MAX_METADATA_BYTES) -> None:
    """Requires values that JSON can represent, of at most `max_bytes` as JSON; None allows any size."""
    try:
        size = len(json.dumps(metadata, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError) as error:
        raise InvalidArgument(field, f"can't be represented as JSON: {error}") from error
    if max_bytes is not None and size > max_bytes:
        raise InvalidArgument(field, f"has {size} bytes as JSON, but the limit is {max_bytes}")
