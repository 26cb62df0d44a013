"""MusicGen from the command line: a tiny checkpoint in the real format, to a WAV; and what is said without one."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
import wave
from pathlib import Path

import pytest
from google.protobuf import json_format

from dgx_music.generation.v1.generation_pb2 import Model
from dgx_music.storage.v1.storage_pb2 import Generation
from tests.support.command_line import SECONDS, Shell, line_with

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")


@pytest.fixture(scope="module")
def hf_home(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Hugging Face cache with the text encoder."""
    from tests.support.checkpoints import write_t5

    home = tmp_path_factory.mktemp("hf")
    write_t5(home)
    return str(home)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model."""
    from tests.support.checkpoints import write_checkpoint

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_checkpoint(folder)
    return folder


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "data")


def test_from_a_folder_to_a_wav(shell: Shell, tiny: Path, hf_home: str, tmp_path: Path) -> None:
    wish = ("generate", "calm piano", "--model", str(tiny), "-d", "1", "--seed", "7")
    copy = tmp_path / "x.wav"
    sampling = ("--temperature", "0.9", "--top-k", "20", "--top-p", "0", "--guidance", "2.5")
    done = shell.run(*wish, *sampling, "-o", str(copy), HF_HOME=hf_home)
    with wave.open(str(copy)) as wav:
        assert (wav.getnframes(), wav.getframerate(), wav.getnchannels()) == (32_000, 32_000, 1)
    told = dict(re.findall(r"^(\w+) {2,}(.+?) *$", done.stdout, re.MULTILINE))
    assert told["licence"] == "CC-BY-NC-4.0"
    assert told["model"].startswith("tiny ")
    assert told["sampling"] == "temperature 0.9, top k 20, top p 0, guidance scale 2.5"
    assert "licence CC-BY-NC-4.0" in " ".join(shell.run("show", told["id"]).stdout.split())
    [kept] = shell.generations("show", told["id"])
    assert kept.sampling.top_k == 20
    assert kept.metadata["license"] == "CC-BY-NC-4.0"

    [again] = shell.generations(*wish, *sampling, HF_HOME=hf_home)
    assert again.metadata["pcm_sha256"] == kept.metadata["pcm_sha256"]
    [other] = shell.generations(*wish, "--temperature", "2", HF_HOME=hf_home)
    assert other.metadata["pcm_sha256"] != kept.metadata["pcm_sha256"]


def test_it_goes_on_from_an_earlier_one_and_from_a_file(shell: Shell, tiny: Path, hf_home: str, tmp_path: Path) -> None:
    wish = ("generate", "calm piano", "--model", str(tiny), "-d", "1", "--seed", "7")
    [first] = shell.generations(*wish, HF_HOME=hf_home)
    [second] = shell.generations(*wish, "--continue", first.id, "--continue-seconds", "0.5", HF_HOME=hf_home)
    assert (second.metadata["continued_from"], second.metadata["continued_seconds"]) == (first.id, 0.5)
    assert second.metadata["frames"] == first.metadata["frames"]
    assert second.metadata["pcm_sha256"] != first.metadata["pcm_sha256"]
    assert f"continues the last 0.5 s of {first.id}" in " ".join(shell.run("show", second.id).stdout.split())

    file = tmp_path / "x.wav"
    with wave.open(str(file), "wb") as wav:
        wav.setparams((2, 2, 44_100, 0, "NONE", ""))
        wav.writeframes(bytes(range(256)) * 1000)
    done = shell.run(*wish, "--json", "--continue", str(file), HF_HOME=hf_home)
    third = json_format.Parse(done.stdout, Generation())
    assert f"clip {third.continuation.source_id}: {file}, " in done.stderr
    assert third.metadata["continued_from"] == third.continuation.source_id
    assert third.metadata["continued_seconds"] == pytest.approx(64_000 / 44_100, abs=0.005)


def test_what_can_not_be_continued_is_one_line(shell: Shell, tiny: Path, hf_home: str, tmp_path: Path) -> None:
    file = tmp_path / "x.wav"
    file.write_text("no music")
    wish = ("generate", "x", "-d", "1")
    assert "neither an id nor a file" in shell.error(*wish, "--continue", str(tmp_path / "none"), status=2)
    line = shell.error(*wish, "--model", str(tiny), "--continue", str(file), status=2, HF_HOME=hf_home)
    assert line.startswith("error: --continue: ")
    for source in (str(file), "11111111-2222-4333-8444-555555555555"):
        line = shell.error(*wish, "--model", "sketch", "--continue", source, status=2)
        assert line.startswith("error: --continue: model 'sketch' can't continue audio; no model here can; `dgx-music ")
    assert [path for path in (shell.data_dir / "clips").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["state_dict.bin", "compression_state_dict.bin"])
def test_a_truncated_file_is_one_line(shell: Shell, tiny: Path, hf_home: str, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny, folder)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    line = shell.error("generate", "x", "-d", "1", "--model", str(folder), status=1, HF_HOME=hf_home)
    assert str(folder / name) in line
    assert "truncated" in line


def test_a_folder_without_files_is_one_line(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    line = shell.error("generate", "x", "--model", str(folder), status=1)
    assert f"{folder / 'state_dict.bin'}: no such file" in line


def test_a_missing_folder_and_a_model_that_is_not_pulled_are_one_line(shell: Shell, tmp_path: Path) -> None:
    assert "there is no folder" in shell.error("generate", "x", "--model", str(tmp_path / "none"), status=2)
    line = shell.error("generate", "x", "--model", "musicgen-small", status=1)
    assert "dgx-music models pull musicgen-small" in line


def test_a_missing_text_encoder_fails_the_generation_and_says_how_to_get_it(shell: Shell, tiny: Path) -> None:
    done = shell.run("generate", "x", "-d", "1", "--model", str(tiny), status=1)
    assert "hf download t5-base" in done.stderr
    findings = json.loads(shell.run("doctor", "--json", status=1, DGX_MUSIC_MODEL_FOLDERS=str(tiny)).stdout)["findings"]
    states = {finding["name"]: finding["state"] for finding in findings}
    assert (states["model"], states["hub cache"]) == ("ok", "broken")


def test_missing_audiocraft_is_one_line(shell: Shell, tiny: Path, hf_home: str, tmp_path: Path) -> None:
    (tmp_path / "audiocraft.py").write_text("raise ImportError('not here')")
    settings = {"DGX_MUSIC_ENGINE": "audiocraft", "PYTHONPATH": str(tmp_path), "HF_HOME": hf_home}
    done = shell.run("generate", "x", "-d", "1", "--model", str(tiny), status=1, **settings)
    *_, line = done.stderr.splitlines()
    assert (
        "audiocraft can't be imported (not here); run `make setup-audiocraft`, or set DGX_MUSIC_ENGINE=native" in line
    )


def test_a_server_takes_the_model_from_its_data_directory(shell: Shell, tiny: Path, hf_home: str) -> None:
    with shell.running("serve", DGX_MUSIC_GATEWAY_ADDRESS="127.0.0.1:0", HF_HOME=hf_home) as server:
        line_with('"serving"', server)
        reader = threading.Thread(target=server.stderr.read)  # type: ignore[union-attr]
        reader.start()
        wish = ("generate", "calm piano", "-d", "1", "--model", str(tiny))
        assert str(shell.data_dir / "models") in shell.error(*wish, status=2)

        (shell.data_dir / "models").mkdir()
        (shell.data_dir / "models" / "tiny").symlink_to(tiny)
        assert "as the server that is up has it" in shell.run(*wish).stderr
        listed = [json_format.Parse(line, Model()) for line in shell.run("models", "--json").stdout.splitlines()]
        [found] = [model for model in listed if model.name == "tiny"]
        assert (found.license, found.sample_rate_hz, found.channels, found.is_loaded) == (
            "CC-BY-NC-4.0",
            32_000,
            1,
            True,
        )
        assert re.search(
            r"tiny +(\(default\) +)?32 kHz × 1 +\d+ s +CC-BY-NC-4.0 +yes", shell.run("models", "list").stdout
        )
        server.send_signal(signal.SIGTERM)
        assert server.wait(SECONDS) == 0
        reader.join()


def test_the_doctor_finds_the_model(shell: Shell, tiny: Path, hf_home: str) -> None:
    done = shell.run("doctor", "--json", DGX_MUSIC_MODEL_FOLDERS=str(tiny), HF_HOME=hf_home)
    report = json.loads(done.stdout)
    assert report["ok"]
    found = {finding["name"]: finding for finding in report["findings"]}
    assert {"python", "torch", "device", "transformers", "data directory", "database", "services"} <= found.keys()
    assert any(finding["found"].startswith("tiny") for finding in report["findings"] if finding["name"] == "model")
    assert all(finding["advice"] for finding in report["findings"] if finding["state"] != "ok")


@pytest.mark.parametrize(
    ("name", "settings", "advice"),
    [
        ("models", {"DGX_MUSIC_DEFAULT_MODEL": "musicgen-small"}, "dgx-music models pull musicgen-small"),
        ("gateway", {"DGX_MUSIC_GATEWAY_ADDRESS": "127.0.0.1:1"}, "DGX_MUSIC_GATEWAY_ADDRESS"),
        ("database", {"DGX_MUSIC_DATABASE_URL": "mysql://u@h/d"}, "sqlite:///PATH"),
    ],
)
def test_the_doctor_says_what_to_do(shell: Shell, name: str, settings: dict[str, str], advice: str) -> None:
    report = json.loads(shell.run("doctor", "--json", status=1, **settings).stdout)
    assert not report["ok"]
    [found] = [finding for finding in report["findings"] if finding["state"] == "broken"]
    assert found["name"] == name
    assert advice in found["advice"]
    assert f"→ {found['advice']}" in " ".join(shell.run("doctor", status=1, **settings).stdout.split())
