"""Decides which process owns a data directory: one at a time, which others may join as clients.

There are three files in `<data dir>/run`. Each is locked with flock(2), so that a killed process leaves no lock behind:

    owner.lock   held exclusively by the owner as long as it lives; the file says where the owner listens
    guests.lock  shared by the clients while they use the owner; held exclusively by the owner while it starts, and
                 again once it ends: so it waits for its clients, and they wait for it to start
    door.lock    held exclusively by a process that is finding out whether it becomes owner or client, and by an
                 owner that is ending

An owner locks guests.lock before it unlocks door.lock. So a process that finds an owner and then gets guests.lock finds
that owner either listening or gone, and never has to poll.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import re
import socket
import stat
import tempfile
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict

from dgx_music.errors import FailedPrecondition, Unavailable
from service_runtime.file_modes import make_data_dir, make_private_folder, open_private

SOCKET_FOLDER_PREFIX = "dgx-music-"
SOCKET_PATH_PATTERN = re.compile(r"[A-Za-z0-9/._-]{1,100}")
"""Paths that every system accepts for a Unix socket (at most 103 bytes) and that need no escaping in a gRPC address."""
CONNECT_TIMEOUT_SECONDS = 5.0
"""How long an owner may take to accept a connection."""
MAX_ATTEMPTS = 10
"""How often to try again if an owner ends just before it could be joined."""


class Lock:
    """A lock on a file, which is held at most as long as the file is open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "a+b", buffering=0, opener=open_private)  # noqa: SIM115  # release() closes it.

    def acquire(self, operation: int) -> None:
        """Waits for the lock. `operation` is fcntl.LOCK_EX or LOCK_SH; with LOCK_NB, raises BlockingIOError instead."""
        fcntl.flock(self._file, operation)

    def try_acquire(self) -> bool:
        """Acquires the lock exclusively without waiting. Returns whether it succeeded."""
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

    def release(self) -> None:
        """Unlocks and closes the file."""
        self._file.close()


class _OwnerRecord(TypedDict):
    """The JSON in owner.lock."""

    socket: str | None
    pid: int
    lasting: bool


class _Membership(ABC):
    """The use of a data directory, until the end of a `with` block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @abstractmethod
    def release(self) -> None:
        """Ends the use of the data directory."""


@dataclass(slots=True)
class Client(_Membership):
    """This process uses the owner's server."""

    address: str
    owner_pid: int
    is_persistent: bool
    """Whether the owner serves until it is stopped, rather than until its own command ends."""
    _client_lock: Lock

    def release(self) -> None:
        self._client_lock.release()


@dataclass(slots=True)
class Owner(_Membership):
    """This process owns the data directory. Clients have to wait until `accept_clients` is called."""

    socket_path: Path
    _entry_lock: Lock
    _owner_lock: Lock
    _client_lock: Lock

    @property
    def address(self) -> str:
        """The address to listen on."""
        return f"unix:{self.socket_path}"

    def accept_clients(self, *, is_persistent: bool) -> None:
        """Lets clients join; the server must be listening."""
        self._publish(_OwnerRecord(socket=str(self.socket_path), pid=os.getpid(), lasting=is_persistent))

    def refuse_clients(self) -> None:
        """Makes every process that tries to join fail with an explanation: this process serves no gateway."""
        self._publish(_OwnerRecord(socket=None, pid=os.getpid(), lasting=True))

    def _publish(self, record: _OwnerRecord) -> None:
        try:
            self._owner_lock.write(json.dumps(record).encode())
        except OSError as error:
            raise _unusable(self._owner_lock.path.parents[1], error) from error
        self._client_lock.unlock()

    def has_no_clients(self) -> bool:
        """Returns whether there is no client. If so, no client can join any more."""
        return self._client_lock.try_acquire()

    async def wait_for_clients(self) -> None:
        """Waits until the last client has ended. No client can join after that."""
        loop, all_gone = asyncio.get_running_loop(), asyncio.Event()

        def wait() -> None:
            self._client_lock.acquire(fcntl.LOCK_EX)
            with suppress(RuntimeError):  # The wait was interrupted and its event loop is closed.
                loop.call_soon_threadsafe(all_gone.set)

        # Not a thread pool: the interpreter waits for a pool's threads at exit, even if the wait was interrupted.
        threading.Thread(target=wait, name="wait-for-clients", daemon=True).start()
        await all_gone.wait()

    def stop_accepting_clients(self) -> None:
        """Makes every process that tries to join wait until this owner has released the data directory."""
        self._entry_lock.acquire(fcntl.LOCK_EX)

    def release(self) -> None:
        _remove_socket(self.socket_path)
        self._owner_lock.write(b"")
        for lock in (self._owner_lock, self._client_lock, self._entry_lock):
            lock.release()


