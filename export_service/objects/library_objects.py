"""The objects of a library in its bucket: which of them is the file of a generation, and what is known about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from export_service.formats.provenance import staged_manifest_path
from export_service.library.filesystem import compute_sha256
from export_service.library.inventory import AudioInfo, FileKind, read_audio_info
from export_service.library.mastered_file import MasteredFile
from export_service.library.renders import MASTERED_FILE_JSON
from export_service.objects.bucket import Bucket, StoredObject
from export_service.objects.object_keys import ObjectKey, folder_of, manifest_key, parse_key
from service_runtime.audio.output_options import FileFormat

CONTENT_TYPES = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".aiff": "audio/aiff",
    ".caf": "audio/x-caf",
    ".w64": "audio/x-w64",
}
MAX_ATTRIBUTE_BYTES = 2048
"""Amazon's limit for all user metadata of an object: names and values."""
MAX_REASON_CHARACTERS = 300
"""Of the sentence in a description."""
SHA256, DESCRIPTION = "sha256", "description"
"""Names of attributes: the hash of the object, and of a render the JSON that describes it."""


@dataclass(frozen=True, slots=True)
class LibraryObject:
    """An object whose key is one of the library's."""

    key: ObjectKey
    stored: StoredObject


def list_library(bucket: Bucket, prefix: str, after: str = "") -> Iterator[LibraryObject]:
    """Yields the library's objects below a prefix, in the order of their keys."""
    for stored in bucket.list_objects(prefix, after):
        if (key := parse_key(stored.key)) is not None:
            yield LibraryObject(key, stored)


def list_of_owner(bucket: Bucket, kind: FileKind, owner_id: str) -> list[LibraryObject]:
    """Returns all objects of one kind that belong to a generation."""
    return list(list_library(bucket, folder_of(kind, owner_id)))


def by_owner(objects: Iterable[LibraryObject]) -> Iterator[tuple[str, list[LibraryObject]]]:
    """Groups objects of one kind, in the order of their keys, by generation or clip."""
    for owner_id, group in groupby(objects, key=lambda one: one.key.owner_id):
        yield owner_id, list(group)


def find_current(objects: Iterable[LibraryObject]) -> LibraryObject | None:
    """Returns which of the objects of one generation is its file: that of the newest attempt."""
    audio = [one for one in objects if one.key.is_audio]
    return max(audio, key=lambda one: (one.key.attempt, one.stored.modified_at), default=None)


def find_current_renders(objects: Iterable[LibraryObject], attempt: int | None = None) -> list[LibraryObject]:
    """Returns which of the objects of one generation are renders of this attempt's file; of the newest, if none is
    given.
    """
    audio = [one for one in objects if one.key.is_audio]
    newest = max((one.key.attempt for one in audio), default=0) if attempt is None else attempt
    return [one for one in audio if one.key.attempt == newest]


@dataclass(frozen=True)
class Upload:
    """A staged file, and the manifest beside it if it has one, on the way into the bucket."""

    key: ObjectKey
    path: Path
    sha256: str
    manifest: Path | None
    attributes: Mapping[str, str]

    @classmethod
    def prepare(cls, key: ObjectKey, staged: Path, description: str = "", manifest: Path | None = None) -> Upload:
        """`manifest` is where one may be, by default where staged files have theirs. Raises OSError."""
        sha256, manifest = compute_sha256(staged), manifest or staged_manifest_path(staged)
        file_id = key.render_id or key.owner_id
        attributes = {
            "Content-Type": CONTENT_TYPES.get(key.extension, "application/octet-stream"),
            "Content-Disposition": f'attachment; filename="{file_id}{key.extension}"',
            SHA256: sha256,
        }
        if (info := read_audio_info(staged)) is not None:
            attributes |= _info_attributes(info)
        if description:
            attributes[DESCRIPTION] = description
        return cls(key, staged, sha256, manifest if manifest.exists() else None, attributes)

    @property
    def keys(self) -> list[str]:
        """All keys that it writes."""
        return [str(self.key), *([] if self.manifest is None else [str(manifest_key(self.key, self.sha256))])]

    def send(self, bucket: Bucket, replaced: str | None = None) -> StoredObject:
        """Writes the manifest, and then the file, which is complete with it. The same errors as `Bucket.upload`."""
        if self.manifest is not None:
            bucket.upload(str(manifest_key(self.key, self.sha256)), self.manifest, {"Content-Type": "application/c2pa"})
        return bucket.upload(str(self.key), self.path, self.attributes, replaced)


def describe_render(file: MasteredFile) -> str:
    """Returns the description of a render as an attribute holds it: figures, names and one short sentence, so that all
    attributes are always within MAX_ATTRIBUTE_BYTES.
    """
    normalization = replace(file.normalization, reason=file.normalization.reason[:MAX_REASON_CHARACTERS])
    return MASTERED_FILE_JSON.dump_json(replace(file, normalization=normalization), by_alias=True).decode("ascii")


def _info_attributes(info: AudioInfo) -> dict[str, str]:
    return {
        "format": info.format.value,
        "sample-rate-hz": str(info.sample_rate_hz),
        "channels": str(info.channels),
        "frames": str(info.frames),
    }


def to_audio_info(attributes: Mapping[str, str]) -> AudioInfo | None:
    """Returns what the attributes say about a file; None if they don't."""
    try:
        return AudioInfo(
            FileFormat(attributes["format"]),
            int(attributes["sample-rate-hz"]),
            int(attributes["channels"]),
            int(attributes["frames"]),
        )
    except (KeyError, ValueError):
        return None
