"""Checks whether a model can continue audio."""

from __future__ import annotations

from collections.abc import Iterable

from dgx_music.generation.v1.generation_pb2 import CAPABILITY_CONTINUATION, Model
from service_runtime.validation import cannot_continue_error


def require_continuation_support(model_name: str, models: Iterable[Model]) -> None:
    """Raises InvalidArgument, which lists the models that can continue audio, if this one can't.

    An empty `model_name` stands for the default model. A model that is unknown or has a problem passes: other checks
    report that.
    """
    available = list(models)
    selected = [model for model in available if (model.name == model_name if model_name else model.is_default)]
    for model in selected:
        if CAPABILITY_CONTINUATION not in model.capabilities and not model.problem:
            capable = [candidate.name for candidate in available if CAPABILITY_CONTINUATION in candidate.capabilities]
            raise cannot_continue_error(model.name, capable)
