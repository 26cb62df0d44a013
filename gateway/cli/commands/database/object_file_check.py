"""Compares the rows of the database with the objects of a library in object storage."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain, islice

from export_service.library.inventory import FileKind
from export_service.objects.bucket import Bucket, StoredObject
from export_service.objects.library_objects import SHA256, LibraryObject, by_owner, find_current
from export_service.objects.object_errors import ObjectMissing, ObjectReplaced
from export_service.objects.object_inventory import hash_object
from export_service.objects.object_keys import ObjectKey, parse_key
from export_service.objects.write_check import PROBE_KEY
from gateway.cli.commands.database.suspects import Suspect
from storage_service.db.database import Database
from storage_service.maintenance.file_records import FileOwner, find_file_owners, iter_completed_files
from storage_service.maintenance.integrity import Finding
from storage_service.states import GenerationStatus

UPLOAD_TIME = timedelta(hours=1)
"""How old an object is at least that is reported as left over: it may just be on its way in or out."""
OWNERS_PER_QUERY = 500
_MISSING_REMEDY = "restore the object, or delete its generation: dgx-music files cleanup --missing --yes"
_CHANGED_REMEDY = "restore the object, or record it as it is by setting a tag: dgx-music files tag"
_ORPHAN_REMEDY = "delete it, if it is an hour old: dgx-music files cleanup --orphans --yes"
_CLEANUP_REMEDY = "any cleanup deletes it, such as dgx-music files cleanup --orphans --yes"
_FOREIGN_REMEDY = "move it elsewhere, or delete it"
_UNFINISHED = GenerationStatus.PENDING, GenerationStatus.PROCESSING


class ObjectFileCheck:
    """Lists the bucket once at each look. Memory use grows with the number of objects, by some 300 bytes each."""

    def __init__(self, database: Database, bucket: Bucket, *, read_files: bool) -> None:
        """With `read_files`, objects are read completely and compared with their recorded hashes."""
        self._database, self._bucket, self._read_files = database, bucket, read_files

    def find_suspects(self) -> dict[str, Suspect]:
        """Returns the problem with each row's file and with each object that has one. Raises Unavailable."""
        present, suspects = dict[str, StoredObject](), dict[str, Suspect]()
        attempts = dict[str, int]()
        for where, problem, remedy, version in chain(self._check_objects(present, attempts), self._check_rows(present)):
            suspects[f"{where}: {problem}"] = Suspect(Finding(where, problem, remedy), version)
        return suspects

    def _check_objects(
        self, present: dict[str, StoredObject], attempts: dict[str, int]
    ) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
        """Yields the problems of objects. Notes the outputs in `present`, and their attempts in `attempts`."""
        for kind in (FileKind.OUTPUT, FileKind.RENDER):
            groups = by_owner(self._list(kind, present))
            while some := list(islice(groups, OWNERS_PER_QUERY)):
                owners = find_file_owners(self._database, [owner_id for owner_id, _ in some])
                for owner_id, objects in some:
                    if kind is FileKind.OUTPUT:
                        current = find_current(objects)
                        attempts[owner_id] = 0 if current is None else current.key.attempt
                    for one in objects:
                        for problem, remedy in self._check(one, owners.get(owner_id), attempts.get(owner_id, 0)):
                            yield f"object {one.stored.key}", problem, remedy, (one.stored.e_tag,)
        for stored in self._bucket.list_objects(""):
            if parse_key(stored.key) is None and not stored.key.startswith(PROBE_KEY):
                yield f"object {stored.key}", "is not part of the library", _FOREIGN_REMEDY, (stored.e_tag,)

    def _list(self, kind: FileKind, present: dict[str, StoredObject]) -> Iterator[LibraryObject]:
        for stored in self._bucket.list_objects(kind):
            key = parse_key(stored.key)
            if key is not None:
                if kind is FileKind.OUTPUT:
                    present[stored.key] = stored
                yield LibraryObject(key, stored)

    def _check(self, one: LibraryObject, owner: FileOwner | None, attempt: int) -> Iterator[tuple[str, str]]:
        """Yields the problem of an object, if there is one, and what to do about it."""
        if owner is None:
            yield "belongs to no generation", _ORPHAN_REMEDY
        elif one.key.attempt != attempt:
            if one.stored.modified_at < datetime.now(UTC) - UPLOAD_TIME:
                yield "is left over from an attempt that a newer one has replaced", _CLEANUP_REMEDY
        elif one.key.kind is FileKind.RENDER:
            if self._read_files and one.key.is_audio and self._has_changed(one, None):
                yield "has changed since it was written", "delete it, and render it again"
        elif owner.status is GenerationStatus.COMPLETED:
            if not _is_recorded(one.key, owner.path or ""):
                yield f"is not the file of its generation, which is {owner.path}", _FOREIGN_REMEDY
        elif owner.status not in _UNFINISHED:
            is_cancelled = owner.status is GenerationStatus.CANCELLED
            remedy = _ORPHAN_REMEDY if is_cancelled else f"delete both: dgx-music delete {one.key.owner_id}"
            yield f"belongs to a generation that is {owner.status.name}", remedy

    def _check_rows(self, present: dict[str, StoredObject]) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
        """Yields the problems of COMPLETED generations with their files."""
        for file in iter_completed_files(self._database):
            where = f"generation {file.generation_id}"
            stored = present.get(file.path or "")
            if file.path is None:
                continue  # A problem of the row, which is reported as such.
            if stored is None:
                yield where, f"its file {file.path} is missing", _MISSING_REMEDY, ()
            elif file.size_bytes is not None and stored.size_bytes != file.size_bytes:
                problem = f"its file {file.path} has {stored.size_bytes} bytes, not {file.size_bytes}"
                yield where, problem, _CHANGED_REMEDY, (stored.e_tag,)
            elif self._read_files and file.sha256 is not None:
                key = parse_key(stored.key)
                assert key is not None
                if self._has_changed(LibraryObject(key, stored), file.sha256):
                    problem = f"its file {file.path} has changed since it was written"
                    yield where, problem, _CHANGED_REMEDY, (stored.e_tag,)

    def _has_changed(self, one: LibraryObject, expected: str | None) -> bool:
        """Reads an object. `expected` is its SHA-256, by default that of what was uploaded."""
        try:
            if expected is None:
                expected = self._bucket.head(one.stored.key)[1].get(SHA256, "")
            return hash_object(self._bucket, one) != expected
        except (ObjectMissing, ObjectReplaced):
            return False  # It was deleted or replaced meanwhile.


def _is_recorded(key: ObjectKey, recorded: str) -> bool:
    """Returns whether it is the key of the recorded file, or of its manifest."""
    return str(key) == recorded or (not key.is_audio and key.stem == recorded.rpartition(".")[0])
