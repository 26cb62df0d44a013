"""`dgx-music models`: downloads from a Hugging Face hub on this machine, and removal."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command_line import Shell, read_until
from tests.support.hub import COMMIT, serving_hub
from tests.support.processes import free_ports

constants = pytest.importorskip("huggingface_hub.constants", reason="it downloads the models")

RECORD = "pulled-by-dgx-music.json"
UseHub = Callable[[str], None]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The Hugging Face cache of the commands."""
    return tmp_path / "hf" / "hub"


@pytest.fixture
def use_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> UseHub:
    """Points the hub's library, which reads its settings on import, at an endpoint and at the cache of the test."""

    def use(endpoint: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))

    return use


@pytest.fixture
def hub(tmp_path: Path, use_hub: UseHub) -> Iterator[Path]:
    """The folder of a hub with a model of a few bytes and the text encoder, which the commands use."""
    root = tmp_path / "repositories"
    files = {
        "facebook/musicgen-small": ("state_dict.bin", "compression_state_dict.bin", "README.md"),
        "t5-base": ("config.json", "model.safetensors", "spiece.model", "pytorch_model.bin"),
    }
    for repository, names in files.items():
        (root / repository).mkdir(parents=True)
        for name in names:
            (root / repository / name).write_bytes(name.encode() * 10)
    with serving_hub(root) as endpoint:
        use_hub(endpoint)
        yield root


def names_in(cache: Path) -> set[str]:
    return {path.name for path in cache.rglob("snapshots/*/*")}


def test_pulled_model_generates_music_until_it_is_removed(
    shell: Shell, cache: Path, use_hub: UseHub, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="MusicGen needs torch")
    pytest.importorskip("transformers", reason="the text encoder is from transformers")
    from tests.support.checkpoints import T5_REVISION, write_checkpoint, write_t5

    root = tmp_path / "repositories"
    write_checkpoint(root / "facebook" / "musicgen-small")
    write_t5(tmp_path / "t5")
    shutil.copytree(tmp_path / "t5" / "hub" / "models--t5-base" / "snapshots" / T5_REVISION, root / "t5-base")
    with shell.running("serve", DGX_MUSIC_GATEWAY_ADDRESS="127.0.0.1:0", HF_HOME=str(cache.parent)) as server:
        read_until('"serving"', server)
        with serving_hub(root) as endpoint:
            use_hub(endpoint)
            pulled = shell.run("models", "pull", "musicgen-small")
        assert "licence CC-BY-NC-4.0" in pulled.stderr.splitlines()[0]
        assert re.search(r"facebook/musicgen-small: downloading \d+\.\d+ GB", pulled.stderr)
        assert COMMIT in pulled.stdout

        listed = shell.run("models")
        assert re.search(r"musicgen-small \(default\) +32 kHz × 1 +\d+ s +CC-BY-NC-4.0", listed.stdout)
        assert "musicgen-small" not in listed.stderr
        assert "musicgen-large" in listed.stderr
        [generation] = shell.generations("generate", "calm piano", "-d", "0.5")
        assert generation.model_name == "musicgen-small"
        assert generation.metadata["license"] == "CC-BY-NC-4.0"

        shell.run("models", "remove", "musicgen-small", "--yes")
        assert "musicgen-small" in read_until('"model_unloaded"', server)
        assert "dgx-music models pull" in shell.error("generate", "x", "--model", "musicgen-small", status=1)


