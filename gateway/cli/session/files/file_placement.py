"""Puts finished files into a folder of the user's, without overwriting anything."""

from __future__ import annotations

import errno
import fcntl
import filecmp
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.file_names import collision_key

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""What linking gives on file systems such as FAT."""


def place_file(part: Path, names: Iterable[str], companion: str = "") -> tuple[Path, bool]:
    """Gives the complete file `part` the first of `names` that is free in its folder, also if others do so meanwhile.

    A name that differs from an existing one only in case is not free. With the extension of a `companion`, neither is
    one whose companion exists. If a file with the same content already has one
    of the names, `part` is deleted. Returns the path, and whether the file is new. Raises OSError.
    """
    folder = part.parent
    with _locked(folder):
        taken: defaultdict[str, list[str]] = defaultdict(list)
        for name in os.listdir(folder):
            taken[collision_key(name)].append(name)
        for name in names:
            others = taken.get(collision_key(name), [])
            for other in others:
                if _is_same_content(part, folder / other):
                    part.unlink()
                    return folder / other, False
            if companion:
                others = others + taken.get(collision_key(str(Path(name).with_suffix(companion))), [])
            if not others and _move_exclusively(part, folder / name):
                return folder / name, True
    raise FileExistsError(f"no free name is left in {folder}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other processes that place files from choosing a name at the same time."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # Some network file systems have no locks; the same name is still given only once.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_same_content(part: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(part, other, shallow=False)
    except OSError:
        return False


def _move_exclusively(part: Path, path: Path) -> bool:
    """Renames a file. Returns False if the new name exists, which `os.rename` would overwrite."""
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        return _move_to_reserved_name(part, path)
    part.unlink()
    return True


def _move_to_reserved_name(part: Path, path: Path) -> bool:
    """Does the same where there are no hard links: an empty file holds the name until the file replaces it."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    try:
        os.replace(part, path)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True
