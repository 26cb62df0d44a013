"""Where models are looked for, and which is the default. No test here needs torch, but the last."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dgx_music.errors import FailedPrecondition, InvalidArgument
from generation_service.config import GenerationSettings
from generation_service.models.discovery import MusicGenFolder, installed_models

COMMIT, OTHER = "c" * 40, "d" * 40


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return tmp_path / "hf" / "hub"


@pytest.fixture
def settings(tmp_path: Path) -> GenerationSettings:
    return GenerationSettings(data_dir=tmp_path / "data")


def put(folder: Path) -> Path:
    """A folder that looks like a model's."""
    folder.mkdir(parents=True)
    (folder / "state_dict.bin").write_bytes(b"no weights")
    return folder


def put_pulled(hub: Path, name: str, commit: str = COMMIT, *, is_main: bool = True) -> Path:
    """A model as `dgx-music models pull` and `hf download` leave it."""
    repository = hub / f"models--facebook--{name}"
    folder = put(repository / "snapshots" / commit)
    if is_main:
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
    return folder


def folder_of(settings: GenerationSettings, name: str) -> Path:
    entry = installed_models(settings).get(name)
    assert isinstance(entry, MusicGenFolder)
    return entry.folder


def test_without_any_the_sketch_is_there(settings):
    catalog = installed_models(settings)
    assert catalog.names == ("sketch",)
    assert catalog.get("").load().info.is_synthesiser


def test_folders_of_the_data_directory_go_by_their_names(settings):
    put(settings.data_dir / "models" / "own-lofi")
    (settings.data_dir / "models" / "empty").mkdir()
    (settings.data_dir / "models" / "notes.txt").write_text("")
    assert installed_models(settings).names == ("own-lofi", "sketch")


def test_models_folder_that_is_a_file_has_none(settings):
    settings.data_dir.mkdir()
    (settings.data_dir / "models").write_text("")
    assert installed_models(settings).names == ("sketch",)


def test_pulled_models_go_by_their_published_names(settings, hub):
    put_pulled(hub, "musicgen-stereo-large")
    put_pulled(hub, "musicgen-medium")
    put_pulled(hub, "musicgen-melody")  # Not of those that are supported.
    catalog = installed_models(settings)
    assert catalog.names == ("musicgen-medium", "musicgen-stereo-large", "sketch")


def test_the_smallest_published_one_is_the_default_whatever_else_is_there(settings, hub):
    put(settings.data_dir / "models" / "a-first")
    put(settings.data_dir / "models" / "musicgen-medium")
    put_pulled(hub, "musicgen-small")
    assert installed_models(settings).names == ("musicgen-small", "a-first", "musicgen-medium", "sketch")


def test_a_default_that_is_set_is_the_default(settings, hub):
    put_pulled(hub, "musicgen-small")
    chosen = settings.model_copy(update={"default_model": "sketch"})
    assert installed_models(chosen).default_name == "sketch"


def test_a_default_that_is_not_installed_says_how(settings):
    with pytest.raises(FailedPrecondition, match="dgx-music models pull musicgen-small"):
        installed_models(settings.model_copy(update={"default_model": "musicgen-small"}))
    with pytest.raises(InvalidArgument, match="DGX_MUSIC_DEFAULT_MODEL: there is no model 'x'; there are: sketch"):
        installed_models(settings.model_copy(update={"default_model": "x"}))


def test_a_folder_that_is_named_is_a_model_even_where_nothing_is_there(settings, tmp_path):
    named = settings.model_copy(update={"model_folders": (tmp_path / "nowhere", put(tmp_path / "here"))})
    assert installed_models(named).names == ("nowhere", "here", "sketch")


def test_a_folder_that_is_named_goes_before_others_of_that_name(settings, hub, tmp_path):
    put_pulled(hub, "musicgen-small")
    own = put(settings.data_dir / "models" / "musicgen-small")
    assert folder_of(settings, "musicgen-small") == own
    named = put(tmp_path / "elsewhere" / "musicgen-small")
    settings = settings.model_copy(update={"model_folders": (named,)})
    assert folder_of(settings, "musicgen-small") == named


