"""Which models can go on from audio."""

from __future__ import annotations

from collections.abc import Iterable

from dgx_music.errors import InvalidArgument
from dgx_music.generation.v1.generation_pb2 import Model

NOBODY = "no model here can; `dgx-music models pull musicgen-small` gets one"


def require_able(model_name: str, models: Iterable[Model]) -> None:
    """Raises InvalidArgument that says which can, where this model (the default one if empty) can't continue audio.

    One that is unknown or out of order is passed: others say what is wrong with it.
    """
    listed = list(models)
    named = [model for model in listed if (model.name == model_name if model_name else model.is_default)]
    for model in named:
        if not model.can_continue and not model.problem:
            able = ", ".join(one.name for one in listed if one.can_continue)
            who = f"models that can: {able}" if able else NOBODY
            raise InvalidArgument("continuation", f"model {model.name!r} can't continue audio; {who}")
