"""AudioGen and MAGNeT from the command line, with tiny checkpoints in the real format."""

from __future__ import annotations

import re
import wave
from pathlib import Path

import pytest

from tests.support.command_line import Shell

pytest.importorskip("torch", reason="AudioGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is from transformers")
constants = pytest.importorskip("huggingface_hub.constants", reason="it finds the text encoder")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models, beside a Hugging Face cache with their text encoder."""
    from tests.support.sound_checkpoints import write_audiogen, write_magnet, write_t5_large

    home = tmp_path_factory.mktemp("sounds")
    write_t5_large(home)
    write_audiogen(home / "audiogen-medium")
    write_magnet(home / "audio-magnet-small", is_sound=True)
    return home


@pytest.fixture(autouse=True)
def text_encoder(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", f"{models}/hub")


@pytest.mark.parametrize("name", ["audiogen-medium", pytest.param("audio-magnet-small", marks=pytest.mark.slow)])
def test_sound_is_generated_reproducibly(shell: Shell, models: Path, name: str, tmp_path: Path) -> None:
    command = ("generate", "dog barking", "--model", str(models / name), "-d", "1", "--seed", "7")
    copy = tmp_path / "x.wav"
    done = shell.run(*command, "-o", str(copy))
    with wave.open(str(copy)) as wav:
        assert (wav.getnframes(), wav.getframerate(), wav.getnchannels()) == (16_000, 16_000, 1)
    fields = dict(re.findall(r"^(\w+) {2,}(.+?) *$", done.stdout, re.MULTILINE))
    assert fields["audio"].startswith("1 s, 16 kHz mono")
    assert fields["licence"] == "CC-BY-NC-4.0"

    [shown] = shell.generations("show", fields["id"])
    [again] = shell.generations(*command, "--format", "opus")
    assert again.metadata["pcm_sha256"] == shown.metadata["pcm_sha256"]
    [continued] = shell.generations(*command[:-4], "-d", "0.5", "--continue", shown.id, "--negative", "cats")
    assert continued.metadata["continued_from"] == shown.id


def test_magnet_refuses_what_is_longer_than_its_segment(shell: Shell, models: Path) -> None:
    line = shell.error("generate", "x", "--model", str(models / "audio-magnet-small"), "-d", "1.1", status=2)
    assert "--duration: must be at most 1 s" in line
