"""Renders in object storage. A render and its description, an attribute of it, are one object: neither is ever without
the other, and both are replaced at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from dgx_music.errors import NotFound
from export_service.library.inventory import FileKind
from export_service.library.renders import MASTERED_FILE_JSON, Render
from export_service.objects.bucket import Bucket
from export_service.objects.library_objects import (
    DESCRIPTION,
    SHA256,
    LibraryObject,
    find_current_renders,
    list_of_owner,
)
from export_service.objects.object_cache import ObjectCache
from export_service.objects.object_errors import ObjectMissing, ObjectReplaced

FETCH_TRIES = 5


class ObjectRenders:
    """The renders of the generations' files. Methods block: call them in a thread."""

    def __init__(self, bucket: Bucket, cache: ObjectCache, find_source: Callable[[str], LibraryObject | None]) -> None:
        """`find_source` returns the object of the generation's own file."""
        self._bucket, self._cache, self._find_source = bucket, cache, find_source

    def staging_path(self, render_id: str) -> Path:
        """Returns the path to write a render to before it is uploaded."""
        return self._cache.staging / f"{render_id}.part"

    def list_current(self, generation_id: str) -> list[LibraryObject]:
        """Returns the objects of the renders of the generation's file as it is now."""
        source = self._find_source(generation_id)
        attempt = None if source is None else source.key.attempt
        return find_current_renders(list_of_owner(self._bucket, FileKind.RENDER, generation_id), attempt)

    def find_object(self, generation_id: str, render_id: str) -> LibraryObject:
        """Returns the object of a render. Raises NotFound."""
        for one in self.list_current(generation_id):
            if one.key.render_id == render_id:
                return one
        raise NotFound(
            "render", render_id, f"generation {generation_id} has no render with this id; create it with Render"
        )

    def find(self, generation_id: str, render_id: str) -> Path:
        """Returns the path of a copy of the render. Raises NotFound, and errors of the disk and the storage."""
        return fetch_current(self._cache, lambda: self.find_object(generation_id, render_id))

    def load(self, generation_id: str, render_id: str) -> Render | None:
        """Returns the render, or None if it does not exist or its description is from an incompatible version."""
        try:
            found = self.find_object(generation_id, render_id)
            stored, attributes = self._bucket.head(found.stored.key)
            file = MASTERED_FILE_JSON.validate_json(attributes.get(DESCRIPTION, ""))
        except (NotFound, ObjectMissing, ValueError):
            return None
        return Render(render_id, self._cache.path_of(stored), file)

    def iter_renders(self, generation_id: str) -> Iterator[tuple[str, Path, str]]:
        """Yields id, path and original SHA-256 of the generation's renders; "" if the hash is unknown."""
        for one in self.list_current(generation_id):
            try:
                stored, attributes = self._bucket.head(one.stored.key)
            except ObjectMissing:
                continue
            yield one.key.render_id, self._cache.path_of(stored), attributes.get(SHA256, "")


def fetch_current(cache: ObjectCache, find: Callable[[], LibraryObject]) -> Path:
    """Returns the path of a copy of what `find` finds, and finds it anew if it is replaced in between."""
    for _ in range(FETCH_TRIES - 1):
        try:
            return cache.fetch(find().stored)
        except (ObjectMissing, ObjectReplaced):
            continue
    try:
        return cache.fetch(find().stored)
    except (ObjectMissing, ObjectReplaced):
        raise NotFound("file", find().key.owner_id, "it is being replaced; try again") from None
