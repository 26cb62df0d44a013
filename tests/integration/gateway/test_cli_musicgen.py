"""MusicGen from the command line, with a tiny checkpoint in the real format; and the errors without one."""

from __future__ import annotations

import json
import re
import shutil
import sys
import wave
from pathlib import Path

import pytest
from google.protobuf import json_format

from dgx_music.generation.v1.generation_pb2 import Model
from dgx_music.storage.v1.storage_pb2 import Generation
from generation_service.worker import worker
from tests.support.command_line import InProcessShell, Shell

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is from transformers")
constants = pytest.importorskip("huggingface_hub.constants", reason="it finds the text encoder")


@pytest.fixture(scope="module")
def hf_home(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The home of a Hugging Face cache with the text encoder."""
    from tests.support.checkpoints import write_t5

    home = tmp_path_factory.mktemp("hf")
    write_t5(home)
    return str(home)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model."""
    from tests.support.checkpoints import write_checkpoint

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_checkpoint(folder)
    return folder


def write_adapter(folder: Path, inputs: int = 64) -> None:
    import torch

    from tests.support.adapter_files import FC1, write_adapter_files

    factors = {"lora_A": torch.ones(2, inputs), "lora_B": torch.linspace(-1, 1, 512).view(256, 2)}
    write_adapter_files(folder, {f"{FC1}.{name}.weight": tensor for name, tensor in factors.items()})


@pytest.fixture(autouse=True)
def empty_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the cache of this process from commands that run in it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))


@pytest.fixture
def text_encoder(empty_hub_cache: None, hf_home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets commands that run in this process find the text encoder."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", f"{hf_home}/hub")


def test_model_folder_generates_wav_reproducibly(shell: Shell, tiny: Path, text_encoder: None, tmp_path: Path) -> None:
    command = ("generate", "calm piano", "--model", str(tiny), "-d", "1", "--seed", "7")
    copy = tmp_path / "x.wav"
    sampling = ("--temperature", "0.9", "--top-k", "20", "--top-p", "0", "--guidance", "2.5")
    done = shell.run(*command, *sampling, "-o", str(copy))
    with wave.open(str(copy)) as wav:
        assert (wav.getnframes(), wav.getframerate(), wav.getnchannels()) == (32_000, 32_000, 1)
    fields = dict(re.findall(r"^(\w+) {2,}(.+?) *$", done.stdout, re.MULTILINE))
    assert fields["licence"] == "NOASSERTION"
    assert fields["model"].startswith("tiny ")
    assert fields["sampling"] == "temperature 0.9, top k 20, top p 0, guidance scale 2.5"
    assert "licence NOASSERTION" in " ".join(shell.run("show", fields["id"]).stdout.split())
    [shown] = shell.generations("show", fields["id"])
    assert shown.sampling.top_k == 20
    assert shown.metadata["license"] == "NOASSERTION"

    [again] = shell.generations(*command, *sampling)
    assert again.metadata["pcm_sha256"] == shown.metadata["pcm_sha256"]
    [other] = shell.generations(*command, "--temperature", "2")
    assert other.metadata["pcm_sha256"] != shown.metadata["pcm_sha256"]


