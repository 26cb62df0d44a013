"""Generating, listing, converting and deleting music from the command line."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
import uuid
import wave
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import soundfile
from google.protobuf import json_format

from dgx_music import channel
from dgx_music.generation.v1.generation_pb2 import Model
from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from gateway.embedded.ownership import Owner, acquire_or_join
from gateway.embedded.service_set import LIBRARY
from gateway.embedded.services import run_embedded_services
from tests.support import ffmpeg_decoder
from tests.support.command_line import DGX_MUSIC, SECONDS, InProcessShell, Shell, environment, read_until
from tests.support.failpoints import armed


@pytest.fixture(scope="module")
def server_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory with a running server, which commands join."""
    data_dir = tmp_path_factory.mktemp("served")
    with Shell(data_dir).serving():
        yield data_dir


@pytest.fixture
def served(server_data_dir: Path, capfd: pytest.CaptureFixture[str]) -> Shell:
    """A command line on the data directory of the running server."""
    return InProcessShell(server_data_dir, capfd)


def printed_fields(output: str) -> dict[str, str]:
    """Returns the printed fields by label."""
    return dict(re.findall(r"^(\w+(?: \w+)?) {2,}(.+?) *$", output, re.MULTILINE))


def test_help_imports_no_service_libraries() -> None:
    program = "import sys, gateway.cli.main; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"grpc", "google", "numpy", "sqlalchemy", "pydantic_settings", "scipy"} & set(done.stdout.split())
    assert "generate" in subprocess.run([DGX_MUSIC], capture_output=True, text=True, check=True).stdout


def test_version_is_printed_by_installed_script(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "data")
    assert re.fullmatch(r"dgx-music \d+\.\d+\.\d+\n", shell.run("--version").stdout)


def test_generated_file_is_described_downloaded_and_deleted(shell: Shell, tmp_path: Path) -> None:
    copy = tmp_path / "beat.wav"
    done = shell.run("generate", "techno at 130 BPM in A minor", "-d", "4", "--seed", "7", "-o", str(copy))
    fields = printed_fields(done.stdout)
    assert fields["tempo"] == "130 BPM"
    assert fields["key"] == "A minor"
    assert fields["seed"] == "7"
    assert fields["loudness"].endswith("LUFS")
    assert fields["true peak"].endswith("dBTP")
    assert fields["dynamics"].endswith("dBFS RMS")
    assert fields["copy"] == str(copy)
    assert Path(fields["file"]).read_bytes() == copy.read_bytes()
    with wave.open(str(copy)) as wav:
        assert (wav.getnframes(), wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) == (128_000, 32_000, 2, 3)
    assert re.search("[\u2801-\u28ff]{20}", done.stdout), "no waveform"
    assert "model: sketch" in done.stderr
    assert not list(tmp_path.glob("*.part"))

    [shown] = shell.generations("show", fields["id"])
    assert shown.metadata["bpm"] == 130
    assert re.search("marked +AI-generated, in INFO, BEXT", shell.run("show", fields["id"]).stdout)

    saved = tmp_path / "saved.wav"
    assert shell.run("download", fields["id"], "-o", str(saved)).stdout.strip() == str(saved)
    assert saved.read_bytes() == copy.read_bytes()
    assert "--force" in shell.error("download", fields["id"], "-o", str(saved), status=2)

    assert shell.run("delete", fields["id"], "--yes", "--json").stdout == "{}\n"
    assert not Path(fields["file"]).exists()
    assert "generation" in shell.error("show", fields["id"], status=1)


@pytest.mark.parametrize(
    ("point", "notice"),
    [("export.waveform", "failed to draw the waveform"), ("cli.summary", "failed to describe the generation")],
)
def test_display_that_fails_does_not_fail_the_command(shell: Shell, tmp_path: Path, point: str, notice: str) -> None:
    with armed(f"{point}:raise"):
        done = shell.run("generate", "techno", "-d", "1", "-o", str(tmp_path / "beat.wav"))
    fields = printed_fields(done.stdout)
    assert Path(fields["file"]).read_bytes() == Path(fields["copy"]).read_bytes()
    assert f"{notice}: " in done.stderr
    with armed("export.waveform:raise"):
        assert fields["id"] in shell.run("show", fields["id"]).stdout


