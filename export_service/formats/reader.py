"""Reads audio files from their start to their end."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from export_service.formats.native_file import NativeFileObject


def open_sequential(file: Path | int | NativeFileObject) -> Any:
    """Opens a soundfile.SoundFile that can only be read forwards, from a path, or from a descriptor or a file object,
    which stays open when the file is closed.

    soundfile follows every read with a seek to the current position. At a seek an MP3 decoder starts over, which can be
    audible, and in Vorbis libsndfile 1.2.2 lands next to the requested frame.
    """
    return _sequential_file_class()(file, closefd=isinstance(file, Path))


@cache
def _sequential_file_class() -> type[Any]:
    import soundfile

    class SequentialSoundFile(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

    return SequentialSoundFile
