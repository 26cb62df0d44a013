"""`dgx-music top`: a live view of the engines and the requests in them."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import grpc.aio
from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live

from dgx_music.generation.v1.generation_pb2 import GetEngineStatusRequest, GetEngineStatusResponse
from gateway.cli.display.console import Console
from gateway.cli.display.engine_view import status_lines
from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.runner import Session
from gateway.timeouts import CALL_TIMEOUT_SECONDS

REFRESH_SECONDS = 1.0
LIVE_TIMEOUT_SECONDS = 5.0
"""After which the live view says that the server does not respond."""
QUIT_KEYS = "qQ"


async def top(session: Session, console: Console, *, once: bool) -> int:
    """Shows the engines until q or Ctrl-C, also while the server restarts; only once if standard output is no terminal.
    JSON goes on there, too."""
    if session.is_embedded:
        raise CommandError(
            "no dgx-music server is running; start `dgx-music serve`, or set DGX_MUSIC_GATEWAY_ADDRESS to that of one"
        )
    is_live = console.is_interactive and not console.as_json
    try:
        if once or not (is_live or console.as_json):
            _print(await _fetch(session), console)
        elif is_live:
            await _show_live(session, console)
        else:
            while True:
                _print(await _fetch(session), console)
                await asyncio.sleep(REFRESH_SECONDS)
    except asyncio.CancelledError:
        pass  # Ctrl-C is the way out.
    return 0


async def _fetch(session: Session, timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> GetEngineStatusResponse:
    return await session.music.GetEngineStatus(GetEngineStatusRequest(), timeout=timeout_seconds)


def _print(status: GetEngineStatusResponse, console: Console) -> None:
    if console.as_json:
        console.print_message(status)
    else:
        console.out.print(*status_lines(status, console.width), sep="\n")


async def _show_live(session: Session, console: Console) -> None:
    quit_pressed = asyncio.Event()
    status = await _fetch(session)
    with _keys(quit_pressed), Live(console=console.out, screen=True, auto_refresh=False) as live:
        showing = asyncio.create_task(_keep_showing(status, session, console.out, live))
        quitting = asyncio.create_task(quit_pressed.wait())
        try:
            await asyncio.wait({showing, quitting}, return_when=asyncio.FIRST_COMPLETED)
            if showing.done():
                showing.result()
        finally:
            showing.cancel()
            quitting.cancel()


async def _keep_showing(status: GetEngineStatusResponse, session: Session, out: RichConsole, live: Live) -> None:
    """Shows the status every second. While the server does not respond, the last one, and that it does not."""
    problem = ""
    while True:
        live.update(Group(*status_lines(status, out.width, out.height, problem=problem)), refresh=True)
        await asyncio.sleep(REFRESH_SECONDS)
        try:
            status, problem = await _fetch(session, LIVE_TIMEOUT_SECONDS), ""
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
            problem = "the server does not respond; below is its last state"


@contextmanager
def _keys(quit_pressed: asyncio.Event) -> Iterator[None]:
    """Sets the event when a key that quits is pressed, without Enter. Does nothing if standard input is no terminal."""
    if sys.stdin is None or not sys.stdin.isatty():
        yield
        return
    loop, keyboard = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)

    def on_key() -> None:
        keys = os.read(keyboard, 64).decode(errors="replace")
        if not keys or set(keys) & set(QUIT_KEYS):
            quit_pressed.set()
            loop.remove_reader(keyboard)

    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, on_key)
    try:
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
