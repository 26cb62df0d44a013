"""An event loop in a thread of its own, on which blocking calls run their asynchronous counterparts."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from queue import SimpleQueue
from typing import Any, TypeVar

from dgx_music.errors import Cancelled
from dgx_music.response_stream import finish_calls, is_status_task

T = TypeVar("T")
_DONE: Any = object()


class LoopThread:
    """Runs coroutines for other threads. It ends with `close`, when nothing refers to it any more, or with the program.

    It works whether or not the calling thread has a running event loop, as in a notebook.
    """

    def __init__(self, on_close: Callable[[], Awaitable[None]]) -> None:
        """`on_close` is awaited on the loop at the end, after all other work was cancelled."""
        self._shared = _Shared(on_close)
        self._thread = threading.Thread(target=self._shared.run_loop, name="dgx-music-client", daemon=True)
        self._thread.start()
        self._finalizer = weakref.finalize(self, _shut_down, self._shared, self._thread)

    def close(self) -> None:
        """Cancels all work, which raises Cancelled where it was called, and ends the thread. Closing twice does
        nothing."""
        self._finalizer()

    def run(
        self,
        work: Coroutine[Any, Any, T],
        events: SimpleQueue[Any] | None = None,
        on_event: Callable[[Any], object] = lambda event: None,
    ) -> T:
        """Returns the result of the coroutine. An exception in this thread, such as Ctrl-C's KeyboardInterrupt, cancels
        the coroutine and waits for its end; a second one waits no longer.

        What the coroutine puts into `events` is passed to `on_event` in this thread.
        """
        events = SimpleQueue() if events is None else events
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:  # Called, and so the task too, with the context variables of the calling thread.
            task = self._shared.loop.create_task(work)
            task.add_done_callback(lambda _: events.put(_DONE))
            tasks.append(task)

        try:
            self._shared.schedule(start)
        except RuntimeError:
            work.close()
            raise
        try:
            while (event := events.get()) is not _DONE:
                on_event(event)
        except BaseException:
            self._shared.loop.call_soon_threadsafe(lambda: tasks[0].cancel())
            while events.get() is not _DONE:
                pass
            _ = tasks[0].cancelled() or tasks[0].exception()  # Nobody else asks for it.
            raise
        try:
            return tasks[0].result()
        except asyncio.CancelledError:
            raise Cancelled("the client was closed during the call", reason="CLIENT_CLOSED") from None

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """Yields what an async iterator yields."""
        while (item := self.run(_step(source))) is not _DONE:
            yield item


class _Shared:
    """What the thread and its owner share; it does not refer to the owner, who may be collected."""

    def __init__(self, on_close: Callable[[], Awaitable[None]]) -> None:
        self.loop = asyncio.new_event_loop()
        self.process_id = os.getpid()
        self._on_close = on_close
        self._lock = threading.Lock()
        self._is_closed = False

    def run_loop(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    def schedule(self, start: Callable[[], None]) -> None:
        """Calls the function on the loop. Raises RuntimeError where it could never run, or only after the caller."""
        if os.getpid() != self.process_id:
            raise RuntimeError("the client belongs to the process that created it; create a new one after a fork")
        if asyncio._get_running_loop() is self.loop:
            raise RuntimeError("a Client cannot be called from its own event loop; use AsyncClient there")
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the client is closed; create a new one")
            self.loop.call_soon_threadsafe(start)

    def close(self) -> bool:
        """Begins to shut down. Returns whether it was open, and the thread is to be awaited."""
        if os.getpid() != self.process_id:
            return False
        with self._lock:
            if self._is_closed:
                return False
            self._is_closed = True
            # Whatever was scheduled before has become a task by the time this runs.
            self.loop.call_soon_threadsafe(lambda: self.loop.create_task(self._end()))
        return True

    async def _end(self) -> None:
        tasks = {task for task in asyncio.all_tasks() if not is_status_task(task)} - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.loop.shutdown_asyncgens()
        try:
            await self._on_close()
            await finish_calls()
        finally:
            self.loop.stop()


def _shut_down(shared: _Shared, thread: threading.Thread) -> None:
    if shared.close() and threading.current_thread() is not thread:  # The garbage collector runs in any thread.
        thread.join()


async def _step(source: AsyncIterator[T]) -> T:
    return await anext(source, _DONE)
