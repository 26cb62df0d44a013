"""Runs blocking work off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar, runtime_checkable


@runtime_checkable
class Closable(Protocol):
    """An open file of any kind."""

    def close(self) -> None: ...


P = ParamSpec("P")
T = TypeVar("T")


async def run_in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs `function` in a thread and returns only after it has ended, even if the caller is cancelled.

    What the function uses, such as an open file, can therefore be closed right afterwards. If the caller is cancelled
    and the function returns an open file, the file is closed here.
    """
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        if work.exception() is None and isinstance(result := work.result(), Closable):
            result.close()
        raise