def test_figure_that_failed_is_shown(shell: Shell) -> None:
    with armed("export.tempo_estimation:raise"):
        fields = printed_fields(shell.run("generate", "techno", "-d", "6").stdout)
    assert fields["not measured"].startswith("tempo: an unexpected error occurred (RuntimeError)")
    shown = printed_fields(shell.run("show", fields["id"]).stdout)
    assert shown["not measured"] == fields["not measured"]


def test_generation_whose_export_failed_is_retried_from_its_samples(shell: Shell) -> None:
    with armed("export.before_mastering:raise"):
        failed = shell.run("generate", "techno", "-d", "4", "--json", status=1, DGX_MUSIC_MAX_ATTEMPTS="1")
    [generation_id] = [generation.id for generation in shell.generations("history")]
    assert f"dgx-music retry {generation_id}" in failed.stderr
    [retried] = shell.generations("retry", generation_id)
    assert retried.attempt == 2
    assert [path.name for path in (shell.data_dir / "spool").iterdir()] == [f"{generation_id}.1.pcm"]


def test_output_options_are_applied_and_file_is_rendered(shell: Shell, tmp_path: Path) -> None:
    first, second = tmp_path / "beat.flac", tmp_path / "beat.mp3"
    done = shell.run(
        "generate",
        "techno",
        "-d",
        "2",
        "--sample-rate",
        "44100",
        "--channels",
        "1",
        "--loudness",
        "-20",
        "--tag-prompt",
        "-o",
        str(first),
    )
    fields = printed_fields(done.stdout)
    assert fields["audio"].startswith("2 s, 44.1 kHz mono, FLAC 24")
    assert fields["loudness"] == "-20.0 LUFS"
    with soundfile.SoundFile(first) as file:
        assert file.subtype == "PCM_24"
        assert file.comment.endswith("; prompt=techno")

    again = shell.run("render", fields["id"], "--loudness", "streaming", "--ceiling", "-2", "-o", str(second))
    rendered = printed_fields(again.stdout)
    assert rendered["audio"].startswith("2 s, 44.1 kHz mono, MP3")
    assert rendered["id"] == fields["id"]
    assert Path(rendered["file"]).read_bytes() == second.read_bytes()
    assert soundfile.info(second).format == "MP3"
    answer = json.loads(shell.run("render", fields["id"], "--format", "mp3", "--json").stdout)
    assert answer["file"]["format"] == "FILE_FORMAT_MP3"

    assert "--sample-rate: OGG_OPUS does not support 44100 Hz" in shell.error(
        "render", fields["id"], "--format", "opus", "--sample-rate", "44100", status=2
    )
    assert "--loudness: 'loud'" in shell.error("generate", "techno", "--loudness", "loud", status=2)
    assert "--force" in shell.error("render", fields["id"], "-o", str(second), status=2)


@pytest.mark.slow
def test_file_is_saved_in_the_format_that_its_ending_names(shell: Shell, tmp_path: Path) -> None:
    arguments = ("generate", "techno", "-d", "1")
    [first] = shell.generations(*arguments, "--bitrate", "96", "-o", str(tmp_path / "a.m4a"))
    samples, rate = ffmpeg_decoder.decode(tmp_path / "a.m4a")
    assert (len(samples), rate, first.file_path.rpartition(".")[2]) == (32_000, 32_000, "m4a")
    shell.run("render", first.id, "--format", "aiff-float", "-o", str(tmp_path / "a.aif"))
    assert soundfile.info(tmp_path / "a.aif").subtype_info == "32 bit float"
    shell.run("render", first.id, "--quality", "0", "-o", str(tmp_path / "a.ogg"))
    shown = printed_fields(shell.run("render", first.id, "-o", str(tmp_path / "a.w64")).stdout)
    assert shown["audio"].startswith("1 s, 32 kHz stereo, W64 PCM 24")
    assert soundfile.info(tmp_path / "a.w64").format == "W64"
    before = {path.name for path in tmp_path.glob("a.*")}

    with_list = r"use \.wav, \.wave, \.bwf, .*\.mp4"
    for problem, command in (
        (f"--output: \\.xyz names no format that can be written; {with_list}", [*arguments, "-o", "a.xyz"]),
        (f"--output: \\.xyz names no format that can be written; {with_list}", ["render", first.id, "-o", "a.xyz"]),
        ("use the extension .mp3, or --format wav", [*arguments, "--format", "mp3", "-o", "a.wav"]),
        ("a has no extension that names its format", [*arguments, "-o", "a"]),
        ("a.wav would be a .m4a file .* dgx-music render", ["download", first.id, "-o", "a.wav"]),
        ("--bitrate: must be 0 for WAV_PCM_24, which is lossless", [*arguments, "--bitrate", "96"]),
        ("--bitrate: must be 32, 40, .* or 320 kbit/s", [*arguments, "--bitrate", "97", "-o", "b.mp3"]),
        ("--quality: must be left out for M4A_AAC", [*arguments, "--quality", "5", "-o", "b.m4a"]),
        ("--png: a.jpg does not end in .png", ["show", first.id, "--png", "a.jpg"]),
    ):
        assert re.search(problem, shell.error(*command, status=2)), problem
    assert {path.name for path in tmp_path.glob("a.*")} == before
    assert len(shell.generations("history")) == 1, "nothing was generated"