def test_only_required_files_are_pulled_and_only_pulled_files_are_removed(
    shell: Shell, hub: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = cache / "models--facebook--musicgen-small"
    shell.run("models", "pull", "musicgen-small")
    assert names_in(repository) == {"state_dict.bin", "compression_state_dict.bin"}
    assert names_in(cache / "models--t5-base") == {"config.json", "model.safetensors", "spiece.model"}
    assert (repository / "refs" / "main").read_text() == COMMIT
    assert (cache / "models--t5-base" / "refs" / "main").read_text() == COMMIT
    assert json.loads((repository / RECORD).read_text()).keys() == {COMMIT}
    assert shell.run("models", "pull", "musicgen-small").stderr.count("already downloaded") == 2

    (repository / "snapshots" / COMMIT / "README.md").write_text("from another program")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert "nothing was changed" in shell.run("models", "remove", "musicgen-small", status=1).stderr
    assert "deleted" in shell.run("models", "remove", "musicgen-small", "--yes").stderr
    assert names_in(repository) == {"README.md"}
    assert not list((repository / "blobs").iterdir())
    assert names_in(cache / "models--t5-base")
    assert "left alone" in shell.error("models", "remove", "musicgen-small", "--yes", status=1)


def test_files_that_existed_before_the_pull_are_not_removed(shell: Shell, hub: Path, cache: Path) -> None:
    repository = cache / "models--facebook--musicgen-small"
    shell.run("models", "pull", "musicgen-small")
    (repository / RECORD).write_text(json.dumps({COMMIT: ["compression_state_dict.bin"]}))
    shell.run("models", "remove", "musicgen-small", "--yes")
    assert names_in(repository) == {"state_dict.bin"}
    assert len(list((repository / "blobs").iterdir())) == 1

    shell.run("models", "pull", "musicgen-small")
    (repository / "snapshots" / COMMIT / "state_dict.bin").unlink()
    shell.run("models", "remove", "musicgen-small", "--yes")
    assert not repository.exists()
    assert "is not installed" in shell.error("models", "remove", "musicgen-small", "--yes", status=1)


def test_codec_that_checkpoint_refers_to_is_pulled(shell: Shell, hub: Path, cache: Path) -> None:
    with zipfile.ZipFile(hub / "facebook/musicgen-small/compression_state_dict.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"pretrained": "facebook/encodec_32khz"}))
    (hub / "facebook/encodec_32khz").mkdir()
    (hub / "facebook/encodec_32khz/config.json").write_text("{}")
    shell.run("models", "pull", "musicgen-small")
    assert names_in(cache / "models--facebook--encodec_32khz") == {"config.json"}


def test_failed_pull_is_one_line(shell: Shell, hub: Path, use_hub: UseHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "404" in shell.error("models", "pull", "musicgen-medium", status=1)
    assert "musicgen-stereo-small" in shell.error("models", "pull", "musicgen-huge", status=2)
    unreachable = f"http://127.0.0.1:{free_ports(1)[0]}"
    use_hub(unreachable)
    line = shell.error("models", "pull", "musicgen-small", status=1)
    assert unreachable in line
    assert "check the network" in line
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in shell.error("models", "pull", "musicgen-small", status=1)


def test_text_encoder_that_checkpoint_names_is_pulled(shell: Shell, hub: Path, cache: Path) -> None:
    """As AudioGen's does, which was trained with a larger one."""
    config = "conditioners:\n  description:\n    model: t5\n    t5:\n      finetune: false\n      name: t5-large\n"
    (hub / "facebook/audiogen-medium").mkdir()
    for name in ("state_dict.bin", "compression_state_dict.bin"):
        with zipfile.ZipFile(hub / "facebook/audiogen-medium" / name, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"best_state": {}, "xp.cfg": config}))
            archive.writestr("archive/data/0", b"weights")
    (hub / "t5-large").mkdir()
    for name in ("config.json", "pytorch_model.bin"):
        (hub / "t5-large" / name).write_text("{}")
    shell.run("models", "pull", "audiogen-medium")
    assert names_in(cache / "models--t5-large") == {"config.json", "pytorch_model.bin"}
    assert not (cache / "models--t5-base").exists()


def test_model_in_folders_is_pulled_and_removed_with_its_licence(shell: Shell, hub: Path, cache: Path) -> None:
    repository = hub / "ACE-Step/acestep-v15-xl-turbo-diffusers"
    wanted = {"model_index.json", "README.md", "vae/config.json", "vae/diffusion_pytorch_model.safetensors"}
    for name in (*wanted, "checkpoint.ckpt", "vae/diffusion_pytorch_model.bin"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(name)
    pulled = shell.run("models", "pull", "acestep-v15-xl-turbo-diffusers")
    assert "licence MIT" in pulled.stderr.splitlines()[0]
    snapshot = cache / "models--ACE-Step--acestep-v15-xl-turbo-diffusers" / "snapshots" / COMMIT
    assert {str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file()} == wanted
    shell.run("models", "remove", "acestep-v15-xl-turbo-diffusers", "--yes")
    assert not snapshot.exists()


@pytest.mark.slow
def test_converted_model_takes_the_place_of_its_original_until_it_is_removed(
    shell: Shell, cache: Path, tmp_path: Path, use_hub: UseHub
) -> None:
    pytest.importorskip("torch", reason="MusicGen needs torch")
    pytest.importorskip("transformers", reason="the text encoder is from transformers")
    from tests.support.checkpoints import write_checkpoint, write_t5

    use_hub("http://nothing.is.downloaded")
    settings = {"HF_HOME": str(cache.parent)}
    original = cache / "models--facebook--musicgen-small" / "snapshots" / COMMIT
    write_checkpoint(original)
    write_t5(cache.parent)
    options = ("generate", "calm piano", "-d", "0.5", "--seed", "1", "--json", "-o")
    shell.run(*options, str(tmp_path / "original.wav"), **settings)
    assert "audiocraft" in shell.run("models", "show", "musicgen-small", **settings).stdout

    converted = shell.run("models", "convert", "musicgen-small", "--precision", "fp32", **settings).stdout
    shutil.rmtree(cache)  # It needs nothing else: its codec and its text encoder are in it.
    folder = shell.data_dir / "models" / "musicgen-small"
    assert {"model.safetensors", "config.json"} < {file.name for file in folder.iterdir()}
    assert str(folder) in converted
    shown = shell.run("models", "show", "musicgen-small").stdout
    assert "converted by dgx-music from musicgen-small" in shown
    assert re.search(r"licence +CC-BY-NC-4\.0", shown)
    shell.run(*options, str(tmp_path / "converted.wav"))
    first, second = ((tmp_path / name).read_bytes() for name in ("original.wav", "converted.wav"))
    assert samples_of(first) == samples_of(second)

    assert "exists" in shell.error("models", "convert", "musicgen-small", status=1)
    assert "without slashes" in shell.error("models", "convert", "musicgen-small", "--name", "a/b", status=2)
    assert "can't be converted" in shell.error("models", "convert", "sketch", status=2)
    shell.run("models", "remove", "musicgen-small", "--yes")
    assert not folder.exists()
    assert "dgx-music models pull" in shell.error("models", "show", "musicgen-small", status=1)


def samples_of(wav: bytes) -> bytes:
    return wav[wav.index(b"data") + 8 :].split(b"LIST")[0]
