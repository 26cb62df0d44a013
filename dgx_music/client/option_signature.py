"""Functions that take options as `**options: Unpack[…]`, with the signature that help() and completion show."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., object])


DEFAULTS: dict[str, object] = {"priority": 0, "scope": "generate"}
"""Of the options for which None is no value."""


def spell_out(*options: type) -> Callable[[Function], Function]:
    """Gives a function with `**options` the signature that lists those of the TypedDicts `options`; it raises TypeError
    for others."""

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        listed = {
            name: note.__forward_arg__ for kind in options for name, note in inspect.get_annotations(kind).items()
        }
        parameters = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        taken = {one.name for one in parameters}
        parameters += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS.get(name), annotation=note)
            for name, note in listed.items()
            if name not in taken
        ]
        names = {one.name for one in parameters}

        @functools.wraps(function)
        def call(*arguments: object, **named: object) -> object:
            for name in named:
                if name not in names:
                    hint = suggest(name, names)
                    raise TypeError(f"{function.__name__}() got an unexpected keyword argument {name!r}{hint}")
            return function(*arguments, **named)

        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return cast(Function, call)

    return decorate


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns for example "; did you mean 'seed'?", or nothing if no known name is similar."""
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""
