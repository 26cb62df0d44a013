"""The libraries in folders of the data directory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from export_service.library.audio_library import Libraries
from export_service.library.inventory import AudioInfo, FileKind, Inventory, LibraryFile, read_audio_info, stat_file
from export_service.library.store import CLIPS, Library
from export_service.library.verification import VerificationResult, verify
from service_runtime.file_modes import PRIVATE, FileModes


class LocalInventory(Inventory):
    """The list of the files, and what is known about them."""

    def __init__(self, data_dir: Path, outputs: Library, clips: Library) -> None:
        super().__init__(data_dir)
        self._outputs, self._clips = outputs, clips

    def is_current(self, file: LibraryFile) -> bool:
        """Returns whether the file is still as it was when it was listed."""
        return stat_file(file.kind, file.path) == file

    def read_infos(self, files: Sequence[LibraryFile]) -> list[AudioInfo | None]:
        """Returns format and length of each file; None for one that can't be read."""
        return [read_audio_info(file.path) for file in files]

    def find_orphans(self, files: Iterable[LibraryFile]) -> Collection[LibraryFile]:
        """Returns the renders among the files whose generations have no file."""
        find = self._outputs.find
        return [file for file in files if file.kind is FileKind.RENDER and find(file.generation_id) is None]

    def remove_remains(self) -> None:
        """Removes the folders of days on which no file is left."""
        self._outputs.remove_empty_folders()
        self._clips.remove_empty_folders()

    def verify(self, generation_id: str, sha256: str, *, presence_only: bool) -> Iterator[VerificationResult]:
        """Yields the result for the generation's file, then for each of its renders."""
        return verify(self._outputs, generation_id, sha256, presence_only=presence_only)


def local_libraries(data_dir: Path, modes: FileModes = PRIVATE) -> Libraries:
    """Returns the libraries in the folders of `data_dir`."""
    outputs, clips = Library(data_dir, modes=modes), Library(data_dir, CLIPS, modes)
    return Libraries(outputs, clips, LocalInventory(data_dir, outputs, clips))
