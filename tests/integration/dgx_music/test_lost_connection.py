"""A server that is killed, restarted or not there."""

from __future__ import annotations

import hashlib
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dgx_music import Client
from dgx_music.errors import ConnectionLost, DataLoss, Unavailable
from tests.support.music_server import KillableServer
from tests.support.processes import free_ports

QUICK_RECOVERY = {
    "DGX_MUSIC_LEASE_SECONDS": "2",
    "DGX_MUSIC_RENEW_INTERVAL_SECONDS": "0.2",
    "DGX_MUSIC_LEASE_SWEEP_SECONDS": "0.2",
}
"""The next attempt begins soon after the server is back."""


def test_wait_and_stream_go_on_after_kill_and_restart(tmp_path: Path) -> None:
    server = KillableServer(tmp_path, **QUICK_RECOVERY)
    server.start()
    try:
        with Client(server.address) as client, ThreadPoolExecutor(1) as threads:
            generation = client.submit("house at 124 BPM", duration=40, seed=7)
            is_watching = threading.Event()
            waiting = threads.submit(client.get(generation.id).wait, 120, lambda _: is_watching.set())
            assert is_watching.wait(60)
            chunks = iter(generation.stream())
            received = [next(chunks)]
            server.kill()
            server.start()
            received += chunks
            finished = waiting.result()
    finally:
        server.kill()
    ends = list(itertools.accumulate(chunk.frames for chunk in received))
    assert [chunk.start_frame for chunk in received] == [0, *ends[:-1]]
    pcm = b"".join(chunk.pcm for chunk in received)
    assert hashlib.sha256(pcm).hexdigest() == finished.metadata["pcm_sha256"]
    assert finished.message.attempt == 2


@pytest.mark.slow
def test_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with Client(address, reconnect_timeout=0.2) as client:
        with pytest.raises(ConnectionLost, match=f"no answer from the server at {address}.*dgx-music serve") as caught:
            client.submit("a")
        assert isinstance(caught.value, Unavailable)
        with pytest.raises(ConnectionLost):
            _ = list(client.history())
        with pytest.raises(ConnectionLost):
            _ = list(client.stream("3f0e4a52-6f5e-4e40-9a58-1f6d0a5b7c11"))


def test_file_that_was_changed_on_the_server_is_not_saved(address: str, tmp_path: Path) -> None:
    with Client(address) as client:
        generation = client.generate("house", duration=0.5)
        stored = _data_dir(address) / str(generation.file_path)
        with stored.open("r+b") as file:
            file.seek(1000)
            file.write(b"something else")
        (tmp_path / "a.wav").write_text("what was there")
        with pytest.raises(DataLoss, match="SHA-256"):
            generation.save(tmp_path / "a.wav")
    assert (tmp_path / "a.wav").read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.wav"]


def _data_dir(address: str) -> Path:
    return Path(address.removeprefix("unix:")).parents[1]
