"""Finished files, read from their beginning to their end."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any


def in_sequence(file: Path | int) -> Any:
    """An open soundfile.SoundFile of a path, or of a descriptor, which stays open, that can only be read on.

    soundfile follows every read with a seek to where it is anyway. An MP3 decoder begins anew at a seek, which can be
    heard, and in Vorbis libsndfile 1.2.2 lands beside the frame.
    """
    return _in_sequence()(file, closefd=isinstance(file, Path))


@cache
def _in_sequence() -> type[Any]:
    import soundfile

    class InSequence(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

    return InSequence
