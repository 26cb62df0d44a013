"""A folder in diffusers' layout as an entry of the catalog. Imports nothing large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgx_music.errors import FailedPrecondition
from generation_service.config import DeviceName, PrecisionChoice
from generation_service.models.base import Model, ModelInfo
from service_runtime.optional_deps import install_extra_command

if TYPE_CHECKING:
    from generation_service.models.diffusion.pipeline_loader import FoundPipeline


@dataclass(frozen=True, slots=True)
class DiffusionFolder:
    """A folder in diffusers' layout, which may turn out to be invalid. Implements `ModelEntry`."""

    name: str
    folder: Path
    weights_mtime_ns: int
    """The modification time of the index."""
    device: DeviceName
    precision: PrecisionChoice
    gpu_memory_fraction: float
    max_batch_size: int

    def describe(self) -> ModelInfo:
        """Reads the configurations and the headers of the weights. Imports torch."""
        return self._find().info

    def adapter_problems(self) -> Mapping[str, str]:
        return {}

    def load(self) -> Model[Any]:
        from generation_service.models.diffusion.pipeline_loader import load_pipeline

        return load_pipeline(self._find(), max_batch_size=self.max_batch_size, memory_fraction=self.gpu_memory_fraction)

    def _find(self) -> FoundPipeline:
        try:
            from generation_service.models.diffusion.pipeline_loader import find_pipeline
        except ImportError as error:
            raise FailedPrecondition(
                f"diffusion models need torch, which can't be imported ({error}); "
                f"run {install_extra_command('diffusion')}",
                reason="TORCH_MISSING",
            ) from error
        return find_pipeline(self.folder, name=self.name, device=self.device, precision=self.precision)
