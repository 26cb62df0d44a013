"""Ownership of a data directory: joining, waiting for and replacing an owner.

Most tests use one process, where the locks of two open files exclude each other just as in two processes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest

from dgx_music.errors import FailedPrecondition, Unavailable
from gateway.embedded.ownership import Client, Owner, acquire_or_join


@contextmanager
def listening(path: Path) -> Iterator[None]:
    """Listens on a Unix socket while the block runs."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield


def start_joining(data_dir: Path) -> Future[Owner | Client]:
    """Calls `acquire_or_join` in another thread."""
    future: Future[Owner | Client] = Future()

    def work() -> None:
        try:
            future.set_result(acquire_or_join(data_dir))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


def acquire(data_dir: Path) -> Owner:
    membership = acquire_or_join(data_dir)
    assert isinstance(membership, Owner)
    return membership


def join(data_dir: Path) -> Client:
    membership = acquire_or_join(data_dir)
    assert isinstance(membership, Client)
    return membership


def test_first_process_owns_and_second_joins(tmp_path: Path) -> None:
    with acquire(tmp_path) as owner, listening(owner.socket_path):
        owner.accept_clients(is_persistent=True)
        with join(tmp_path) as client:
            assert (client.address, client.owner_pid, client.is_persistent) == (owner.address, os.getpid(), True)


def test_client_waits_until_owner_accepts_clients(tmp_path: Path) -> None:
    with acquire(tmp_path) as owner:
        waiting = start_joining(tmp_path)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.2)
        with listening(owner.socket_path):
            owner.accept_clients(is_persistent=False)
            client = waiting.result(timeout=60)
            assert isinstance(client, Client)
            assert not client.is_persistent
            client.release()


def test_waiting_process_becomes_owner_if_owner_never_accepts_clients(tmp_path: Path) -> None:
    with acquire(tmp_path):
        waiting = start_joining(tmp_path)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.2)
    membership = waiting.result(timeout=60)
    assert isinstance(membership, Owner)
    membership.release()


async def test_owner_waits_for_its_clients(tmp_path: Path) -> None:
    with acquire(tmp_path) as owner, listening(owner.socket_path):
        owner.accept_clients(is_persistent=False)
        client = join(tmp_path)
        assert not owner.has_no_clients()
        gone = asyncio.create_task(owner.wait_for_clients())
        await asyncio.sleep(0)
        assert not gone.done()
        client.release()
        await asyncio.wait_for(gone, 60)
        next_process = start_joining(tmp_path)  # It waits, because the owner is about to end.
    membership = next_process.result(timeout=60)
    assert isinstance(membership, Owner)
    membership.release()


def test_owner_without_clients_has_no_clients(tmp_path: Path) -> None:
    with acquire(tmp_path) as owner:
        owner.accept_clients(is_persistent=False)
        assert owner.has_no_clients()


def test_process_that_joins_an_ending_owner_waits_and_becomes_owner(tmp_path: Path) -> None:
    with acquire(tmp_path) as owner:
        with listening(owner.socket_path):
            owner.accept_clients(is_persistent=True)
            client = join(tmp_path)  # Stays until the end, since a stopped server does not wait for its clients.
            owner.stop_accepting_clients()
        next_process = start_joining(tmp_path)
        with pytest.raises(TimeoutError):
            next_process.result(timeout=0.2)
    client.release()
    membership = next_process.result(timeout=60)
    assert isinstance(membership, Owner)
    membership.release()


def test_data_dir_of_killed_owner_can_be_acquired(tmp_path: Path) -> None:
    program = (
        "import os, socket, sys; from pathlib import Path; from gateway.embedded.ownership import acquire_or_join\n"
        "owner = acquire_or_join(Path(sys.argv[1])); server = socket.socket(socket.AF_UNIX)\n"
        "server.bind(str(owner.socket_path)); owner.accept_clients(is_persistent=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "run" / "gateway.sock").exists()
    with acquire(tmp_path) as owner, listening(owner.socket_path):
        owner.accept_clients(is_persistent=False)
        join(tmp_path).release()
    assert not (tmp_path / "run" / "gateway.sock").exists()


def test_truncated_owner_record_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "owner.lock").write_bytes(b'{"socket": "/tm')
    acquire(tmp_path).release()


@pytest.mark.parametrize("name", ["a" * 120, "with space", "ümlaut", "per%cent"])
def test_unusable_socket_path_is_replaced_by_private_folder(tmp_path: Path, name: str) -> None:
    data_dir = tmp_path / name
    with acquire(data_dir) as owner, listening(owner.socket_path):
        folder = owner.socket_path.parent
        assert folder.stat().st_mode & 0o077 == 0
        owner.accept_clients(is_persistent=True)
        with join(data_dir) as client:
            assert client.address == owner.address
    assert not folder.exists()


def test_joining_owner_that_refuses_clients_fails(tmp_path: Path) -> None:
    with acquire(tmp_path) as owner:
        owner.refuse_clients()
        with pytest.raises(FailedPrecondition, match="DGX_MUSIC_GATEWAY_ADDRESS"):
            acquire_or_join(tmp_path)
    acquire(tmp_path).release()


def test_joining_silent_owner_is_unavailable(tmp_path: Path) -> None:
    with acquire(tmp_path) as owner:
        owner.accept_clients(is_persistent=True)  # But nothing listens.
        with pytest.raises(Unavailable, match="does not answer"):
            acquire_or_join(tmp_path)


def test_unwritable_data_dir_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FailedPrecondition, match="--data-dir"):
        acquire_or_join(tmp_path / "file" / "data")
