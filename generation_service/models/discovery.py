"""Finds the models that are installed on this machine, without opening a file or importing torch."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgx_music.errors import FailedPrecondition, InvalidArgument
from generation_service.config import DeviceName, EngineName, GenerationSettings, KvPrecisionChoice, PrecisionChoice
from generation_service.hardware.devices import Device, Devices
from generation_service.models.base import AdapterUse, Model, ModelInfo
from generation_service.models.catalog import BuiltInModel, ModelCatalog, ModelEntry
from generation_service.models.device import resolve_device
from generation_service.models.diffusion.pipeline_entry import DiffusionFolder
from generation_service.models.model_folders import find_layout, installed_folders, weights_mtime_ns
from generation_service.models.musicgen.adapters.installed_adapters import find_adapters
from generation_service.models.published import PUBLISHED
from generation_service.models.sketch import Sketch
from service_runtime.optional_deps import install_extra_command

if TYPE_CHECKING:
    from generation_service.models.magnet.magnet_loader import FoundMagnet
    from generation_service.models.musicgen.adapters.adapter_registry import AdapterRegistry
    from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint
    from generation_service.models.musicgen.loader import FoundModel

ADAPTERS_FOLDER = "adapters"
"""The folder in the data directory that has a folder for each LoRA adapter."""
_MAX_OPEN_ADAPTERS = 64
"""The number of models whose adapters' headers are kept."""


@dataclass(frozen=True, slots=True)
class MusicGenFolder:
    """A folder with a checkpoint of MusicGen's family, which may turn out to be invalid. Implements `ModelEntry`."""

    name: str
    folder: Path
    weights_mtime_ns: int
    """The modification time of the weights; 0 if there are none."""
    engine: EngineName
    device: DeviceName
    precision: PrecisionChoice
    kv_precision: KvPrecisionChoice
    gpu_memory_fraction: float
    kernel_cache: Path
    """The folder of compiled kernels."""
    max_batch_size: int
    memory_gb_per_second: float
    """The memory bandwidth of the slowest GPU in use; 0 if it is not known."""
    adapter_folder: Path
    """The folder of the installed adapters."""

    def describe(self) -> ModelInfo:
        """Reads the headers of the files. Imports torch, which takes seconds the first time."""
        if self.engine == "native":
            return self._find_native().info
        try:
            from generation_service.models.audiocraft import find_audiocraft
        except ImportError as error:
            raise _torch_missing_error(error) from error
        return find_audiocraft(self.folder, name=self.name, device=self._audiocraft_device())

    def precision_reason(self) -> str:
        """Why the weights have their precision; empty if the settings say so. Raises ServiceError like `describe`."""
        return self._find_native().precision_reason if self.engine == "native" else ""

    def load(self) -> Model[Any]:
        if self.engine == "audiocraft":
            from generation_service.models.audiocraft import load_audiocraft

            return load_audiocraft(self.folder, name=self.name, device=self._audiocraft_device())
        found = self._find_native()
        from generation_service.models.magnet.magnet_loader import FoundMagnet, load_magnet
        from generation_service.models.musicgen.kernels.compile_cache import use_compile_cache
        from generation_service.models.musicgen.loader import load_musicgen

        if isinstance(found, FoundMagnet):
            return load_magnet(found, max_batch_size=self.max_batch_size)
        if self.device == "cuda":
            use_compile_cache(self.kernel_cache)
        return load_musicgen(found, max_batch_size=self.max_batch_size, memory_fraction=self.gpu_memory_fraction)

    def adapter_problems(self) -> Mapping[str, str]:
        if self.engine != "native" or not find_adapters(self.adapter_folder):
            return {}
        registry = _open_adapters(self)
        return {} if registry is None else registry.problems()

    def merge_adapters(self, checkpoint: Checkpoint, adapters: Sequence[AdapterUse]) -> Checkpoint:
        """Returns the model's checkpoint with installed adapters merged into its weights. Raises InvalidArgument if one
        does not fit."""
        registry = _open_adapters(self)
        if registry is None:
            raise InvalidArgument("adapters", f"the model {self.name!r} takes none")
        return registry.merge(checkpoint, adapters)

    def _find_native(self) -> FoundModel | FoundMagnet:
        try:
            from generation_service.models.magnet.magnet_loader import find_magnet
            from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
            from generation_service.models.musicgen.checkpoints.config import MASKED_LM
            from generation_service.models.musicgen.loader import find_musicgen
        except ImportError as error:
            raise _torch_missing_error(error) from error
        checkpoint = read_checkpoint(self.folder)
        if checkpoint.config.get("lm_model") == MASKED_LM:
            return find_magnet(checkpoint, name=self.name, device=self.device, precision=self.precision)
        return find_musicgen(
            self.folder,
            name=self.name,
            device=self.device,
            precision=self.precision,
            kv_precision=self.kv_precision,
            memory_gb_per_second=self.memory_gb_per_second,
            adapter_folder=self.adapter_folder,
        )

    def _audiocraft_device(self) -> DeviceName:
        if self.precision != "auto":
            raise FailedPrecondition(
                f"DGX_MUSIC_PRECISION is {self.precision}, but audiocraft chooses its own precision; "
                "set it to auto, or set DGX_MUSIC_ENGINE to native",
                reason="PRECISION_UNSUPPORTED",
            )
        return resolve_device(self.device, "auto")[0]


