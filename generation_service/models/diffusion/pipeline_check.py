"""Compares the weights of a pipeline's components with their configurations, before any memory is taken."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from generation_service.models.diffusion.diffusers_library import quiet_diffusers
from generation_service.models.diffusion.pipeline_folder import PipelineFolder
from generation_service.models.musicgen.checkpoints.checkpoint import invalid_checkpoint


def check_shapes(found: PipelineFolder) -> None:
    """Raises FailedPrecondition, which names the first tensor that is missing or has another shape."""
    for part, weights in found.weights.items():
        path = found.folder / part
        with quiet_diffusers(), _without_memory():
            try:
                module = _build(found, part)
            except Exception as error:  # Its constructor may raise anything for a strange configuration.
                problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                message = f"{found.classes[part]} rejects it ({problem})"
                raise invalid_checkpoint(path / "config.json", message) from error
        for name, shape in _expected_shapes(module):
            actual = weights.shapes.get(name, weights.shapes.get(f"model.{name}"))
            if actual is None:
                raise invalid_checkpoint(path, f"the weights lack tensor {name!r} of {list(shape)}")
            if actual != shape:
                raise invalid_checkpoint(
                    path, f"tensor {name!r} has the shape {list(actual)}, but config.json asks for {list(shape)}"
                )


@contextmanager
def _without_memory() -> Iterator[None]:
    with torch.device("meta"):
        yield


def _build(found: PipelineFolder, part: str) -> Any:
    library = found.family.parts[part].library
    module_name = library if library in ("diffusers", "transformers") else f"diffusers.pipelines.{library}"
    component = getattr(importlib.import_module(module_name), found.classes[part])
    if library == "transformers":
        config_class = component.config_class
        return component(config_class.from_dict(dict(found.configs[part])))
    return component.from_config(dict(found.configs[part]))


def _expected_shapes(module: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    tied = set(getattr(module, "_tied_weights_keys", None) or ())
    for name, tensor in module.state_dict().items():
        if name not in tied:
            yield name, tuple(tensor.shape)
