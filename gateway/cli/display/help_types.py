"""The help of the command line without the types of Python."""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument, TyperOption


def leave_out_types() -> None:
    """Makes the help show what a value is called, such as FILE, and not its type, such as <list[Path]> or <bool>."""
    TyperArgument.display_type_rich = _no_type  # type: ignore[assignment, method-assign]
    TyperOption.display_type_rich = _name_of_value  # type: ignore[assignment, method-assign]


def _no_type(argument: Any, ctx: Any) -> str | None:
    return None


def _name_of_value(option: Any, ctx: Any) -> str | None:
    return option.metavar or ""