def test_same_seed_repeats_and_variations_differ(shell: Shell, tmp_path: Path) -> None:
    outputs = tmp_path / "beat.wav"
    first = shell.generations("generate", "house", "-d", "1", "--seed", "5", "--count", "2", "-o", str(outputs))
    assert [one.seed for one in first] == [5, 6]
    assert {path.name for path in tmp_path.glob("*.wav")} == {"beat-1.wav", "beat-2.wav"}
    [again] = shell.generations("generate", "house", "-d", "1", "--seed", "6")
    assert again.metadata["pcm_sha256"] == first[1].metadata["pcm_sha256"] != first[0].metadata["pcm_sha256"]
    assert "beat-1.wav" in shell.error("generate", "house", "--count", "2", "-o", str(outputs), status=2)


def test_stats_prompts_and_models_are_listed(served: Shell) -> None:
    for prompt in ("jazz", "rock [b]", "jazz"):
        served.run("generate", prompt, "-d", "0.5")
    figures = json_format.Parse(served.run("stats", "--json").stdout, storage.GetStatisticsResponse())
    assert figures.completed_generations >= 3
    assert figures.models[0].model_name == "sketch"
    shown = served.run("stats", "--days", "2").stdout
    assert "completed" in shown
    assert figures.days[0].date in shown
    assert figures.days[2].date not in shown
    used = [json_format.Parse(line, storage.Prompt()) for line in served.run("prompts", "--json").stdout.splitlines()]
    assert [(prompt.text, prompt.used_count) for prompt in used[:2]] == [("jazz", 2), ("rock [b]", 1)]
    assert "rock [b]" in served.run("prompts", "--recent", "--search", "rock").stdout
    assert len(served.generations("history", "--limit", "2")) == 2
    [rock] = served.generations("history", "--search", "ROCK", "--state", "completed", "--model", "sketch")
    assert rock.id in served.run("history").stdout
    assert "completed" in served.run("show", rock.id).stdout
    [model] = [json_format.Parse(line, Model()) for line in served.run("models", "--json").stdout.splitlines()]
    assert model.name == "sketch"
    assert "sketch (default)" in served.run("models").stdout
    [first] = served.generations("generate", "first", "-d", "0.5", "--priority", "3", "--json")
    assert first.priority == 3
    assert "+3" in served.run("show", first.id).stdout
    assert "file_sha256" in served.run("show", first.id).stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("generate", ""), "PROMPT: "),
        (("generate", "x" * 100_000), "PROMPT: "),
        (("generate", b"\xff".decode(errors="surrogateescape")), "UTF-8"),
        (("generate", "x", "--duration", "0"), "--duration: "),
        (("generate", "x", "--duration", "-1"), "--duration: "),
        (("generate", "x", "--duration", "1e9"), "--duration: "),
        (("generate", "x", "--duration", "nan"), "--duration: "),
        (("generate", "x", "--model", "musicgen-huge"), "--model: "),
        (("generate", "x", "--model", "./musicgen-huge"), "--model: "),
        (("generate", "x", "--temperature", "0"), "--temperature: "),
        (("generate", "x", "--top-k", "2049"), "--top-k"),
        (("generate", "x", "--top-p", "nan"), "--top-p: "),
        (("generate", "x", "--guidance", "21"), "--guidance: "),
        (("generate", "x", "--seed", "-1"), "--seed"),
        (("generate", "x", "--seed", str(2**63 - 1), "--count", "2"), "--seed: "),
        (("generate", "x", "-o", "/nowhere/at/all.wav"), "--output: "),
        (("generate", "x", "-o", "/nowhere/at/all.wav", "--force"), "--output: "),
        (("generate", "x", "--sample-rate", "7"), "--sample-rate: "),
        (("generate", "x", "--loudness", "nan"), "--loudness: "),
        (("generate", "x", "--ceiling", "3"), "--ceiling: "),
        (("history", "--data-dir="), "--data-dir: "),
        (("history", "--data-dir", ""), "--data-dir: "),
        (("files", "verify", "not-an-id"), "ID: "),
        (("generate", "x", "--detach", "-o", "x.wav"), "--detach"),
        (("show", "not-an-id"), "ID: "),
        (("generate",), "PROMPT"),
        (("generate", "house", "at", "124", "BPM"), "quotes"),
        (("sing",), "sing"),
        (("db",), "command"),
    ],
)
def test_bad_input_is_one_line_that_names_argument(served: Shell, arguments: tuple[str, ...], says: str) -> None:
    assert says in served.error(*arguments, status=2)


