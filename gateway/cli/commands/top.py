"""`dgx-music top`: a live view of the engines and the requests in them."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live

from dgx_music.generation.v1.generation_pb2 import GetEngineStatusRequest, GetEngineStatusResponse
from gateway.cli.display.console import Console
from gateway.cli.display.engine_view import status_lines
from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.runner import Session
from gateway.timeouts import CALL_TIMEOUT_SECONDS

REFRESH_SECONDS = 1.0
QUIT_KEYS = "qQ"


async def top(session: Session, console: Console, *, once: bool) -> int:
    """Shows the engines until q or Ctrl-C; only once if standard output is no terminal. JSON goes on there, too."""
    if session.is_embedded:
        raise CommandError(
            "no dgx-music server is running; start `dgx-music serve`, or set DGX_MUSIC_GATEWAY_ADDRESS to that of one"
        )
    is_live = console.out.is_terminal and not console.as_json
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


async def _fetch(session: Session) -> GetEngineStatusResponse:
    return await session.music.GetEngineStatus(GetEngineStatusRequest(), timeout=CALL_TIMEOUT_SECONDS)


def _print(status: GetEngineStatusResponse, console: Console) -> None:
    if console.as_json:
        console.print_message(status)
    else:
        console.out.print(*status_lines(status, console.width), sep="\n")


async def _show_live(session: Session, console: Console) -> None:
    quit_pressed = asyncio.Event()
    status = await _fetch(session)
    with _keys(quit_pressed), Live(console=console.out, screen=True, auto_refresh=False) as live:
        while True:
            lines = status_lines(status, console.out.width, console.out.height)
            live.update(Group(*lines), refresh=True)
            try:
                async with asyncio.timeout(REFRESH_SECONDS):
                    await quit_pressed.wait()
                return
            except TimeoutError:
                status = await _fetch(session)


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
