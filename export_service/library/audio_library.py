"""What the rest of the service needs of a library, wherever its files are: in folders of the data directory (`Library`,
`RenderStore`, `Inventory`), or in object storage (`export_service.objects`).

Methods block: call them in a thread. Besides what they say, they raise errors of the disk (OSError) and of the object
storage (Unavailable, ResourceExhausted).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Protocol

from export_service.library.inventory import AudioInfo, FileKind, LibraryFile
from export_service.library.mastered_file import MasteredFile
from export_service.library.renders import Render
from export_service.library.verification import VerificationResult
from service_runtime.rpc.paging import Page


class RangeFile(Protocol):
    """An open file whose bytes can be read from anywhere. It stays as it is, whatever replaces it meanwhile, or reading
    raises NotFound.
    """

    name: str
    size_bytes: int

    def read_at(self, offset: int, size: int) -> bytes:
        """Returns at most `size` bytes; none past the end."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class SignedUrl:
    """A URL with which anybody can download a file."""

    url: str
    file_name: str
    file_size_bytes: int


class Renders(Protocol):
    """The renders of a library."""

    def staging_path(self, render_id: str) -> Path:
        """Returns the path to write a render to before it is committed."""

    def find(self, generation_id: str, render_id: str) -> Path:
        """Returns the path of the render's file, for reading. Raises NotFound."""

    def load(self, generation_id: str, render_id: str) -> Render | None:
        """Returns the render, or None if it does not exist or its description is from an incompatible version."""

    def iter_renders(self, generation_id: str) -> Iterator[tuple[str, Path, str]]:
        """Yields id, path and original SHA-256 of the generation's renders; "" if the hash is unknown."""


class AudioLibrary(Protocol):
    """The exported files with their renders, or the clips, whose ids then stand for those of generations."""

    @property
    def renders(self) -> Renders: ...

    def open(self) -> None:
        """Creates what is missing, and removes incomplete files that an earlier process left."""

    def check(self) -> None:
        """Raises an error if files can't be written."""

    def staging_path(self, generation_id: str, attempt: int) -> Path:
        """Returns the path to write an attempt's file to before it is committed."""

    def commit(self, staged: Path, generation_id: str, extension: str, check_permitted: Callable[[], None]) -> Path:
        """Moves the complete file into the library, durably, and returns its path. Replaces the file of an earlier
        attempt of the same generation, with its renders; never that of a later one.

        `check_permitted` raises to veto it.
        """

    def add_render(
        self, staged: Path, generation_id: str, source: BinaryIO, render_id: str, extension: str, file: MasteredFile
    ) -> Path:
        """Moves a complete render of the open file `source` into the library, durably, and returns its path.

        Raises NotFound if `source` is no longer the generation's file.
        """

    def replace(self, staged: Path, generation_id: str, source: BinaryIO) -> None:
        """Moves an edited copy of the open file `source` to its place, durably.

        Raises NotFound if `source` is no longer the generation's file.
        """

    def replace_render(self, staged: Path, generation_id: str, source: BinaryIO, render: Render) -> None:
        """Like `replace`, with the render and its new description."""

    def relative_path(self, path: Path) -> str:
        """Returns the path by which clients know a file: within the data directory, or its key in the bucket."""

    def manifest_path(self, path: Path, sha256: str) -> str:
        """Returns the relative path of the manifest beside a file with this hash, if it has one."""

    def find(self, generation_id: str) -> Path | None:
        """Returns the path of the generation's file, for reading, or None if there is none."""

    def locate(self, generation_id: str) -> Path:
        """Returns the path of the generation's file, for reading. Raises NotFound, and Unavailable."""

    def find_attempt(self, generation_id: str) -> int:
        """Returns the number of the attempt that the generation's file is from; 0 if there is none that may be read."""

    def open_file(self, generation_id: str, render_id: str = "", *, manifest: bool = False) -> RangeFile | None:
        """Opens the generation's file, a render of it, or the manifest beside it, for a download; None if there is no
        file. Raises NotFound if there is no such render or no manifest.
        """

    def sign_url(self, generation_id: str, render_id: str, expires: timedelta) -> SignedUrl | None:
        """Returns a URL for a download of the generation's file or a render of it, which expires; None if there is no
        file. Raises NotFound if there is no such render, FailedPrecondition if the library has no URLs.
        """

    def delete(self, generation_id: str) -> bool:
        """Deletes the generation's file and its renders, durably. Returns whether there was a file."""

    def delete_render(self, generation_id: str, render_id: str) -> None:
        """Deletes one render, durably. Raises NotFound."""


class FileInventory(Protocol):
    """Lists the files of a library."""

    data_dir: Path

    def iter_files(self, kinds: Iterable[FileKind] = (), after: str = "") -> Iterator[LibraryFile]:
        """Yields the files of these kinds, or of all kinds if none are given.

        With `after`, the relative path of a file, yields only the files that come after it.
        """

    def list_page(self, kinds: Sequence[FileKind], page: Page) -> tuple[list[LibraryFile], str]:
        """Returns the page's files and the token of the next page, "" on the last one.

        Raises InvalidArgument if the page size is not valid, or if the token is not from a list of the same kinds.
        """

    def is_current(self, file: LibraryFile) -> bool:
        """Returns whether the file is still as it was when it was listed."""

    def read_infos(self, files: Sequence[LibraryFile]) -> list[AudioInfo | None]:
        """Returns format and length of each file; None for one that can't be read."""

    def find_orphans(self, files: Iterable[LibraryFile]) -> Collection[LibraryFile]:
        """Returns the renders among the files whose generations have no file."""

    def remove_remains(self) -> None:
        """Removes what no longer belongs to any file, such as empty folders."""

    def verify(self, generation_id: str, sha256: str, *, presence_only: bool) -> Iterator[VerificationResult]:
        """Yields the result for the generation's file, then for each of its renders.

        The file is compared with `sha256`, unless that is empty; a render with the hash noted with it.
        """


@dataclass(frozen=True)
class Libraries:
    """The libraries of an export service, and the list of all of their files."""

    outputs: AudioLibrary
    clips: AudioLibrary
    inventory: FileInventory
