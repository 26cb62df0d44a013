"""The libraries in object storage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export_service.library.audio_library import Libraries
from export_service.library.inventory import FileKind
from export_service.objects.bucket import Bucket
from export_service.objects.object_cache import ObjectCache
from export_service.objects.object_inventory import ObjectInventory
from export_service.objects.object_library import ObjectLibrary
from export_service.objects.write_check import WriteCheck


def object_libraries(data_dir: Path, bucket: Bucket, cache_bytes: int, is_in_use: Callable[[str], bool]) -> Libraries:
    """Returns the libraries in the bucket, with copies of up to `cache_bytes` in `data_dir`.

    `is_in_use` returns whether a file of a generation or clip is open, or about to be opened.
    """
    cache, write_check = ObjectCache(data_dir, bucket, cache_bytes, is_in_use), WriteCheck(bucket)
    outputs = ObjectLibrary(bucket, cache, write_check)
    clips = ObjectLibrary(bucket, cache, write_check, FileKind.CLIP)
    return Libraries(outputs, clips, ObjectInventory(data_dir, bucket, cache, outputs))
