"""The library in object storage: commits, replacements, reads and deletions, by several export servers at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from dgx_music.errors import ServiceError
from export_service.library.audio_library import SignedUrl
from export_service.library.inventory import FileKind
from export_service.library.manifests import manifest_not_found
from export_service.library.mastered_file import MasteredFile
from export_service.library.renders import Render
from export_service.library.store import file_not_found, file_replaced
from export_service.objects.bucket import Bucket
from export_service.objects.library_objects import (
    SHA256,
    LibraryObject,
    Upload,
    describe_render,
    find_current,
    list_of_owner,
)
from export_service.objects.object_cache import ObjectCache
from export_service.objects.object_errors import ObjectMissing, ObjectReplaced
from export_service.objects.object_file import ObjectFile
from export_service.objects.object_keys import ObjectKey, folder_of, manifest_key, parse_key
from export_service.objects.object_renders import ObjectRenders, fetch_current
from export_service.objects.write_check import WriteCheck
from export_service.streaming.recording import AttemptSpec, superseded_error
from service_runtime.failpoints import failpoint
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

CLIP_EXTENSION = ".wav"


class ObjectLibrary:
    """The generations' files with their renders, or the clips. Methods block: call them in a thread.

    Nothing is locked: an attempt writes keys of its own, the newest attempt is the one that is read, and what replaces
    an object does so only if that is still the version that was read.
    """

    def __init__(
        self, bucket: Bucket, cache: ObjectCache, write_check: WriteCheck, kind: FileKind = FileKind.OUTPUT
    ) -> None:
        self._bucket, self._cache, self._write_check, self._kind = bucket, cache, write_check, kind
        self.renders = ObjectRenders(bucket, cache, self._find_object)

    def open(self) -> None:
        """Creates the local folders and removes what an earlier process left in them. Needs no storage."""
        if self._kind is FileKind.OUTPUT:
            self._cache.open()

    def check(self) -> None:
        """Raises OSError or Unavailable if files can't be written."""
        self._cache.check()
        self._write_check.run()

    def staging_path(self, generation_id: str, attempt: int) -> Path:
        """Returns the path to write an attempt's file to before it is uploaded."""
        return self._cache.staging / f"{generation_id}.{attempt}.part"

    def commit(self, staged: Path, generation_id: str, extension: str, check_permitted: Callable[[], None]) -> Path:
        """Uploads the complete file, and returns the path of its copy. Then deletes the files and renders of earlier
        attempts.

        Raises Aborted if there is a newer attempt, also if that was uploaded meanwhile by another server: of two, the
        one that ends last sees the other. After an error, nothing is left of this attempt, unless the storage can't be
        reached; the next attempt deletes it then.
        """
        attempt = int(staged.name.split(".")[1]) if self._kind is FileKind.OUTPUT else 0
        upload = Upload.prepare(ObjectKey(self._kind, generation_id, attempt, "", extension), staged)
        previous = self._require_newest(generation_id, attempt)
        if previous:  # Renders of another file must not be found beside the new one.
            self._delete(list_of_owner(self._bucket, FileKind.RENDER, generation_id))
        check_permitted()
        failpoint("export.before_upload")
        try:
            stored = upload.send(self._bucket)
            failpoint("export.after_upload")
            others = self._require_newest(generation_id, attempt)
            check_permitted()
        except Exception:
            if not {one.stored.key for one in previous} & set(upload.keys):
                self._discard(upload.keys)
            raise
        self._discard(one.stored.key for one in others if one.stored.key not in upload.keys)
        return self._cache.adopt(staged, stored)

    def add_render(
        self, staged: Path, generation_id: str, source: BinaryIO, render_id: str, extension: str, file: MasteredFile
    ) -> Path:
        """Uploads a complete render of the open file `source`, and returns the path of its copy.

        Raises NotFound if `source` is no longer the generation's file.
        """
        key = self._require_unchanged(generation_id, source)
        render_key = ObjectKey(FileKind.RENDER, generation_id, key.attempt, render_id, extension)
        upload = Upload.prepare(render_key, staged, describe_render(file))
        failpoint("export.before_render_upload")
        try:
            stored = upload.send(self._bucket)
            failpoint("export.after_render_upload")
            self._require_unchanged(generation_id, source)
        except Exception:
            self._discard(upload.keys)
            raise
        return self._cache.adopt(staged, stored)

    def replace(self, staged: Path, generation_id: str, source: BinaryIO) -> None:
        """Uploads an edited copy of the open file `source` in its place.

        Raises NotFound if `source` is no longer the generation's file.
        """
        self._require_unchanged(generation_id, source)
        self._replace(staged, source, "")

    def replace_render(self, staged: Path, generation_id: str, source: BinaryIO, render: Render) -> None:
        """Like `replace`, with the render and its new description."""
        self._replace(staged, source, describe_render(render.file))

    def relative_path(self, path: Path) -> str:
        """Returns the key of the object that a path stands for."""
        return self._cache.version_of(path)[0]

    def manifest_path(self, path: Path, sha256: str) -> str:
        """Returns the key of the manifest beside a file with this hash, if it has one."""
        key = parse_key(self.relative_path(path))
        assert key is not None
        return str(manifest_key(key, sha256))

    def find(self, generation_id: str) -> Path | None:
        """Returns the path of a copy of the generation's file, or None if there is none."""
        try:
            return fetch_current(self._cache, lambda: self._require_object(generation_id))
        except ObjectMissing:
            return None

    def locate(self, generation_id: str) -> Path:
        """Returns the path of a copy of the generation's file. Raises NotFound."""
        path = self.find(generation_id)
        if path is None:
            raise file_not_found(generation_id)
        return path

    def find_attempt(self, generation_id: str) -> int:
        """Returns the number of the attempt that the generation's file is from; 0 if there is none, or if the storage
        can't be reached: a commit finds out in any case.
        """
        try:
            found = self._bucket.peek(folder_of(self._kind, generation_id))
        except ServiceError as error:
            log.warning("attempt_unknown", generation_id=generation_id, error=error.message)
            return 0
        keys = [key for key in (parse_key(one.key) for one in found) if key is not None and key.is_audio]
        return max((key.attempt for key in keys), default=0)

    def open_file(self, generation_id: str, render_id: str = "", *, manifest: bool = False) -> ObjectFile | None:
        """Opens the generation's file, a render of it, or the manifest beside it, straight from the bucket; None if
        there is no file. Raises NotFound if there is no such render or no manifest.
        """
        found = self.find_object(generation_id, render_id)
        if found is None:
            return None
        file_id = render_id or generation_id
        if not manifest:
            return ObjectFile(self._bucket, found.stored, f"{file_id}{found.key.extension}", file_id)
        try:
            _, attributes = self._bucket.head(found.stored.key)
            key = manifest_key(found.key, attributes.get(SHA256, ""))
            stored, _ = self._bucket.head(str(key))
        except ObjectMissing:
            raise manifest_not_found(file_id) from None
        return ObjectFile(self._bucket, stored, f"{file_id}{key.extension}", file_id)

    def sign_url(self, generation_id: str, render_id: str, expires: timedelta) -> SignedUrl | None:
        """Returns a URL of the generation's file or a render of it; None if there is no file.

        Raises NotFound if there is no such render.
        """
        found = self.find_object(generation_id, render_id)
        if found is None:
            return None
        name = f"{render_id or generation_id}{found.key.extension}"
        return SignedUrl(self._bucket.sign(found.stored.key, expires), name, found.stored.size_bytes)

    def find_object(self, generation_id: str, render_id: str = "") -> LibraryObject | None:
        """Returns the object of the generation's file, or of a render of it; None if there is no file.

        Raises NotFound if there is no such render.
        """
        return self.renders.find_object(generation_id, render_id) if render_id else self._find_object(generation_id)

    def delete(self, generation_id: str) -> bool:
        """Deletes the generation's files and renders, of all attempts. Returns whether there was a file."""
        files = self._list(generation_id)
        if self._kind is FileKind.OUTPUT:
            self._delete(list_of_owner(self._bucket, FileKind.RENDER, generation_id))
        self._delete(files)
        return any(one.key.is_audio for one in files)

    def delete_render(self, generation_id: str, render_id: str) -> None:
        """Deletes one render with its manifests. Raises NotFound."""
        stem = self.renders.find_object(generation_id, render_id).key.stem
        renders = list_of_owner(self._bucket, FileKind.RENDER, generation_id)
        self._delete(one for one in renders if one.key.stem == stem)

    def _list(self, generation_id: str) -> list[LibraryObject]:
        if self._kind is FileKind.OUTPUT:
            return list_of_owner(self._bucket, self._kind, generation_id)
        key = ObjectKey(self._kind, generation_id, 0, "", CLIP_EXTENSION)
        try:
            return [LibraryObject(key, self._bucket.head(str(key))[0])]
        except ObjectMissing:
            return []

    def _find_object(self, generation_id: str) -> LibraryObject | None:
        return find_current(self._list(generation_id))

    def _require_object(self, generation_id: str) -> LibraryObject:
        """Raises ObjectMissing."""
        found = self._find_object(generation_id)
        if found is None:
            raise ObjectMissing
        return found

    def _require_newest(self, generation_id: str, attempt: int) -> list[LibraryObject]:
        """Returns the objects of this attempt and of earlier ones. Raises Aborted if there are some of a newer one."""
        objects = self._list(generation_id)
        newest = max((one.key.attempt for one in objects if one.key.is_audio), default=0)
        if newest > attempt:
            raise superseded_error(AttemptSpec(generation_id, attempt, 0, 0, 0), newest)
        return [one for one in objects if one.key.attempt <= attempt]

    def _require_unchanged(self, generation_id: str, source: BinaryIO) -> ObjectKey:
        """Returns the key of the open file. Raises NotFound if it is no longer the generation's file."""
        found = self._find_object(generation_id)
        if found is None or self._cache.path_of(found.stored) != Path(source.name):
            raise file_replaced(generation_id)
        return found.key

    def _replace(self, staged: Path, source: BinaryIO, description: str) -> None:
        name, e_tag = self._cache.version_of(Path(source.name))
        key = parse_key(name)
        assert key is not None
        upload = Upload.prepare(key, staged, description)
        failpoint("export.before_edit_upload")
        try:
            stored = upload.send(self._bucket, replaced=e_tag)
        except (ObjectMissing, ObjectReplaced):
            self._discard(upload.keys[1:])
            raise file_replaced(key.render_id or key.owner_id) from None
        failpoint("export.after_edit_upload")
        siblings = list_of_owner(self._bucket, key.kind, key.owner_id)
        self._discard(
            one.stored.key for one in siblings if one.key.stem == key.stem and one.stored.key not in upload.keys
        )
        self._cache.adopt(staged, stored)

    def _delete(self, objects: Iterable[LibraryObject]) -> None:
        self._bucket.delete(one.stored.key for one in objects)

    def _discard(self, keys: Iterable[str]) -> None:
        """Deletes what is left over. Does not raise: it is never taken for the file, and the next attempt, a deletion
        or a cleanup removes it.
        """
        try:
            self._bucket.delete(keys)
        except ServiceError as error:
            log.warning("objects_left", error=error.message)
