"""Lists the library's objects: outputs, then clips, then renders, each by their ids.

Nothing but one answer of the storage, up to 1,000 objects, is in memory at a time, except where the methods say so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dgx_music.errors import ServiceError
from export_service.library.inventory import (
    KINDS,
    AudioInfo,
    FileKind,
    LibraryFile,
    decode_page_token,
    encode_page_token,
    hash_kinds,
)
from export_service.library.verification import FileCondition, VerificationResult
from export_service.objects.bucket import Bucket, skip_folder
from export_service.objects.library_objects import (
    SHA256,
    LibraryObject,
    by_owner,
    find_current,
    find_current_renders,
    list_library,
    to_audio_info,
)
from export_service.objects.object_cache import READ_BYTES, ObjectCache
from export_service.objects.object_errors import ObjectMissing, ObjectReplaced
from export_service.objects.object_library import ObjectLibrary
from service_runtime.rpc.paging import Page

PARALLEL_REQUESTS = 8
KEYS_AT_ONCE = 1000
UPLOAD_TIME = timedelta(hours=1)
"""How old an object is at least that is taken for a remain, and not for one that is being uploaded."""


class ObjectLibraryFile(LibraryFile):
    """An object; its path is that of a copy, which may not exist."""

    @property
    def generation_id(self) -> str:
        """Id of the generation, or of the clip."""
        match self.kind:
            case FileKind.OUTPUT:
                return self.path.parts[-2]
            case FileKind.RENDER:
                return self.path.parts[-3]
        return self.path.stem

    @property
    def day(self) -> str:
        """The UTC day on which it was written, as "YYYY-MM-DD"."""
        return f"{self.modified_at:%Y-%m-%d}"


class ObjectInventory:
    """The list of the objects of one library. Methods block: call them in a thread."""

    def __init__(self, data_dir: Path, bucket: Bucket, cache: ObjectCache, outputs: ObjectLibrary) -> None:
        self.data_dir = data_dir
        self._bucket, self._cache, self._outputs = bucket, cache, outputs

    def iter_files(self, kinds: Iterable[FileKind] = (), after: str = "") -> Iterator[LibraryFile]:
        """Yields the files of these kinds, or of all kinds if none are given; with `after`, a key, only what comes
        after it.
        """
        wanted = set(kinds) or set(KINDS)
        after_kind = KINDS.index(FileKind(after.partition("/")[0])) if after else -1
        for index, kind in enumerate(KINDS):
            if kind not in wanted or index < after_kind:
                continue
            position = after if index == after_kind else ""
            if position and kind is FileKind.OUTPUT:  # Other attempts come after it.
                position = skip_folder(position.rpartition("/")[0])
            for owner_id, objects in by_owner(list_library(self._bucket, kind, position)):
                for one in self._select(kind, owner_id, objects):
                    yield self._describe(one)

    def list_page(self, kinds: Sequence[FileKind], page: Page) -> tuple[list[LibraryFile], str]:
        """Returns the page's files and the token of the next page, "" on the last one.

        Raises InvalidArgument if the page size is not valid, or if the token is not from a list of the same kinds.
        """
        query_hash, limit, files = hash_kinds(kinds), page.limit, list[LibraryFile]()
        for file in self.iter_files(kinds, decode_page_token(page.token, query_hash) if page.token else ""):
            if len(files) == limit:
                return files, encode_page_token(self._cache.version_of(files[-1].path)[0], query_hash)
            files.append(file)
        return files, ""

    def is_current(self, file: LibraryFile) -> bool:
        """Returns whether the object is still as it was when it was listed."""
        key, e_tag = self._cache.version_of(file.path)
        try:
            return self._bucket.head(key)[0].e_tag == e_tag
        except ObjectMissing:
            return False

    def read_infos(self, files: Sequence[LibraryFile]) -> list[AudioInfo | None]:
        """Returns format and length of each file, as the object's attributes describe them; None if they don't."""
        with ThreadPoolExecutor(PARALLEL_REQUESTS, thread_name_prefix="objects") as executor:
            return list(executor.map(self._read_info, files))

    def find_orphans(self, files: Iterable[LibraryFile]) -> Collection[LibraryFile]:
        """Returns the renders among the files whose generations have no file. Memory use grows with the number of
        generations, by some 100 bytes each.
        """
        outputs = {owner_id for owner_id, _ in by_owner(list_library(self._bucket, FileKind.OUTPUT))}
        return [file for file in files if file.kind is FileKind.RENDER and file.generation_id not in outputs]

    def verify(self, generation_id: str, sha256: str, *, presence_only: bool) -> Iterator[VerificationResult]:
        """Yields the result for the generation's file, compared with `sha256` unless that is empty, then for each of
        its renders, compared with the hash of what was uploaded.
        """
        try:
            found = self._outputs.find_object(generation_id)
            renders = self._outputs.renders.list_current(generation_id)
        except ServiceError as error:
            yield VerificationResult(generation_id, "", FileCondition.UNREADABLE, problem=error.message)
            return
        if found is None:
            yield VerificationResult(generation_id, "", FileCondition.MISSING)
        else:
            yield self._verify(found, sha256, presence_only)
        for render in renders:
            yield self._verify(render, None, presence_only)

    def remove_remains(self) -> None:
        """Deletes files of attempts that newer ones have replaced, their renders, and manifests without a file, if they
        are an hour old. Memory use grows with the number of generations.
        """
        before, attempts, remains = datetime.now(UTC) - UPLOAD_TIME, dict[str, int](), list[str]()
        for kind in (FileKind.OUTPUT, FileKind.RENDER):
            for owner_id, objects in by_owner(list_library(self._bucket, kind)):
                if kind is FileKind.OUTPUT:
                    newest = find_current(objects)
                    attempts[owner_id] = attempt = 0 if newest is None else newest.key.attempt
                else:
                    attempt = attempts.get(owner_id, 0)
                stems = {one.key.stem for one in objects if one.key.is_audio}
                remains += [
                    one.stored.key
                    for one in objects
                    if (one.key.attempt < attempt or one.key.stem not in stems) and one.stored.modified_at < before
                ]
                if len(remains) >= KEYS_AT_ONCE:
                    self._bucket.delete(remains)
                    remains.clear()
        self._bucket.delete(remains)

    def _select(self, kind: FileKind, owner_id: str, objects: list[LibraryObject]) -> list[LibraryObject]:
        """Returns those of a generation's objects that are files of the library."""
        if kind is FileKind.RENDER:
            return find_current_renders(objects)
        current = find_current(objects)
        return [] if current is None else [current]

    def _describe(self, one: LibraryObject) -> LibraryFile:
        stored = one.stored
        return ObjectLibraryFile(one.key.kind, self._cache.path_of(stored), stored.size_bytes, stored.modified_at)

    def _read_info(self, file: LibraryFile) -> AudioInfo | None:
        try:
            return to_audio_info(self._bucket.head(self._cache.version_of(file.path)[0])[1])
        except ObjectMissing:
            return None

    def _verify(self, found: LibraryObject, expected: str | None, presence_only: bool) -> VerificationResult:
        """`expected` is the hash of the file, empty if it is not known; by default that of what was uploaded."""
        ids, stored = (found.key.owner_id, found.key.render_id), found.stored
        path = self._cache.path_of(stored)
        if presence_only:
            return VerificationResult(*ids, FileCondition.PRESENT, path, stored.size_bytes)
        try:
            if expected is None:
                stored, attributes = self._bucket.head(stored.key)
                expected = attributes.get(SHA256, "")
            sha256 = hash_object(self._bucket, LibraryObject(found.key, stored))
        except (ObjectMissing, ObjectReplaced):
            return VerificationResult(*ids, FileCondition.MISSING)
        except ServiceError as error:
            return VerificationResult(*ids, FileCondition.UNREADABLE, path, problem=error.message)
        condition = FileCondition.INTACT if sha256 == expected else FileCondition.CHANGED
        if not expected:
            condition = FileCondition.PRESENT
        return VerificationResult(*ids, condition, path, stored.size_bytes, sha256)


def hash_object(bucket: Bucket, one: LibraryObject) -> str:
    """Returns the SHA-256 of the object's content. Raises ObjectMissing and ObjectReplaced."""
    sha256, position = hashlib.sha256(), 0
    while data := bucket.read_range(one.stored, position, READ_BYTES):
        sha256.update(data)
        position += len(data)
    return sha256.hexdigest()