@pytest.mark.slow
def test_adapters_change_the_music_and_are_recorded(shell: Shell, tiny: Path, text_encoder: None) -> None:
    write_adapter(shell.data_dir / "adapters" / "jazz")
    write_adapter(shell.data_dir / "adapters" / "large", inputs=128)
    shutil.copytree(tiny, shell.data_dir / "models" / "tiny")
    command = ("generate", "calm piano", "--model", "tiny", "-d", "1", "--seed", "7")
    [plain] = shell.generations(*command)
    [adapted] = shell.generations(*command, "--adapter", "jazz:0.5")
    assert "adapters" not in plain.metadata
    assert re.fullmatch(r"jazz:0\.5 \([0-9a-f]{16}\)", adapted.metadata["adapters"])
    assert adapted.metadata["pcm_sha256"] != plain.metadata["pcm_sha256"]

    for name, problem in (
        ("rock", "there is no adapter 'rock'; adapters for model 'tiny': jazz"),
        ("large", r"model 'tiny' can't take the adapter 'large': .*fc1.lora_A.weight has the shape [2, 128]"),
    ):
        error = shell.error(*command, "--adapter", name, status=2)
        assert all(part in " ".join(error.split()) for part in ("--adapter", *problem.split(".*")))
    assert "--adapter: with merged adapters it is another model; give it a name with --name" in shell.error(
        "models", "convert", "tiny", "--adapter", "jazz", status=2
    )
    assert "there is no adapter 'rock'" in shell.error(
        "models", "convert", "tiny", "--adapter", "jazz", "--adapter", "rock", "--name", "merged", status=2
    )
    shell.run("models", "convert", "tiny", "--adapter", "jazz:0.5", "--name", "merged")
    assert "converted by dgx-music from tiny with jazz:0.5" in " ".join(
        shell.run("models", "show", "merged").stdout.split()
    )
    [merged] = shell.generations("generate", "calm piano", "--model", "merged", "-d", "1", "--seed", "7")
    assert merged.metadata["pcm_sha256"] != plain.metadata["pcm_sha256"]

    listed = " ".join(shell.run("models", "list").stdout.split())
    assert "jazz tiny, merged" in listed or "jazz merged, tiny" in listed
    assert "fc1.lora_A.weight has the shape [2, 128]" in listed
    assert re.search(r"adapter +jazz\n.*tiny", shell.run("models", "show", "jazz").stdout)
    shown = json.loads(shell.run("models", "show", "large", "--json").stdout)
    assert (shown["adapter"], shown["models"]) == ("large", "")
    assert "fc1.lora_A.weight" in shown["problem"]
    shell.run("models", "remove", "jazz", "--yes")
    assert not (shell.data_dir / "adapters" / "jazz").exists()
    assert "there is no adapter 'jazz'" in " ".join(shell.error(*command, "--adapter", "jazz", status=2).split())


@pytest.mark.slow
def test_continuation_of_generation_and_of_file(shell: Shell, tiny: Path, text_encoder: None, tmp_path: Path) -> None:
    command = ("generate", "calm piano", "--model", str(tiny), "-d", "1", "--seed", "7")
    [first] = shell.generations(*command)
    [second] = shell.generations(*command, "--continue", first.id, "--continue-seconds", "0.5")
    assert (second.metadata["continued_from"], second.metadata["continued_seconds"]) == (first.id, 0.5)
    assert second.metadata["frames"] == first.metadata["frames"]
    assert second.metadata["pcm_sha256"] != first.metadata["pcm_sha256"]
    assert f"continues the last 0.5 s of {first.id}" in " ".join(shell.run("show", second.id).stdout.split())

    file = tmp_path / "x.wav"
    with wave.open(str(file), "wb") as wav:
        wav.setparams((2, 2, 44_100, 0, "NONE", ""))
        wav.writeframes(bytes(range(256)) * 1000)
    done = shell.run(*command, "--json", "--continue", str(file))
    third = json_format.Parse(done.stdout, Generation())
    assert f"imported {file} (WAV, 16-bit PCM, 1.45125 s, " in done.stderr
    assert f"as clip {third.continuation.source_id}; " in done.stderr
    assert third.metadata["continued_from"] == third.continuation.source_id
    assert third.metadata["continued_seconds"] == pytest.approx(64_000 / 44_100, abs=0.005)


def test_invalid_continuation_source_is_one_line(shell: Shell, tiny: Path, text_encoder: None, tmp_path: Path) -> None:
    file = tmp_path / "x.wav"
    file.write_text("no music")
    command = ("generate", "x", "-d", "1")
    assert "neither a valid id nor an existing file" in shell.error(
        *command, "--continue", str(tmp_path / "none"), status=2
    )
    line = shell.error(*command, "--model", str(tiny), "--continue", str(file), status=2)
    assert line.startswith("error: --continue: ")
    for source in (str(file), "11111111-2222-4333-8444-555555555555"):
        line = shell.error(*command, "--model", "sketch", "--continue", source, status=2)
        assert line.startswith("error: --continue: model 'sketch' can't continue audio; no installed model can; ")
    assert [path for path in (shell.data_dir / "clips").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["state_dict.bin", "compression_state_dict.bin"])
