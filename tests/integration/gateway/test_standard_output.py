"""Standard output and error that are full, closed or without a reader, and an audio file on standard output."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile

from gateway.cli.session.command_errors import BAD_INPUT, FAILURE, TRY_AGAIN
from gateway.cli.session.standard_streams import OUTPUT_LOST
from gateway.cli.session.standard_streams import READER_GONE as READER_GONE_STATUS
from tests.support.command_line import DGX_MUSIC, SECONDS, InProcessShell, Shell, environment

FULL = "error: can't write to standard output: No space left on device"
CLOSED = "error: can't write to standard output: it is closed"
READER_GONE = "error: can't write to standard output: it was closed by its reader"


@dataclass(frozen=True)
class Library:
    """A data directory with a running server and a finished generation."""

    data_dir: Path
    generation_id: str
    file: Path


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    shell = Shell(tmp_path_factory.mktemp("data"))
    with shell.serving():
        [generation] = shell.generations("generate", "techno", "-d", "1", "--seed", "1")
        yield Library(shell.data_dir, generation.id, shell.data_dir / generation.file_path)


@contextmanager
def sink(name: str) -> Iterator[int]:
    """The descriptor of a full device, of a pipe without a reader, or of a terminal."""
    with ExitStack() as stack:
        if name == "full":
            yield stack.enter_context(open("/dev/full", "wb")).fileno()
            return
        ours, theirs = os.openpty() if name == "terminal" else os.pipe()
        stack.callback(os.close, theirs)
        if name == "terminal":
            stack.callback(os.close, ours)
        else:
            os.close(ours)
        yield theirs


def run(library: Library, *arguments: str, redirection: str = "", **streams: int) -> subprocess.CompletedProcess[bytes]:
    """Runs a command in a process. A shell applies the redirection, such as `>&-`."""
    command = [str(DGX_MUSIC), "--data-dir", str(library.data_dir), *arguments]
    if redirection:
        command = ["sh", "-c", f'exec "$@" {redirection}', "sh", *command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | streams
    return subprocess.run(command, env=environment(), timeout=SECONDS, check=False, **pipes)


def last_error(done: subprocess.CompletedProcess[bytes]) -> str:
    """Returns the error of the command, which is an object with --json."""
    line = done.stderr.decode().splitlines()[-1]
    if not line.startswith("{"):
        return line
    error = json.loads(line)["error"]
    assert (error["code"], error["reason"]) == ("ABORTED", "OUTPUT_LOST")
    return f"error: {error['message']}"


@pytest.mark.parametrize(
    "command",
    [
        "history",
        pytest.param("history --json", marks=pytest.mark.slow),
        pytest.param("show ID", marks=pytest.mark.slow),
        pytest.param("files list --json", marks=pytest.mark.slow),
        pytest.param("db backup", marks=pytest.mark.slow),
        "download ID -o -",
        "--help",
        pytest.param("--version", marks=pytest.mark.slow),
    ],
)
def test_full_disk_under_standard_output_is_reported(library: Library, command: str) -> None:
    with sink("full") as full:
        done = run(library, *command.replace("ID", library.generation_id).split(), stdout=full)
    assert last_error(done) == FULL
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert done.returncode == 3


@pytest.mark.parametrize("command", [["history"], ["--help"]])
def test_closed_standard_output_is_reported(library: Library, command: list[str]) -> None:
    done = run(library, *command, redirection=">&-")
    assert (done.returncode, done.stderr.decode()) == (3, f"{CLOSED}\n")


@pytest.mark.parametrize("command", [["history", "--json", "--debug"], ["--help"]])
def test_pipe_without_a_reader_is_reported(library: Library, command: list[str]) -> None:
    with sink("pipe") as pipe:
        done = run(library, *command, stdout=pipe)
    assert done.returncode == 141
    assert last_error(done) == READER_GONE
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_standard_error_that_cannot_be_written_ends_no_command(library: Library) -> None:
    generate = ["generate", "house", "-d", "0.5", "--json"]
    with sink("full") as full:
        done = run(library, *generate, stderr=full)
        assert run(library, "show", "not-an-id", stderr=full).returncode == 2
    assert done.returncode == 0
    assert b"COMPLETED" in done.stdout
    with sink("pipe") as pipe:
        assert b"COMPLETED" in run(library, *generate, stderr=pipe).stdout
    done = run(library, "history", redirection="2>&-")
    assert (done.returncode, done.stderr) == (0, b"")
    assert library.generation_id.encode() in done.stdout


def test_all_standard_streams_may_be_closed(library: Library) -> None:
    assert run(library, "history", redirection="<&- >&- 2>&-").returncode == 3
    done = run(library, "delete", library.generation_id, redirection="<&-")
    assert done.returncode == 1
    assert b"nothing was changed" in done.stderr
    assert library.file.is_file()


def test_documented_exit_statuses_are_those_of_the_code() -> None:
    page = Path(__file__).parents[3] / "docs" / "command-line.md"
    documented = [
        int(status)
        for row in re.findall(r"^\| ([\d, ]+) \|", page.read_text(), re.MULTILINE)
        for status in row.split(",")
    ]
    signals = [128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)]
    assert documented == [0, FAILURE, BAD_INPUT, OUTPUT_LOST, TRY_AGAIN, *signals, READER_GONE_STATUS]


def test_finished_file_is_written_to_standard_output(library: Library, tmp_path: Path) -> None:
    done = run(library, "generate", "techno", "-d", "1", "--seed", "1", "-o", "-")
    assert done.returncode == 0
    heard, _ = soundfile.read(library.file, dtype="int32")
    (tmp_path / "piped.wav").write_bytes(done.stdout)
    piped, _ = soundfile.read(tmp_path / "piped.wav", dtype="int32")
    assert (piped == heard).all()
    assert int.from_bytes(done.stdout[4:8], "little") + 8 == len(done.stdout)
    assert b"LUFS" in done.stderr
    assert b"copy" not in done.stderr
    done = run(library, "download", library.generation_id, "-o", "-")
    assert (done.returncode, done.stdout, done.stderr) == (0, library.file.read_bytes(), b"")
    done = run(library, "render", library.generation_id, "--format", "flac", "--output", "-")
    assert done.stdout.startswith(b"fLaC")
    assert b"render" in done.stderr


@pytest.mark.slow
def test_generation_is_kept_if_the_reader_of_its_file_goes_away(library: Library) -> None:
    prompt = f"house {uuid.uuid4()}"
    with sink("pipe") as pipe:
        done = run(library, "generate", prompt, "-d", "0.5", "-o", "-", stdout=pipe)
    assert done.returncode == 141
    assert done.stderr.decode().splitlines()[-1] == READER_GONE
    [kept] = Shell(library.data_dir).generations("history", "--search", prompt)
    assert (library.data_dir / kept.file_path).is_file()


def test_standard_output_that_cannot_take_a_file_is_refused(
    library: Library, capfd: pytest.CaptureFixture[str]
) -> None:
    shell = InProcessShell(library.data_dir, capfd)
    assert "--json" in shell.error("generate", "x", "-o", "-", "--json", status=2)
    assert "--json" in shell.error("render", library.generation_id, "-o", "-", "--json", status=2)
    assert "--count" in shell.error("generate", "x", "-o", "-", "--count", "2", status=2)
    assert "--detach" in shell.error("generate", "x", "-o", "-", "--detach", status=2)
    with sink("terminal") as terminal:
        done = run(library, "generate", "x", "-o", "-", stdout=terminal)
    assert done.returncode == 2
    assert b"| ffplay -" in done.stderr


@pytest.mark.slow
def test_copy_that_cannot_be_written_says_that_the_generation_is_kept(library: Library, tmp_path: Path) -> None:
    """A limit of the size of its files (1 or 2 MiB), which the server does not have, stands for a full disk."""
    copy = tmp_path / "copy.wav"
    shell = Shell(library.data_dir)
    command = [str(DGX_MUSIC), "--data-dir", str(library.data_dir), "generate", "house", "-d", "20", "-o", str(copy)]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 2048; exec "$@"', "sh", *command],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert line.startswith(
        f"error: failed to write {copy}: File too large; the generation is kept: dgx-music download "
    )
    assert not list(tmp_path.iterdir())
    shell.run("download", line.split()[-3], "-o", str(copy))


def test_samples_are_streamed_as_a_wav_file(library: Library, tmp_path: Path) -> None:
    done = run(library, "play", library.generation_id, "--stdout")
    assert (done.returncode, done.stderr) == (0, b"")
    file = tmp_path / "stream.wav"
    file.write_bytes(done.stdout)
    streamed, rate = soundfile.read(file, dtype="float32")
    expected, expected_rate = soundfile.read(library.file, dtype="float32")
    assert rate == expected_rate
    assert (streamed == expected).all()


def test_generation_is_completed_if_the_reader_of_its_samples_goes_away(library: Library) -> None:
    with sink("pipe") as pipe:
        done = run(library, "generate", "jazz", "-d", "0.5", "--stdout", stdout=pipe)
    assert done.returncode == READER_GONE_STATUS
    assert done.stderr.decode().splitlines()[-1] == READER_GONE
    [kept] = Shell(library.data_dir).generations("history", "jazz")
    assert kept.id.encode() in done.stderr
    assert kept.file_path


@pytest.mark.slow
def test_interrupt_ends_a_download_that_nobody_reads(library: Library) -> None:
    """The file is larger than what the pipe and the buffers take."""
    shell = Shell(library.data_dir)
    [long] = shell.generations("generate", "techno", "-d", "20")
    with shell.running("download", long.id, "-o", "-") as process:
        assert process.stdout is not None
        assert process.stdout.buffer.read(4) == b"RIFF"
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
        assert process.stderr is not None
        assert process.stderr.read() == "interrupted\n"


def test_interrupt_cancels_although_the_reader_takes_no_samples(library: Library) -> None:
    reader, writer = os.pipe()
    command = [DGX_MUSIC, "--data-dir", library.data_dir, "generate", "rock", "-d", "3600", "--stdout"]
    with subprocess.Popen(command, env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True) as process:
        os.close(writer)
        assert os.read(reader, 4) == b"RIFF"
        process.send_signal(signal.SIGINT)
        try:
            said = process.communicate(timeout=SECONDS)[1]
        finally:
            process.kill()  # One that does not end must not hold up the others.
    assert process.returncode == 130
    os.close(reader)
    assert "cancelled generation " in said
    assert said.endswith("interrupted\n")
