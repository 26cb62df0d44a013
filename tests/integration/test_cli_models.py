"""Models from the Hugging Face hub, into its cache and out of it again; the hub is one on this machine."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import Shell, line_with
from tests.support.hub import COMMIT, serving_hub
from tests.support.processes import free_ports

pytest.importorskip("huggingface_hub", reason="models are pulled by it")

NOTE = "pulled-by-dgx-music.json"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Its folder, and its endpoint. It has a model of 100 bytes, and the text encoder."""
    root = tmp_path / "hub"
    files = {
        "facebook/musicgen-small": ("state_dict.bin", "compression_state_dict.bin", "README.md"),
        "t5-base": ("config.json", "model.safetensors", "spiece.model", "pytorch_model.bin"),
    }
    for repository, names in files.items():
        (root / repository).mkdir(parents=True)
        for name in names:
            (root / repository / name).write_bytes(name.encode() * 10)
    with serving_hub(root) as endpoint:
        yield root, endpoint


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "data")


def names_in(cache: Path) -> set[str]:
    return {path.name for path in cache.rglob("snapshots/*/*")}


def test_what_was_pulled_makes_music_until_it_is_removed(shell: Shell, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="MusicGen needs torch")
    pytest.importorskip("transformers", reason="the text encoder is transformers'")
    from tests.support.checkpoints import T5_REVISION, write_checkpoint, write_t5

    root, home = tmp_path / "hub", tmp_path / "hf"
    write_checkpoint(root / "facebook" / "musicgen-small")
    write_t5(tmp_path / "t5")
    shutil.copytree(tmp_path / "t5" / "hub" / "models--t5-base" / "snapshots" / T5_REVISION, root / "t5-base")
    settings = {"HF_HOME": str(home)}
    with shell.running("serve", DGX_MUSIC_GATEWAY_ADDRESS="127.0.0.1:0", **settings) as server:
        line_with('"serving"', server)
        with serving_hub(root) as endpoint:
            pulled = shell.run("models", "pull", "musicgen-small", HF_ENDPOINT=endpoint, **settings)
        assert "licence CC-BY-NC-4.0" in pulled.stderr.splitlines()[0]
        assert re.search(r"facebook/musicgen-small: downloading \d+\.\d+ GB", pulled.stderr)
        assert COMMIT in pulled.stdout

        listed = shell.run("models")
        assert re.search(r"musicgen-small \(default\) +32 kHz × 1 +\d+ s +CC-BY-NC-4.0", listed.stdout)
        assert "musicgen-small" not in listed.stderr
        assert "musicgen-large" in listed.stderr
        [made] = shell.generations("generate", "calm piano", "-d", "0.5")
        assert made.model_name == "musicgen-small"
        assert made.metadata["license"] == "CC-BY-NC-4.0"

        shell.run("models", "remove", "musicgen-small", "--yes", **settings)
        assert "musicgen-small" in line_with('"model_unloaded"', server)
        assert "dgx-music models pull" in shell.error("generate", "x", "--model", "musicgen-small", status=1)


def test_only_what_is_needed_is_pulled_and_only_what_was_pulled_is_removed(
    shell: Shell, hub: tuple[Path, str], tmp_path: Path
) -> None:
    settings = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub[1]}
    cache = tmp_path / "hf" / "hub"
    repository = cache / "models--facebook--musicgen-small"
    shell.run("models", "pull", "musicgen-small", **settings)
    assert names_in(repository) == {"state_dict.bin", "compression_state_dict.bin"}
    assert names_in(cache / "models--t5-base") == {"config.json", "model.safetensors", "spiece.model"}
    assert (repository / "refs" / "main").read_text() == COMMIT
    assert (cache / "models--t5-base" / "refs" / "main").read_text() == COMMIT
    assert json.loads((repository / NOTE).read_text()).keys() == {COMMIT}
    assert shell.run("models", "pull", "musicgen-small", **settings).stderr.count("is here already") == 2

    (repository / "snapshots" / COMMIT / "README.md").write_text("of somebody else")
    assert "nothing was done" in shell.run("models", "remove", "musicgen-small", status=1, **settings).stderr
    assert "deleted" in shell.run("models", "remove", "musicgen-small", "--yes", **settings).stderr
    assert names_in(repository) == {"README.md"}
    assert not list((repository / "blobs").iterdir())
    assert names_in(cache / "models--t5-base")
    assert "left alone" in shell.error("models", "remove", "musicgen-small", "--yes", status=1, **settings)


def test_what_was_there_before_is_not_removed(shell: Shell, hub: tuple[Path, str], tmp_path: Path) -> None:
    settings = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub[1]}
    repository = tmp_path / "hf" / "hub" / "models--facebook--musicgen-small"
    shell.run("models", "pull", "musicgen-small", **settings)
    (repository / NOTE).write_text(json.dumps({COMMIT: ["compression_state_dict.bin"]}))
    shell.run("models", "remove", "musicgen-small", "--yes", **settings)
    assert names_in(repository) == {"state_dict.bin"}
    assert len(list((repository / "blobs").iterdir())) == 1

    shell.run("models", "pull", "musicgen-small", **settings)
    (repository / "snapshots" / COMMIT / "state_dict.bin").unlink()
    shell.run("models", "remove", "musicgen-small", "--yes", **settings)
    assert not repository.exists()
    assert "is not there" in shell.error("models", "remove", "musicgen-small", "--yes", status=1, **settings)


def test_a_codec_that_is_only_named_is_pulled_too(shell: Shell, hub: tuple[Path, str], tmp_path: Path) -> None:
    root, endpoint = hub
    with zipfile.ZipFile(root / "facebook/musicgen-small/compression_state_dict.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"pretrained": "facebook/encodec_32khz"}))
    (root / "facebook/encodec_32khz").mkdir()
    (root / "facebook/encodec_32khz/config.json").write_text("{}")
    shell.run("models", "pull", "musicgen-small", HF_HOME=str(tmp_path / "hf"), HF_ENDPOINT=endpoint)
    assert names_in(tmp_path / "hf/hub/models--facebook--encodec_32khz") == {"config.json"}


def test_what_can_not_be_pulled_is_one_line(shell: Shell, hub: tuple[Path, str], tmp_path: Path) -> None:
    pull = ("models", "pull", "musicgen-small")
    home = str(tmp_path / "hf")
    silent = f"http://127.0.0.1:{free_ports(1)[0]}"
    line = shell.error(*pull, status=1, HF_HOME=home, HF_ENDPOINT=silent)
    assert silent in line
    assert "check the network" in line
    assert "HF_HUB_OFFLINE" in shell.error(*pull, status=1, HF_HOME=home, HF_HUB_OFFLINE="1")
    line = shell.error("models", "pull", "musicgen-medium", status=1, HF_HOME=home, HF_ENDPOINT=hub[1])
    assert "404" in line
    line = shell.error("models", "pull", "musicgen-huge", status=2)
    assert "musicgen-stereo-small" in line
