"""One owner a data directory: joined, waited for, replaced. Locks of two open files exclude each other in one process
as they do in two."""

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
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield


def entered(data_dir: Path) -> Future[Owner | Client]:
    """What `acquire_or_join` gives, from another thread."""
    future: Future[Owner | Client] = Future()

    def work() -> None:
        try:
            future.set_result(acquire_or_join(data_dir))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


def owner_of(data_dir: Path) -> Owner:
    place = acquire_or_join(data_dir)
    assert isinstance(place, Owner)
    return place


def guest_of(data_dir: Path) -> Client:
    place = acquire_or_join(data_dir)
    assert isinstance(place, Client)
    return place


def test_the_first_owns_and_the_second_joins(tmp_path: Path) -> None:
    with owner_of(tmp_path) as owner, listening(owner.socket_path):
        owner.accept_clients(is_persistent=True)
        with guest_of(tmp_path) as guest:
            assert (guest.address, guest.owner_pid, guest.is_persistent) == (owner.address, os.getpid(), True)


def test_a_guest_waits_for_an_owner_that_starts(tmp_path: Path) -> None:
    with owner_of(tmp_path) as owner:
        waiting = entered(tmp_path)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.2)
        with listening(owner.socket_path):
            owner.accept_clients(is_persistent=False)
            guest = waiting.result(timeout=60)
            assert isinstance(guest, Client)
            assert not guest.is_persistent
            guest.release()


def test_who_waits_for_an_owner_that_lets_nobody_in_becomes_the_next(tmp_path: Path) -> None:
    with owner_of(tmp_path):
        waiting = entered(tmp_path)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.2)
    place = waiting.result(timeout=60)
    assert isinstance(place, Owner)
    place.release()


async def test_an_owner_waits_for_its_guests(tmp_path: Path) -> None:
    with owner_of(tmp_path) as owner, listening(owner.socket_path):
        owner.accept_clients(is_persistent=False)
        guest = guest_of(tmp_path)
        assert not owner.has_no_clients()
        gone = asyncio.create_task(owner.wait_for_clients())
        await asyncio.sleep(0)
        assert not gone.done()
        guest.release()
        await asyncio.wait_for(gone, 60)
        newcomer = entered(tmp_path)  # Waits: the owner is about to end.
    place = newcomer.result(timeout=60)
    assert isinstance(place, Owner)
    place.release()


def test_an_owner_without_guests_is_alone(tmp_path: Path) -> None:
    with owner_of(tmp_path) as owner:
        owner.accept_clients(is_persistent=False)
        assert owner.has_no_clients()


def test_who_comes_while_a_server_ends_waits_outside(tmp_path: Path) -> None:
    with owner_of(tmp_path) as owner:
        with listening(owner.socket_path):
            owner.accept_clients(is_persistent=True)
            guest = guest_of(tmp_path)  # Stays to the end: a server that is stopped does not wait for it.
            owner.stop_accepting_clients()
        newcomer = entered(tmp_path)
        with pytest.raises(TimeoutError):
            newcomer.result(timeout=0.2)
    guest.release()
    place = newcomer.result(timeout=60)
    assert isinstance(place, Owner)
    place.release()


def test_a_killed_owner_leaves_nothing_stale(tmp_path: Path) -> None:
    program = (
        "import os, socket, sys; from pathlib import Path; from gateway.embedded.ownership import acquire_or_join\n"
        "owner = acquire_or_join(Path(sys.argv[1])); server = socket.socket(socket.AF_UNIX)\n"
        "server.bind(str(owner.socket_path)); owner.accept_clients(is_persistent=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "run" / "gateway.sock").exists()
    with owner_of(tmp_path) as owner, listening(owner.socket_path):
        owner.accept_clients(is_persistent=False)
        guest_of(tmp_path).release()
    assert not (tmp_path / "run" / "gateway.sock").exists()


def test_a_note_cut_off_by_a_kill_is_no_note(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "owner.lock").write_bytes(b'{"socket": "/tm')
    owner_of(tmp_path).release()


@pytest.mark.parametrize("name", ["a" * 120, "with space", "ümlaut", "per%cent"])
def test_a_path_that_is_no_socket_address_gets_one_in_a_private_folder(tmp_path: Path, name: str) -> None:
    data_dir = tmp_path / name
    with owner_of(data_dir) as owner, listening(owner.socket_path):
        folder = owner.socket_path.parent
        assert folder.stat().st_mode & 0o077 == 0
        owner.accept_clients(is_persistent=True)
        with guest_of(data_dir) as guest:
            assert guest.address == owner.address
    assert not folder.exists()


def test_an_owner_without_a_gateway_says_so(tmp_path: Path) -> None:
    with owner_of(tmp_path) as owner:
        owner.refuse_clients()
        with pytest.raises(FailedPrecondition, match="DGX_MUSIC_GATEWAY_ADDRESS"):
            acquire_or_join(tmp_path)
    owner_of(tmp_path).release()


def test_an_owner_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    with owner_of(tmp_path) as owner:
        owner.accept_clients(is_persistent=True)  # But nothing listens.
        with pytest.raises(Unavailable, match="does not answer"):
            acquire_or_join(tmp_path)


def test_a_folder_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FailedPrecondition, match="--data-dir"):
        acquire_or_join(tmp_path / "file" / "data")
