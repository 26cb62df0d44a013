"""Who owns a data directory: one process at a time, which others may join.

Three files under `<data dir>/run`, each locked with flock(2), so that a process that is killed leaves no lock behind:

    owner.lock   exclusive: the owner, all its life; inside stands where it listens
    guests.lock  shared: each guest, as long as it uses the owner; exclusive: the owner while it starts, and once it
                 ends, which so waits for its guests, and they for it
    door.lock    exclusive: whoever finds out which of both it is, and an owner that ends

An owner takes guests.lock before it leaves the door. So who finds an owner, and then gets guests.lock, finds it
listening, or gone: there is nothing to poll for.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import shutil
import socket
import tempfile
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict

from dgx_music.errors import FailedPrecondition, Unavailable

PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]{1,100}")
"""What can be a Unix socket's path on every system (at most 103 bytes), and stands in a gRPC address unescaped."""
CONNECT_SECONDS = 5.0
"""How long an owner may take to accept a connection."""
ROUNDS = 10
"""How often an owner may be found gone just before another is found in its place."""


class Lock:
    """A file that is locked as long as it is open."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a+b")  # noqa: SIM115  # Its life is the lock's, which ends in release().

    def acquire(self, how: int) -> None:
        """`how`: fcntl.LOCK_EX or LOCK_SH. Waits; raises BlockingIOError instead with LOCK_NB."""
        fcntl.flock(self._file, how)

    def try_acquire(self) -> bool:
        """Exclusively, without waiting."""
        try:
            self.acquire(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def read(self) -> bytes:
        self._file.seek(0)
        return self._file.read()

    def write(self, content: bytes) -> None:
        self._file.truncate(0)
        self._file.write(content)
        self._file.flush()

    def release(self) -> None:
        self._file.close()


class _Note(TypedDict):
    """What stands in owner.lock."""

    socket: str | None
    pid: int
    lasting: bool


class _Place(ABC):
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    @abstractmethod
    def leave(self) -> None:
        """Gives the data directory up."""


@dataclass(slots=True)
class Guest(_Place):
    """This process uses the owner's server."""

    address: str
    owner_pid: int
    lasting: bool
    """Whether the owner serves until it is stopped, or ends after its own work."""
    _guests: Lock

    def leave(self) -> None:
        self._guests.release()


@dataclass(slots=True)
class Owner(_Place):
    """This process owns the data directory. Nobody joins before `let_in`."""

    socket_path: Path
    _door: Lock
    _owner: Lock
    _guests: Lock

    @property
    def address(self) -> str:
        """Where to listen."""
        return f"unix:{self.socket_path}"

    def let_in(self, *, lasting: bool) -> None:
        """The server listens: guests may join it."""
        self._tell(_Note(socket=str(self.socket_path), pid=os.getpid(), lasting=lasting))

    def turn_away(self) -> None:
        """This process serves no gateway: who comes is told so."""
        self._tell(_Note(socket=None, pid=os.getpid(), lasting=True))

    def _tell(self, note: _Note) -> None:
        self._owner.write(json.dumps(note).encode())
        self._guests.unlock()

    def alone(self) -> bool:
        """Whether there is no guest; if so, none comes any more."""
        return self._guests.try_acquire()

    async def guests_gone(self) -> None:
        """Waits until there is no guest; none comes after that."""
        loop, gone = asyncio.get_running_loop(), asyncio.Event()

        def wait() -> None:
            self._guests.acquire(fcntl.LOCK_EX)
            with suppress(RuntimeError):  # The owner was told to stop waiting, and its loop is closed.
                loop.call_soon_threadsafe(gone.set)

        # A thread of a pool would be waited for at exit, also by an owner that was told to stop waiting.
        threading.Thread(target=wait, name="guests", daemon=True).start()
        await gone.wait()

    def close_door(self) -> None:
        """The server ends: who comes now waits outside until the owner has left."""
        self._door.acquire(fcntl.LOCK_EX)

    def leave(self) -> None:
        _remove_socket(self.socket_path)
        self._owner.write(b"")
        for lock in (self._owner, self._guests, self._door):
            lock.release()


def enter(data_dir: Path) -> Owner | Guest:
    """Makes this process the owner of `data_dir`, or the guest of its owner; waits for one that starts or ends.

    Raises FailedPrecondition where the folder can't be written to, Unavailable where its owner does not answer.
    """
    run = data_dir / "run"
    try:
        run.mkdir(parents=True, exist_ok=True)
        for _ in range(ROUNDS):
            place = _try_enter(run)
            if place is not None:
                return place
    except OSError as error:
        raise FailedPrecondition(
            f"can't keep anything in {data_dir}: {error.strerror or error}; "
            "choose another folder by --data-dir or DGX_MUSIC_DATA_DIR",
            reason="DATA_DIR_UNUSABLE",
            metadata={"data_dir": str(data_dir)},
        ) from error
    raise Unavailable(
        f"the dgx-music process that owns {data_dir} does not answer: stop it, then try again",
        reason="OWNER_SILENT",
        metadata={"data_dir": str(data_dir)},
    )


def _try_enter(run: Path) -> Owner | Guest | None:
    door, owner, guests = (Lock(run / f"{name}.lock") for name in ("door", "owner", "guests"))
    door.acquire(fcntl.LOCK_EX)
    if owner.try_acquire():
        guests.acquire(fcntl.LOCK_EX)  # A killed owner's guests notice at once that it is gone.
        if (note := _read_note(owner)) is not None and note["socket"] is not None:
            _remove_socket(Path(note["socket"]))  # Of an owner that was killed.
        door.unlock()
        return Owner(_socket_path(run), door, owner, guests)
    door.release()
    guests.acquire(fcntl.LOCK_SH)
    note = _read_note(owner)
    owner.release()
    if note is not None and note["socket"] is not None and _answers(note["socket"]):
        return Guest(f"unix:{note['socket']}", note["pid"], note["lasting"], guests)
    guests.release()
    if note is not None and note["socket"] is None:
        raise FailedPrecondition(
            f"process {note['pid']} serves the audio files in {run.parent} on its own: "
            "set DGX_MUSIC_GATEWAY_ADDRESS to the gateway before it, or choose another folder by --data-dir",
            reason="DATA_DIR_IN_USE",
            metadata={"data_dir": str(run.parent), "pid": str(note["pid"])},
        )
    return None


def _read_note(owner: Lock) -> _Note | None:
    """Where the owner listens. None where it does not, or was killed while it wrote this."""
    try:
        note: _Note = json.loads(owner.read())
    except ValueError:
        return None
    return note


def _socket_path(run: Path) -> Path:
    path = run / "gateway.sock"
    if PLAIN_PATH.fullmatch(str(path)):
        return path
    return Path(tempfile.mkdtemp(prefix="dgx-music-", dir="/tmp")) / "gateway.sock"


def _remove_socket(path: Path) -> None:
    path.unlink(missing_ok=True)
    if path.parent.name.startswith("dgx-music-"):
        shutil.rmtree(path.parent, ignore_errors=True)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            probe.connect(path)
        except (OSError, TimeoutError):
            return False
        return True
