"""Blocking work, off the event loop."""

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


async def on_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs `function` on a thread and comes back only when it has ended, even if cancelled.

    So what it uses, e.g. an open file, can be closed right after. A file that it opened for a caller who is cancelled
    is closed here.
    """
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        if work.exception() is None and isinstance(result := work.result(), Closable):
            result.close()
        raise
