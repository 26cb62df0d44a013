"""`Client` against real services: in threads, under Ctrl-C, after a fork, and where an event loop is running."""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from dgx_music import Client, Generation
from dgx_music.client.notebook_player import MAX_EMBEDDED_BYTES
from dgx_music.errors import Cancelled, GenerationCancelled, InvalidArgument, NotFound
from dgx_music.storage.v1.storage_pb2 import GetStatisticsRequest, WatchGenerationRequest


@pytest.fixture(scope="module")
def shared(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


@pytest.fixture(scope="module")
def generation(shared: Client) -> Generation:
    """A finished generation of two seconds."""
    return shared.generate("<b>house</b> at 124 BPM", duration=2, seed=7)


def test_every_method_does_what_it_says(client: Client, tmp_path: Path) -> None:
    threads = []
    generation = client.generate("house", duration=1, on_progress=lambda _: threads.append(threading.current_thread()))
    assert set(threads) == {threading.current_thread()}
    assert generation.save(tmp_path / "a.flac").read_bytes() == generation.read(format="flac")
    assert generation.audio().shape == (32_000, 2)
    assert len(generation.waveform(10).maxima) == 10
    assert generation.rate(5).rating == client.get(generation.id).rating == 5
    assert client.rate(generation.id, 0).rating is None
    assert generation.refresh().rating is None
    assert [one.id for one in client.history(limit=1)] == [generation.id]
    assert client.models()[0].name == "sketch"
    assert client.download(generation.id, tmp_path).name == f"{generation.id}.wav"
    assert client.render(generation.id, format="mp3").file.file_path.endswith(".mp3")
    assert client.import_clip(tmp_path / "a.flac").frames == 32_000
    first, second = client.submit_many(["a", "b"], duration=0.2)
    assert [change.state for change in first.watch()][-1] == "completed"
    assert second.wait().state == "completed"
    waiting = client.submit("slow", duration=3000, priority=-10)
    assert waiting.cancel().state == "cancelled"
    with pytest.raises(GenerationCancelled):
        waiting.wait()
    second.delete()
    client.delete(generation.id)
    with pytest.raises(NotFound):
        generation.refresh()


def test_stream_is_iterated_and_left(client: Client, generation: Generation) -> None:
    with client.stream("house", duration=1) as stream:
        assert (stream.sample_rate, stream.channels, stream.expected_frames) == (32_000, 2, 32_000)
        assert stream.header.attempt == 1
        assert isinstance(stream.generation, Generation)
        samples = np.concatenate([chunk.samples for chunk in stream])
    assert samples.shape == (32_000, 2)
    assert next(iter(generation.stream(start_frame=10))).start_frame == 10
    for chunk in client.stream(generation):
        assert chunk.start_frame == 0
        break


def test_stub_has_everything_else(client: Client, generation: Generation) -> None:
    assert client.music.GetStatistics(GetStatisticsRequest()).total_generations > 0
    changes = list(client.music.WatchGeneration(WatchGenerationRequest(id=generation.id), timeout=30))
    assert [change.generation.id for change in changes] == [generation.id]
    with pytest.raises(NotFound):
        list(client.music.WatchGeneration(WatchGenerationRequest(id=str(uuid.uuid4()))))
    assert "GetStatistics" in dir(client.music)
    with pytest.raises(AttributeError, match="takes one request"):
        _ = client.music.ImportClip


def test_help_and_completion_list_the_options(client: Client) -> None:
    for method in (client.generate, client.submit, client.stream):
        parameters = inspect.signature(method).parameters
        assert next(iter(parameters)) in ("prompt", "source")
        assert {"duration", "seed", "format", "ceiling"} <= set(parameters)
        assert parameters["duration"].default is None


def test_notebook_shows_player_and_waveform(generation: Generation, client: Client) -> None:
    html = generation._repr_html_()
    assert "&lt;b&gt;house&lt;/b&gt; at 124 BPM" in html
    assert "<b>" not in html
    assert '<audio controls src="data:audio/mpeg;base64,' in html
    assert "<svg" in html
    assert "-16.0 LUFS" in html
    assert len(html) < 200_000
    waiting = client.submit("slow", duration=3000, priority=-10)
    assert "<audio" not in waiting._repr_html_()
    waiting.cancel()


def test_notebook_shows_the_text_if_the_file_is_too_long_or_gone(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(address) as client:
        generation = client.generate("piano", duration=1)
        monkeypatch.setattr("dgx_music.client.notebook_player.MAX_EMBEDDED_BYTES", 10)
        assert "too long for a player" in generation._repr_html_()
        monkeypatch.setattr("dgx_music.client.notebook_player.MAX_EMBEDDED_BYTES", MAX_EMBEDDED_BYTES)
        client.delete(generation.id)
        html = generation._repr_html_()
    assert "piano" in html
    assert "no player: there is no" in html
    assert "no player: the client is closed" in generation._repr_html_()


async def test_it_works_where_an_event_loop_is_running(address: str) -> None:
    """As in a notebook. The server is in another thread."""
    assert asyncio.get_running_loop().is_running()
    with Client(address) as client:
        assert client.generate("a", duration=0.2).state == "completed"


def test_threads_share_a_client(client: Client) -> None:
    def make(number: int) -> tuple[int, int]:
        generation = client.submit(f"thread {number}", duration=0.2, seed=number)
        frames = sum(chunk.frames for chunk in generation.stream())
        return generation.wait().seed, frames

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(make, range(16))) == [(number, 6400) for number in range(16)]


def test_interrupt_cancels_the_generation_and_leaves_the_client_usable(client: Client) -> None:
    word = uuid.uuid4().hex

    def interrupt(generation: Generation) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        client.generate(word, duration=3000, priority=-10, on_progress=interrupt)
    (generation,) = client.history(search=word)
    assert generation.state == "cancelled"


def test_interrupt_of_wait_leaves_the_generation(client: Client) -> None:
    generation = client.submit("slow", duration=3000, priority=-10)
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        generation.wait()
    timer.join()
    assert not generation.refresh().is_finished
    generation.cancel()


def test_exception_in_on_progress_is_raised_and_cancels(client: Client) -> None:
    word = uuid.uuid4().hex

    def fail(generation: Generation) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.generate(word, duration=3000, priority=-10, on_progress=fail)
    (generation,) = client.history(search=word)
    assert generation.state == "cancelled"


def test_client_that_is_closed_ends_calls_and_says_so(address: str) -> None:
    client = Client(address)
    generation = client.submit("slow", duration=3000, priority=-10)
    waiting = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        ended = threads.submit(generation.wait, None, lambda _: waiting.set())
        assert waiting.wait(30)
        client.close()
        with pytest.raises(Cancelled, match="closed"):
            ended.result()
    client.close()
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.models()
    with pytest.raises(RuntimeError, match="the client is closed"):
        generation.cancel()
    with Client(address) as other:
        other.cancel(generation.id)


def test_client_that_nothing_refers_to_ends_its_thread(address: str) -> None:
    before = set(threading.enumerate())
    generation = Client(address).submit("a", duration=0.2)
    assert generation.wait().state == "completed"  # It keeps the client.
    (thread,) = set(threading.enumerate()) - before
    del generation
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_process_is_told_to_create_its_own(client: Client) -> None:
    def use(outcome: Connection) -> None:
        try:
            client.models()
        except RuntimeError as error:
            outcome.send(str(error))
        os._exit(0)

    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=use, args=(theirs,))
    process.start()
    assert ours.poll(60)
    assert "after a fork" in ours.recv()
    process.join(60)
    ours.close()
    theirs.close()


def test_invalid_argument_has_its_python_name(client: Client) -> None:
    for options, argument in (
        ({"duration": 0}, "duration"),
        ({"model": "none"}, "model"),
        ({"guidance": 99}, "guidance"),
        ({"top_k": -1}, "top_k"),
        ({"ceiling": 3}, "ceiling"),
        ({"sample_rate": 1}, "sample_rate"),
        ({"loudness": 5}, "loudness"),
        ({"priority": 99}, "priority"),
        ({"continue_from": "x"}, "continue_from"),
        ({"metadata": {"a": object()}}, "metadata"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            client.submit("a", **options)  # type: ignore[arg-type]
        assert caught.value.field == argument
        assert str(caught.value).startswith(f"{argument}: ")
