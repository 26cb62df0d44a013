"""Where models are searched for, and which one is the default. Only the last test needs torch."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dgx_music.errors import FailedPrecondition, InvalidArgument
from generation_service.config import GenerationSettings
from generation_service.hardware.devices import Devices
from generation_service.hardware.gpu_readings import GpuReader
from generation_service.models import discovery
from generation_service.models.discovery import MusicGenFolder, find_installed_models
from tests.support.nvml_library import NvmlGpu, NvmlLibrary

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


def add_model(folder: Path) -> Path:
    """Creates a folder that looks like a model's."""
    folder.mkdir(parents=True)
    (folder / "state_dict.bin").write_bytes(b"no weights")
    return folder


def add_hub_model(hub: Path, name: str, commit: str = COMMIT, *, is_main: bool = True) -> Path:
    """Creates a model in the cache like `dgx-music models pull` and `hf download` do."""
    repository = hub / f"models--facebook--{name}"
    folder = add_model(repository / "snapshots" / commit)
    if is_main:
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
    return folder


def find_folder(settings: GenerationSettings, name: str) -> Path:
    entry = find_installed_models(settings).get(name)
    assert isinstance(entry, MusicGenFolder)
    return entry.folder


def test_sketch_is_available_without_other_models(settings):
    catalog = find_installed_models(settings)
    assert catalog.names == ("sketch",)
    assert catalog.get("").load().info.is_synthesiser


def test_data_directory_folders_are_named_after_the_folder(settings):
    add_model(settings.data_dir / "models" / "own-lofi")
    (settings.data_dir / "models" / "empty").mkdir()
    (settings.data_dir / "models" / "notes.txt").write_text("")
    assert find_installed_models(settings).names == ("own-lofi", "sketch")


def test_models_folder_that_is_a_file_is_ignored(settings):
    settings.data_dir.mkdir()
    (settings.data_dir / "models").write_text("")
    assert find_installed_models(settings).names == ("sketch",)


def test_models_folder_that_cannot_be_read_is_ignored(settings):
    settings.data_dir.mkdir()
    (settings.data_dir / "models").symlink_to("models")
    assert find_installed_models(settings).names == ("sketch",)


@pytest.mark.parametrize("name", ["x" * 201, "\x1b[31mred", " ", os.fsdecode(b"not UTF-8 \xff")])
def test_model_whose_name_no_request_can_have_is_ignored(settings, tmp_path, name):
    add_model(settings.data_dir / "models" / name)
    configured = GenerationSettings(data_dir=settings.data_dir, model_folders=(add_model(tmp_path / "own" / name),))
    assert find_installed_models(configured).names == ("sketch",)


def test_pulled_models_have_their_published_names(settings, hub):
    add_hub_model(hub, "musicgen-stereo-large")
    add_hub_model(hub, "musicgen-medium")
    add_hub_model(hub, "musicgen-huge")  # Not a published model.
    catalog = find_installed_models(settings)
    assert catalog.names == ("musicgen-medium", "musicgen-stereo-large", "sketch")


def test_smallest_published_model_is_the_default(settings, hub):
    add_model(settings.data_dir / "models" / "a-first")
    add_model(settings.data_dir / "models" / "musicgen-medium")
    add_hub_model(hub, "musicgen-small")
    assert find_installed_models(settings).names == ("musicgen-small", "a-first", "musicgen-medium", "sketch")


def test_configured_default_takes_precedence(settings, hub):
    add_hub_model(hub, "musicgen-small")
    chosen = settings.model_copy(update={"default_model": "sketch"})
    assert find_installed_models(chosen).default_name == "sketch"


def test_missing_default_error_says_how_to_install_it(settings):
    with pytest.raises(FailedPrecondition, match="dgx-music models pull musicgen-small"):
        find_installed_models(settings.model_copy(update={"default_model": "musicgen-small"}))
    with pytest.raises(
        InvalidArgument, match="DGX_MUSIC_DEFAULT_MODEL: there is no model 'x'; available models: sketch"
    ):
        find_installed_models(settings.model_copy(update={"default_model": "x"}))


def test_configured_folder_is_listed_even_if_missing(settings, tmp_path):
    configured = settings.model_copy(update={"model_folders": (tmp_path / "nowhere", add_model(tmp_path / "here"))})
    assert find_installed_models(configured).names == ("nowhere", "here", "sketch")


def test_configured_folder_takes_precedence_over_the_same_name(settings, hub, tmp_path):
    add_hub_model(hub, "musicgen-small")
    own = add_model(settings.data_dir / "models" / "musicgen-small")
    assert find_folder(settings, "musicgen-small") == own
    configured = add_model(tmp_path / "elsewhere" / "musicgen-small")
    settings = settings.model_copy(update={"model_folders": (configured,)})
    assert find_folder(settings, "musicgen-small") == configured


def test_model_folders_variable_is_split_like_path(monkeypatch):
    monkeypatch.setenv("DGX_MUSIC_MODEL_FOLDERS", "/a:/b c")
    assert GenerationSettings().model_folders == (Path("/a"), Path("/b c"))


def test_hub_revision_of_main_is_used(settings, hub):
    main = add_hub_model(hub, "musicgen-small", COMMIT)
    add_hub_model(hub, "musicgen-small", OTHER, is_main=False)
    assert find_folder(settings, "musicgen-small") == main


