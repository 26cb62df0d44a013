"""What takes options as `**options` looks and fails as if it listed them."""

from __future__ import annotations

import inspect
from typing import Unpack

import pytest

from dgx_music.client.generation_options import FileOptions
from dgx_music.client.option_signature import spell_out


@spell_out(FileOptions)
def save(path: str, *, timeout: float = 5, **options: Unpack[FileOptions]) -> tuple[float, FileOptions]:
    """Saves."""
    return timeout, options


def test_options_are_listed_with_their_types_and_defaults() -> None:
    parameters = inspect.signature(save).parameters
    assert list(parameters)[:4] == ["path", "timeout", "format", "sample_rate"]
    assert str(parameters["channels"]) == "channels: 'int | None' = None"
    assert save.__doc__ == "Saves."


def test_unknown_option_is_named() -> None:
    assert save("a", channels=2) == (5, {"channels": 2})
    with pytest.raises(TypeError, match=r"save\(\) got an .* 'chanels'; did you mean 'channels'\?"):
        save("a", chanels=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"'xyz'$"):
        save("a", xyz=3)  # type: ignore[call-arg]