def acquire_or_join(data_dir: Path) -> Owner | Client:
    """Makes this process the owner of `data_dir`, or a client of its owner. Waits for an owner that starts or ends.

    Raises FailedPrecondition if the folder can't be written to or its owner accepts no clients, and Unavailable if its
    owner does not answer.
    """
    run_folder = data_dir / "run"
    try:
        make_data_dir(data_dir)
        make_private_folder(run_folder)
        for _ in range(MAX_ATTEMPTS):
            membership = _try_acquire_or_join(run_folder)
            if membership is not None:
                return membership
    except OSError as error:
        raise _unusable(data_dir, error) from error
    raise Unavailable(
        f"the dgx-music process that owns {data_dir} does not answer: stop it and try again",
        reason="OWNER_SILENT",
        metadata={"data_dir": str(data_dir)},
    )


def running_owner(data_dir: Path) -> str | None:
    """Returns the address of the process that serves this data directory now, without joining it or writing anything;
    None if there is none."""
    try:
        record: _OwnerRecord = json.loads((data_dir / "run" / "owner.lock").read_bytes())
    except (OSError, ValueError):
        return None
    path = record["socket"]
    return f"unix:{path}" if path is not None and _accepts_connections(path) else None


def has_owner(data_dir: Path) -> bool:
    """Returns whether a process owns this data directory now, without joining it, waiting or writing anything."""
    try:
        with (data_dir / "run" / "owner.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _unusable(data_dir: Path, error: OSError) -> FailedPrecondition:
    way_out = "choose another folder with --data-dir or DGX_MUSIC_DATA_DIR"
    if error.errno == errno.ENOSPC:
        way_out = f"free up space, or {way_out}"
    return FailedPrecondition(
        f"can't write to {data_dir}: {error.strerror or error}; {way_out}",
        reason="DATA_DIR_UNUSABLE",
        metadata={"data_dir": str(data_dir)},
    )


def _try_acquire_or_join(run_folder: Path) -> Owner | Client | None:
    """Returns None if the owner ended before it could be joined."""
    entry_lock, owner_lock, client_lock = (Lock(run_folder / f"{name}.lock") for name in ("door", "owner", "guests"))
    entry_lock.acquire(fcntl.LOCK_EX)
    if owner_lock.try_acquire():
        client_lock.acquire(fcntl.LOCK_EX)  # Does not wait long: clients of a killed owner notice at once and end.
        if (record := _read_record(owner_lock)) is not None and record["socket"] is not None:
            _remove_socket(Path(record["socket"]))  # A killed owner left it behind.
        entry_lock.unlock()
        return Owner(_choose_socket_path(run_folder), entry_lock, owner_lock, client_lock)
    entry_lock.release()
    client_lock.acquire(fcntl.LOCK_SH)
    record = _read_record(owner_lock)
    owner_lock.release()
    if record is not None and record["socket"] is not None and _accepts_connections(record["socket"]):
        return Client(f"unix:{record['socket']}", record["pid"], record["lasting"], client_lock)
    client_lock.release()
    if record is not None and record["socket"] is None:
        raise FailedPrecondition(
            f"process {record['pid']} is an export server that uses {run_folder.parent}: set "
            "DGX_MUSIC_GATEWAY_ADDRESS to the gateway of that server, or choose another folder with --data-dir",
            reason="DATA_DIR_IN_USE",
            metadata={"data_dir": str(run_folder.parent), "pid": str(record["pid"])},
        )
    return None


def _read_record(owner_lock: Lock) -> _OwnerRecord | None:
    """Returns None if the owner has not written its record, or was killed while it did."""
    try:
        record: _OwnerRecord = json.loads(owner_lock.read())
    except ValueError:
        return None
    return record


def _choose_socket_path(run_folder: Path) -> Path:
    """Returns a path in the run folder, or in a new private folder if that one is no valid socket address."""
    path = run_folder / "gateway.sock"
    if SOCKET_PATH_PATTERN.fullmatch(str(path)):
        return path
    return Path(tempfile.mkdtemp(prefix=SOCKET_FOLDER_PREFIX, dir="/tmp")) / "gateway.sock"


def _remove_socket(path: Path) -> None:
    """Removes a socket, and the folder that was made for it. A record may be damaged: nothing else is ever removed."""
    with suppress(OSError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    if path.parent.name.startswith(SOCKET_FOLDER_PREFIX):
        with suppress(OSError):
            path.parent.rmdir()


def _accepts_connections(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_TIMEOUT_SECONDS)
        try:
            probe.connect(path)
        except (OSError, TimeoutError):
            return False
        return True
