"""The models that this machine has. Finding them opens no file and imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgx_music.errors import FailedPrecondition
from generation_service.config import DeviceChoice, DeviceName, EngineName, GenerationSettings, PrecisionChoice
from generation_service.models.base import Model, ModelInfo
from generation_service.models.catalog import KnownModel, ModelCatalog, ModelEntry
from generation_service.models.device import choose
from generation_service.models.sketch import Sketch
from service_runtime.optional_deps import install_extra_command

if TYPE_CHECKING:
    from generation_service.models.musicgen.loader import FoundModel

PUBLISHED = (
    "musicgen-small",
    "musicgen-stereo-small",
    "musicgen-medium",
    "musicgen-stereo-medium",
    "musicgen-large",
    "musicgen-stereo-large",
)
"""Of facebook/ on the Hugging Face hub, smallest first: the order in which one is the default."""
_LM_FILE = "state_dict.bin"


@dataclass(frozen=True, slots=True)
class MusicGenFolder:
    """A folder of audiocraft's files, whatever state they are in. Implements `ModelEntry`."""

    name: str
    folder: Path
    stamp: int
    """When the weights were written, in ns; 0 where there are none."""
    engine: EngineName
    device: DeviceChoice
    precision: PrecisionChoice
    max_requests: int

    def describe(self) -> ModelInfo:
        """Reads the files' heads; imports torch, which takes seconds the first time."""
        if self.engine == "native":
            return self._found().info
        try:
            from generation_service.models.audiocraft import find_audiocraft
        except ImportError as error:
            raise _torch_missing(error) from error
        return find_audiocraft(self.folder, name=self.name, device=self._audiocraft_device())

    def load(self) -> Model[Any]:
        if self.engine == "audiocraft":
            from generation_service.models.audiocraft import load_audiocraft

            return load_audiocraft(self.folder, name=self.name, device=self._audiocraft_device())
        from generation_service.models.musicgen.loader import load_musicgen

        return load_musicgen(self._found(), max_requests=self.max_requests)

    def _found(self) -> FoundModel:
        try:
            from generation_service.models.musicgen.loader import find_musicgen
        except ImportError as error:
            raise _torch_missing(error) from error
        return find_musicgen(self.folder, name=self.name, device=self.device, precision=self.precision)

    def _audiocraft_device(self) -> DeviceName:
        if self.precision != "auto":
            raise FailedPrecondition(
                f"DGX_MUSIC_PRECISION is {self.precision}; audiocraft chooses its own: set it to auto, or "
                "DGX_MUSIC_ENGINE to native",
                reason="PRECISION_UNSUPPORTED",
            )
        return choose(self.device, "auto")[0]


def installed_models(settings: GenerationSettings | None = None) -> ModelCatalog:
    """The models of this installation, the preferred one first.

    Raises FailedPrecondition or InvalidArgument where the default that is set is not among them.
    """
    settings = settings or GenerationSettings()
    return ModelCatalog(lambda: _find(settings), settings.default_model, installable=PUBLISHED)


def _find(settings: GenerationSettings) -> Iterator[ModelEntry]:
    def entry(name: str, folder: Path) -> MusicGenFolder:
        return MusicGenFolder(
            name=name,
            folder=folder,
            stamp=_written_at(folder),
            engine=settings.engine,
            device=settings.device,
            precision=settings.precision,
            max_requests=settings.max_batch_size,
        )

    for folder in settings.model_folders:
        yield entry(folder.resolve().name, folder)  # Those who name one want to hear what is wrong with it.
    own = _own_folders(settings.data_dir / "models")
    for name in PUBLISHED:
        published = own.pop(name, None) or _hub_snapshot(name)
        if published is not None:
            yield entry(name, published)
    for name, folder in own.items():
        yield entry(name, folder)
    yield KnownModel(Sketch().info, Sketch)


def _own_folders(models: Path) -> dict[str, Path]:
    try:
        return {folder.name: folder for folder in sorted(models.iterdir()) if _written_at(folder)}
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}


def _hub_snapshot(name: str) -> Path | None:
    """Where the Hugging Face cache has it: the revision that "main" stood for when it was pulled, else the newest.

    The layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    repository = _hub_cache() / f"models--facebook--{name}"
    try:
        snapshots = [folder for folder in (repository / "snapshots").iterdir() if _written_at(folder)]
    except OSError:
        return None
    try:
        main = (repository / "refs" / "main").read_text().strip()
    except OSError:
        main = ""
    return max(snapshots, key=lambda folder: (folder.name == main, folder.stat().st_mtime_ns), default=None)


def _hub_cache() -> Path:
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache)
    if home := os.environ.get("HF_HOME"):
        return Path(home) / "hub"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface" / "hub"


def _written_at(folder: Path) -> int:
    try:
        return (folder / _LM_FILE).stat().st_mtime_ns
    except OSError:
        return 0


def _torch_missing(error: ImportError) -> FailedPrecondition:
    return FailedPrecondition(
        f"MusicGen needs torch, which can't be imported here ({error}); {install_extra_command('musicgen')}",
        reason="TORCH_MISSING",
    )
