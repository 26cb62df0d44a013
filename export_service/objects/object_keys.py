"""The keys of the library's objects:

    outputs/<generation id>/<attempt>.<extension>
    renders/<generation id>/<attempt>/<render id>.<extension>
    clips/<clip id>.wav

An attempt has keys of its own, so that one that ends late never replaces the file of a newer one; the file of the
highest attempt is the generation's. The manifest of a file has the first 16 digits of the file's SHA-256 before its
extension `.c2pa`, so that it is never taken for that of another version.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from export_service.formats.codecs import EXTENSIONS
from export_service.formats.provenance import MANIFEST_EXTENSION
from export_service.library.inventory import FileKind

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_NAME = r"\.(?:(?P<digest>[0-9a-f]{16})\.)?(?P<extension>[0-9a-z]+)"
_PATTERNS = (
    re.compile(rf"(?P<kind>outputs)/(?P<owner>{_UUID})/(?P<attempt>\d{{1,10}}){_NAME}"),
    re.compile(rf"(?P<kind>renders)/(?P<owner>{_UUID})/(?P<attempt>\d{{1,10}})/(?P<render>{_UUID}){_NAME}"),
    re.compile(rf"(?P<kind>clips)/(?P<owner>{_UUID}){_NAME}"),
)
DIGEST_CHARACTERS = 16
AFTER_ALL_NAMES = "~"
"""Comes after all characters of names, in the order of keys."""


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """A key, in parts."""

    kind: FileKind
    owner_id: str
    """Id of the generation or clip."""
    attempt: int
    """0 for a clip."""
    render_id: str
    """Empty for other kinds."""
    extension: str
    """With its dot."""
    digest: str = ""
    """Of a manifest: the beginning of the SHA-256 of its file."""

    @property
    def is_audio(self) -> bool:
        """Whether it is that of an audio file, and not of a manifest."""
        return self.extension in EXTENSIONS

    @property
    def stem(self) -> str:
        """The key without digest and extension: what a file and its manifests have in common."""
        folder = folder_of(self.kind, self.owner_id)
        match self.kind:
            case FileKind.OUTPUT:
                return f"{folder}/{self.attempt}"
            case FileKind.RENDER:
                return f"{folder}/{self.attempt}/{self.render_id}"
        return folder

    def __str__(self) -> str:
        return f"{self.stem}{f'.{self.digest}' if self.digest else ''}{self.extension}"


def folder_of(kind: FileKind, owner_id: str) -> str:
    """Returns the beginning of the keys of a generation's files of one kind; of a clip, the beginning of its name."""
    return f"{kind}/{owner_id}"


def manifest_key(key: ObjectKey, sha256: str) -> ObjectKey:
    """Returns the key of the manifest beside a file with this hash."""
    digest = sha256[:DIGEST_CHARACTERS]
    return ObjectKey(key.kind, key.owner_id, key.attempt, key.render_id, MANIFEST_EXTENSION, digest)


def parse_key(key: str) -> ObjectKey | None:
    """Returns the parts of a key, or None if it is not one of the library's."""
    for pattern in _PATTERNS:
        if found := pattern.fullmatch(key):
            parts = found.groupdict()
            extension, digest = f".{parts['extension']}", parts["digest"] or ""
            if (extension not in EXTENSIONS) if not digest else (extension != MANIFEST_EXTENSION):
                return None
            attempt, render_id = int(parts.get("attempt") or 0), parts.get("render") or ""
            return ObjectKey(FileKind(parts["kind"]), parts["owner"], attempt, render_id, extension, digest)
    return None
