"""Checks whether a model can do what a request needs."""

from __future__ import annotations

from collections.abc import Iterable

from dgx_music.generation.v1.generation_pb2 import Capability as CapabilityNumber
from dgx_music.generation.v1.generation_pb2 import Model
from service_runtime.capabilities import Capability, unsupported_error


def has_capability(model: Model, capability: Capability) -> bool:
    """Returns whether the model has the capability."""
    return CapabilityNumber.Value(f"CAPABILITY_{capability.name}") in model.capabilities


def require_capability(model_name: str, capability: Capability, field: str, models: Iterable[Model]) -> None:
    """Raises InvalidArgument for the field, which lists the models that can do it, if this one can't.

    An empty `model_name` stands for the default model. A model that is unknown or has a problem passes: other checks
    report that.
    """
    available = list(models)
    selected = [model for model in available if (model.name == model_name if model_name else model.is_default)]
    for model in selected:
        if not has_capability(model, capability) and not model.problem:
            capable = [candidate.name for candidate in available if has_capability(candidate, capability)]
            raise unsupported_error(field, model.name, capability, capable)