def test_folders_come_from_the_environment_as_in_path(monkeypatch):
    monkeypatch.setenv("DGX_MUSIC_MODEL_FOLDERS", "/a:/b c")
    assert GenerationSettings().model_folders == (Path("/a"), Path("/b c"))


def test_the_revision_that_main_stands_for_is_taken(settings, hub):
    main = put_pulled(hub, "musicgen-small", COMMIT)
    put_pulled(hub, "musicgen-small", OTHER, is_main=False)
    assert folder_of(settings, "musicgen-small") == main


def test_a_revision_that_was_asked_for_by_its_commit_is_found(settings, hub):
    folder = put_pulled(hub, "musicgen-small", is_main=False)
    assert folder_of(settings, "musicgen-small") == folder


def test_a_pull_that_broke_off_is_no_model(settings, hub):
    (put_pulled(hub, "musicgen-small") / "state_dict.bin").unlink()
    assert installed_models(settings).names == ("sketch",)


@pytest.mark.parametrize(
    ("variable", "below"), [("HF_HUB_CACHE", ""), ("HF_HOME", "hub"), ("XDG_CACHE_HOME", "huggingface/hub")]
)
def test_the_cache_is_where_the_libraries_have_it(settings, tmp_path, monkeypatch, variable, below):
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv(variable, str(tmp_path / "cache"))
    put_pulled(tmp_path / "cache" / below, "musicgen-small")
    assert installed_models(settings).names == ("musicgen-small", "sketch")


async def test_a_model_that_changes_on_disk_is_another_one(settings):
    folder = put(settings.data_dir / "models" / "own")
    catalog = installed_models(settings)
    before = catalog.get("own")
    await catalog.refreshed_names()
    assert catalog.get("own") == before
    (folder / "state_dict.bin").unlink()
    (folder / "state_dict.bin").write_bytes(b"other weights")
    await catalog.refreshed_names()
    assert catalog.get("own") != before


def test_finding_imports_neither_torch_nor_the_hubs_library(settings, hub, monkeypatch):
    monkeypatch.setenv("DGX_MUSIC_DATA_DIR", str(settings.data_dir))
    put_pulled(hub, "musicgen-small")
    script = (
        "import sys; from generation_service.rpc.server import build; "
        "from generation_service.config import GenerationSettings; "
        "names = build(GenerationSettings()).engine.catalog.names; assert 'musicgen-small' in names, names; "
        "sys.exit(', '.join({'torch', 'transformers', 'huggingface_hub', 'yaml'} & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_without_torch_the_command_that_installs_it_is_told(settings):
    put(settings.data_dir / "models" / "own")
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from generation_service.models.discovery import installed_models\n"
        "from dgx_music.errors import FailedPrecondition\n"
        "try: installed_models().get('own').describe()\n"
        "except FailedPrecondition as error: print(error.reason, error.message)"
    )
    environment = {"DGX_MUSIC_DATA_DIR": str(settings.data_dir), "PYTHONPATH": str(Path(__file__).parents[3])}
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment)
    assert told.stdout.startswith("TORCH_MISSING MusicGen needs torch")
    assert told.stdout.endswith("pip install 'dgx-music[musicgen]'\n")


def test_files_that_are_no_model_are_an_error_when_it_is_asked_for(settings, tmp_path):
    pytest.importorskip("torch", reason="MusicGen needs torch")
    put(settings.data_dir / "models" / "own")
    catalog = installed_models(settings.model_copy(update={"model_folders": (tmp_path / "nowhere",)}))
    with pytest.raises(FailedPrecondition, match=r"own/state_dict\.bin: the file is truncated"):
        catalog.get("own").describe()
    with pytest.raises(FailedPrecondition, match=r"nowhere/state_dict\.bin: no such file"):
        catalog.get("nowhere").describe()