def test_truncated_checkpoint_is_one_line(
    shell: Shell, tiny: Path, text_encoder: None, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny, folder)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    line = shell.error("generate", "x", "-d", "1", "--model", str(folder), status=1)
    assert str(folder / name) in line
    assert "truncated" in line


def test_folder_without_checkpoint_is_one_line(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    line = shell.error("generate", "x", "--model", str(folder), status=1)
    assert f"{folder / 'state_dict.bin'}: no such file" in line


def test_missing_folder_and_missing_model_are_one_line(shell: Shell, tmp_path: Path) -> None:
    assert "does not exist" in shell.error("generate", "x", "--model", str(tmp_path / "none"), status=2)
    line = shell.error("generate", "x", "--model", "musicgen-small", status=1)
    assert "dgx-music models pull musicgen-small" in line


def test_missing_text_encoder_fails_generation_with_advice(shell: Shell, tiny: Path) -> None:
    done = shell.run("generate", "x", "-d", "1", "--model", str(tiny), status=1)
    assert "hf download t5-base" in done.stderr
    findings = json.loads(shell.run("doctor", "--json", status=1, DGX_MUSIC_MODEL_FOLDERS=str(tiny)).stdout)["findings"]
    states = {finding["name"]: finding["state"] for finding in findings}
    assert (states["model"], states["hub cache"]) == ("ok", "broken")


def test_missing_audiocraft_is_one_line(
    shell: Shell, tiny: Path, text_encoder: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "audiocraft.py").write_text("raise ImportError('not here')")
    monkeypatch.delitem(sys.modules, "audiocraft", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    settings = {"DGX_MUSIC_ENGINE": "audiocraft"}
    done = shell.run("generate", "x", "-d", "1", "--model", str(tiny), status=1, **settings)
    *_, line = done.stderr.splitlines()
    assert (
        "audiocraft can't be imported (not here); run `make setup-audiocraft`, or set DGX_MUSIC_ENGINE=native" in line
    )


@pytest.mark.slow
def test_server_uses_model_in_its_data_directory(
    shell: InProcessShell, tiny: Path, text_encoder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        worker, "CLAIM_WAIT_SECONDS", 0.1
    )  # How long a job may wait for a model that was just installed.
    with shell.serving_in_process():
        command = ("generate", "calm piano", "-d", "1", "--model", str(tiny))
        assert str(shell.data_dir / "models") in shell.error(*command, status=2)

        (shell.data_dir / "models").mkdir()
        (shell.data_dir / "models" / "tiny").symlink_to(tiny)
        assert "as installed on the running server" in shell.run(*command).stderr
        listed = [json_format.Parse(line, Model()) for line in shell.run("models", "--json").stdout.splitlines()]
        [found] = [model for model in listed if model.name == "tiny"]
        assert (found.license, found.sample_rate_hz, found.channels, found.is_loaded) == (
            "NOASSERTION",
            32_000,
            1,
            True,
        )
        assert re.search(
            r"tiny +(\(default\) +)?32 kHz × 1 +\d+ s +NOASSERTION +yes", shell.run("models", "list").stdout
        )


def test_doctor_finds_model(shell: Shell, tiny: Path, text_encoder: None) -> None:
    done = shell.run("doctor", "--json", DGX_MUSIC_MODEL_FOLDERS=str(tiny))
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
def test_doctor_gives_advice(shell: Shell, name: str, settings: dict[str, str], advice: str) -> None:
    report = json.loads(shell.run("doctor", "--json", status=1, **settings).stdout)
    assert not report["ok"]
    [found] = [finding for finding in report["findings"] if finding["state"] == "broken"]
    assert found["name"] == name
    assert advice in found["advice"]
    assert f"→ {found['advice']}" in " ".join(shell.run("doctor", status=1, **settings).stdout.split())