def test_hub_revision_pulled_by_commit_is_found(settings, hub):
    folder = add_hub_model(hub, "musicgen-small", is_main=False)
    assert find_folder(settings, "musicgen-small") == folder


def test_interrupted_pull_is_not_listed(settings, hub):
    (add_hub_model(hub, "musicgen-small") / "state_dict.bin").unlink()
    assert find_installed_models(settings).names == ("sketch",)


@pytest.mark.parametrize(
    ("variable", "below"), [("HF_HUB_CACHE", ""), ("HF_HOME", "hub"), ("XDG_CACHE_HOME", "huggingface/hub")]
)
def test_hub_cache_variables_are_respected(settings, tmp_path, monkeypatch, variable, below):
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv(variable, str(tmp_path / "cache"))
    add_hub_model(tmp_path / "cache" / below, "musicgen-small")
    assert find_installed_models(settings).names == ("musicgen-small", "sketch")


async def test_changed_weights_make_another_entry(settings):
    folder = add_model(settings.data_dir / "models" / "own")
    catalog = find_installed_models(settings)
    before = catalog.get("own")
    await catalog.refresh_names()
    assert catalog.get("own") == before
    (folder / "state_dict.bin").unlink()
    (folder / "state_dict.bin").write_bytes(b"other weights")
    await catalog.refresh_names()
    assert catalog.get("own") != before


def test_discovery_imports_neither_torch_nor_huggingface_hub(settings, hub, monkeypatch):
    monkeypatch.setenv("DGX_MUSIC_DATA_DIR", str(settings.data_dir))
    add_hub_model(hub, "musicgen-small")
    script = (
        "import sys; from generation_service.rpc.server import build; "
        "from generation_service.config import GenerationSettings; "
        "names = build(GenerationSettings()).engine.catalog.names; assert 'musicgen-small' in names, names; "
        "sys.exit(', '.join({'torch', 'transformers', 'huggingface_hub', 'yaml'} & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_describe_without_torch_says_how_to_install_it(settings):
    add_model(settings.data_dir / "models" / "own")
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from generation_service.models.discovery import find_installed_models\n"
        "from dgx_music.errors import FailedPrecondition\n"
        "try: find_installed_models().get('own').describe()\n"
        "except FailedPrecondition as error: print(error.reason, error.message)"
    )
    environment = {"DGX_MUSIC_DATA_DIR": str(settings.data_dir), "PYTHONPATH": str(Path(__file__).parents[4])}
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment)
    assert result.stdout.startswith("TORCH_MISSING MusicGen needs torch")
    assert result.stdout.endswith("pip install 'dgx-music[musicgen]'\n")


@pytest.mark.parametrize(("device", "is_kept"), [("cuda", True), ("cpu", False)])
def test_a_gpu_keeps_compiled_kernels_in_the_data_folder(settings, monkeypatch, device, is_kept):
    pytest.importorskip("torch", reason="MusicGen needs torch")
    pytest.importorskip("transformers", reason="the text encoder is transformers'")
    from generation_service.models.musicgen import loader

    monkeypatch.setenv("TRITON_CACHE_DIR", "elsewhere")  # So that it is restored in any case.
    monkeypatch.delenv("TRITON_CACHE_DIR")
    at_load = []
    monkeypatch.setattr(discovery.MusicGenFolder, "_find_native", lambda entry: entry.folder)
    monkeypatch.setattr(loader, "load_musicgen", lambda *a, **options: at_load.append(os.getenv("TRITON_CACHE_DIR")))
    add_model(settings.data_dir / "models" / "own")
    entry = find_installed_models(settings).get("own")
    replace(entry, device=device).load()
    assert at_load == [str(settings.data_dir / "kernels" / "triton") if is_kept else None]


def test_slowest_gpu_decides_the_precision(settings, monkeypatch):
    add_model(settings.data_dir / "models" / "own")
    assert find_installed_models(settings, 273.0).get("own").memory_gb_per_second == 273.0
    library = NvmlLibrary(NvmlGpu("GPU-a"), NvmlGpu("GPU-b", bus_bits=192, memory_megahertz=6251))
    monkeypatch.setattr(discovery, "Devices", lambda: Devices(GpuReader(library), {}))
    both = find_installed_models(settings.model_copy(update={"devices": "0,1"})).get("own")
    assert (both.device, round(both.memory_gb_per_second)) == ("cuda", 300)


def test_describe_of_invalid_files_is_failed_precondition(settings, tmp_path):
    pytest.importorskip("torch", reason="MusicGen needs torch")
    add_model(settings.data_dir / "models" / "own")
    catalog = find_installed_models(settings.model_copy(update={"model_folders": (tmp_path / "nowhere",)}))
    with pytest.raises(FailedPrecondition, match=r"own/state_dict\.bin: the file is truncated"):
        catalog.get("own").describe()
    with pytest.raises(FailedPrecondition, match=r"nowhere/state_dict\.bin: no such file"):
        catalog.get("nowhere").describe()


def test_adapters_are_those_of_the_data_directory(settings, mono):
    entry = find_installed_models(settings.model_copy(update={"model_folders": (mono,)})).get("mono")
    assert entry.adapter_problems() == {}
    adapter = settings.data_dir / "adapters" / "jazz"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    assert "peft_type is None" in entry.adapter_problems()["jazz"]
    assert replace(entry, engine="audiocraft").adapter_problems() == {}