def test_output_that_is_not_a_regular_file_is_rejected(served: Shell, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"  # Stands for a device, which a failing test must not destroy.
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        says = f"--output: {path} is not a regular file"
        assert says in served.error("generate", "x", "-d", "0.5", "-o", str(path), "--force", status=2)
    assert pipe.is_fifo()


@pytest.mark.parametrize("command", ["show", "watch", "cancel", "retry", "delete", "download"])
def test_unknown_id_is_one_line(served: Shell, command: str) -> None:
    unknown = str(uuid.uuid4())
    assert unknown in served.error(command, unknown, *(["--yes"] if command == "delete" else []), status=1)


def test_detached_generation_is_watched_and_cancelled(served: Shell) -> None:
    generation_id = served.run("generate", "house", "-d", "2", "--detach").stdout.strip()
    assert "LUFS" in served.run("watch", generation_id).stdout
    [other] = served.generations("generate", "house", "-d", "3600", "--detach")
    assert "cancelled" in served.run("cancel", other.id).stderr
    assert "was cancelled" in served.run("watch", other.id, status=1).stderr
    assert "CANCELLED" in served.error("retry", other.id, status=1)


def test_data_directory_in_use_is_rejected(served: Shell) -> None:
    for command in (["serve"], ["serve", "export"], ["db", "reset", "--yes"]):
        assert "stop it" in served.error(*command, status=1)


def test_detach_without_server_is_rejected(shell: Shell) -> None:
    assert "dgx-music serve" in shell.error("generate", "x", "--detach", status=2)
    assert shell.generations("history") == []


def test_invalid_settings_are_one_line(shell: Shell, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "DGX_MUSIC_LOG_LEVEL=loud" in shell.error("history", status=2, DGX_MUSIC_LOG_LEVEL="loud")
    assert "DGX_MUSIC_GATEWAY_ADDRESS" in shell.error("history", status=75, DGX_MUSIC_GATEWAY_ADDRESS="127.0.0.1:1")
    (tmp_path / "file").touch()
    assert "--data-dir" in InProcessShell(tmp_path / "file", capfd).error("history", status=1)


def test_global_options_are_accepted_after_the_subcommand(shell: Shell, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shell.run("history", f"--data-dir={other}")
    assert (other / "run").is_dir()
    assert not shell.data_dir.exists()
    done = shell.run("show", "not-an-id", "--debug", "--data-dir", str(other), status=2)
    assert "Traceback" in done.stderr


async def fail_one(data_dir: Path) -> str:
    """Creates a generation that failed, as a worker leaves it."""
    with acquire_or_join(data_dir) as owner:
        assert isinstance(owner, Owner)
        async with (
            run_embedded_services(owner, data_dir, service_set=LIBRARY),
            channel.connect(owner.address) as storage_channel,
        ):
            stub = StorageServiceStub(storage_channel)
            request = storage.CreateGenerationRequest(
                prompt="polka", model_name="sketch", duration_seconds=0.5, sample_rate_hz=32_000, channels=2
            )
            created = await stub.CreateGeneration(request, timeout=SECONDS)
            claimed = await stub.ClaimGeneration(
                storage.ClaimGenerationRequest(worker_id="test", model_names=["sketch"], lease_seconds=30),
                timeout=SECONDS,
            )
            failed = storage.FailGenerationRequest(
                id=created.generation.id, lease_token=claimed.lease_token, error_message="out of tune"
            )
            await stub.FailGeneration(failed, timeout=SECONDS)
    return created.generation.id


def test_failed_generation_says_why_and_is_retried(shell: Shell) -> None:
    generation_id = asyncio.run(fail_one(shell.data_dir))
    done = shell.run("watch", generation_id, status=1)
    assert f"failed: out of tune; to try again, run: dgx-music retry {generation_id}" in done.stderr
    assert "dgx-music serve" in shell.error("retry", generation_id, "--detach", status=2)
    assert "LUFS" in shell.run("retry", generation_id).stdout


def test_delete_asks_for_confirmation(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert "nothing was changed" in shell.run("delete", str(uuid.uuid4()), status=1).stderr


def test_database_is_initialized_migrated_and_reset(shell: Shell) -> None:
    assert "created" in shell.run("db", "init").stdout
    assert "already" in shell.run("db", "init").stdout
    shell.run("generate", "ambient", "-d", "0.5")
    assert "revision" in shell.run("db", "migrate").stdout
    assert "emptied" in shell.run("db", "reset", "--yes").stdout
    assert shell.generations("history") == []


def test_progress_bar_is_shown_on_terminal(shell: Shell) -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [DGX_MUSIC, "--data-dir", shell.data_dir, "generate", "waltz", "-d", "60"],
        env=environment(TERM="xterm", COLUMNS="120"),
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # How a terminal reports that the process has closed it.
            while part := os.read(ours, 4096):
                shown += part
        out, _ = process.communicate(timeout=SECONDS)
    os.close(ours)
    assert process.returncode == 0
    assert b"LUFS" in out
    assert re.search(r"[\d.]+/60 s", shown.decode(errors="ignore"))
    assert "real time" in shown.decode(errors="ignore")


def test_ctrl_c_cancels_generation(shell: Shell) -> None:
    with shell.running("generate", "drum and bass", "--duration", "3600") as process:
        generation_id = read_until("generating", process).partition(":")[0]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGINT
    assert f"cancelled generation {generation_id}" in err
    assert out == ""
    [left] = shell.generations("show", generation_id)
    assert left.state == storage.GENERATION_STATE_CANCELLED
    assert not list(shell.data_dir.glob("outputs/**/*.wav"))


def test_two_commands_share_a_data_directory(shell: Shell) -> None:
    arguments = ("generate", "lo-fi", "-d", "20", "--json")
    with shell.running(*arguments) as one, shell.running(*arguments) as other:
        for process in (one, other):
            out, err = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, err
            assert json.loads(out)["state"] == "GENERATION_STATE_COMPLETED"
    assert len(shell.generations("history")) == 2


@pytest.mark.slow
def test_interrupted_owner_waits_for_guest(shell: Shell) -> None:
    with shell.running("generate", "trap", "--duration", "3600") as owner:
        read_until("generating", owner)
        with shell.running("generate", "rock", "--duration", "180") as guest:
            read_until("generating", guest)
            owner.send_signal(signal.SIGINT)
            read_until("cancelled generation", owner)
            read_until("waiting for another dgx-music command", owner)
            out, err = guest.communicate(timeout=SECONDS)
            assert guest.returncode == 0, err
            assert "LUFS" in out
        owner.wait(SECONDS)
        assert owner.returncode == 128 + signal.SIGINT
    states = [generation.state for generation in shell.generations("history")]
    assert states == [storage.GENERATION_STATE_COMPLETED, storage.GENERATION_STATE_CANCELLED]


def test_generation_of_killed_owner_is_resumed(shell: Shell) -> None:
    with shell.running("generate", "jazz", "--duration", "120", DGX_MUSIC_LEASE_SECONDS="1") as process:
        generation_id = read_until("generating", process).partition(":")[0]
        process.kill()
    assert [one.id for one in shell.generations("history")] == [generation_id]
    *changes, last = shell.generations("watch", generation_id)
    assert last.state == storage.GENERATION_STATE_COMPLETED
    assert last.attempt == 2
    assert changes
