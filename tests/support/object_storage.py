"""Gives what tests look for in a bucket: its keys, and whether each object is what was uploaded."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from export_service.objects.write_check import PROBE_KEY

if TYPE_CHECKING:
    from obstore.store import S3Store


def library_keys(store: S3Store) -> set[str]:
    """Returns the keys of all objects except that by which services find out whether they can write."""
    return {meta["path"] for meta in store.list().collect()} - {PROBE_KEY}


def read_hash(store: S3Store, key: str) -> str:
    """Returns the SHA-256 of an object, and checks that it is the one noted with it."""
    found = store.get(key)
    sha256 = hashlib.sha256(found.bytes()).hexdigest()
    assert found.attributes["sha256"] == sha256
    return sha256
