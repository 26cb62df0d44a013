"""Checks whether a model can continue audio."""

from __future__ import annotations

from collections.abc import Iterable

from dgx_music.errors import InvalidArgument
from dgx_music.generation.v1.generation_pb2 import Model

NO_CAPABLE_MODEL_HINT = "no installed model can; run `dgx-music models pull musicgen-small` to install one that can"


def require_continuation_support(model_name: str, models: Iterable[Model]) -> None:
    """Raises InvalidArgument, which lists the models that can continue audio, if this one can't.

    An empty `model_name` stands for the default model. A model that is unknown or has a problem passes: other checks
    report that.
    """
    available = list(models)
    selected = [model for model in available if (model.name == model_name if model_name else model.is_default)]
    for model in selected:
        if not model.can_continue and not model.problem:
            capable = ", ".join(candidate.name for candidate in available if candidate.can_continue)
            hint = f"models that can: {capable}" if capable else NO_CAPABLE_MODEL_HINT
            raise InvalidArgument("continuation", f"model {model.name!r} can't continue audio; {hint}")