@functools.lru_cache(maxsize=_MAX_OPEN_ADAPTERS)
def _open_adapters(model: MusicGenFolder) -> AdapterRegistry | None:
    """None for MAGNeT, which takes no adapters."""
    found = model._find_native()
    return found.open_adapters() if hasattr(found, "open_adapters") else None


def find_installed_models(
    settings: GenerationSettings | None = None, memory_gb_per_second: float | None = None
) -> ModelCatalog:
    """Returns the catalog of the installed models.

    `memory_gb_per_second` is the bandwidth of the slowest GPU, as `Devices` returns it; by default of those in use.
    Raises FailedPrecondition or InvalidArgument if the configured default model is not among them, and
    FailedPrecondition if this machine lacks a configured device.
    """
    settings = settings or GenerationSettings()
    devices = Devices()
    chosen = devices.resolve(settings.devices)
    device = chosen[0]  # All engines are on devices of one kind.
    bandwidth = devices.memory_gb_per_second(chosen) if memory_gb_per_second is None else memory_gb_per_second
    max_batch_size = devices.max_batch_size(device, settings)
    return ModelCatalog(
        lambda: _find_entries(settings, device, max_batch_size, bandwidth),
        settings.default_model,
        installable=PUBLISHED,
    )


def _find_entries(
    settings: GenerationSettings, device: Device, max_batch_size: int, memory_gb_per_second: float
) -> Iterator[ModelEntry]:
    def entry(name: str, folder: Path) -> ModelEntry:
        if find_layout(folder) == "diffusers":
            return DiffusionFolder(
                name=name,
                folder=folder,
                weights_mtime_ns=weights_mtime_ns(folder),
                device=device.kind,
                precision=settings.precision,
                gpu_memory_fraction=settings.gpu_memory_fraction,
                max_batch_size=max_batch_size,
            )
        return MusicGenFolder(
            name=name,
            folder=folder,
            weights_mtime_ns=weights_mtime_ns(folder),
            engine=settings.engine,
            device=device.kind,
            precision=settings.precision,
            kv_precision=settings.kv_precision,
            gpu_memory_fraction=settings.gpu_memory_fraction,
            kernel_cache=settings.data_dir / "kernels",
            max_batch_size=max_batch_size,
            memory_gb_per_second=memory_gb_per_second,
            adapter_folder=settings.data_dir / ADAPTERS_FOLDER,
        )

    for name, folder in installed_folders(settings):
        yield entry(name, folder)
    yield BuiltInModel(Sketch().info, Sketch)


def _torch_missing_error(error: ImportError) -> FailedPrecondition:
    return FailedPrecondition(
        f"MusicGen needs torch, which can't be imported ({error}); run {install_extra_command('musicgen')}",
        reason="TORCH_MISSING",
    )
