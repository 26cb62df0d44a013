"""Reads the units of deploy/systemd, and stands in for the service manager that runs them."""

from __future__ import annotations

import asyncio
import re
import shlex
import socket
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from pathlib import Path

from tests.support.command_line import DGX_MUSIC, environment

FOLDER = Path(__file__).parents[2] / "deploy/systemd"
UNITS = sorted(FOLDER.glob("*.service"))
INSTALLED = "/opt/dgx-music/bin/dgx-music"
DENY_WRITE_AND_EXECUTE = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
"""A program that does what MemoryDenyWriteExecute= does, as PR_SET_MDWE, and runs a command. Does nothing on a kernel
before 6.3."""


def read_unit(path: Path) -> dict[str, list[str]]:
    """Setting → its values, of all sections."""
    settings = defaultdict(list)
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            settings[name].append(value)
    return dict(settings)


class Unit:
    """A unit that runs as a plain process, and what it tells the service manager."""

    def __init__(self, path: Path, state: Path, *, instance: str = "", **settings: str) -> None:
        """`instance` is what a template is told by its name, such as the 0 of dgx-music-generation@0."""
        self.name = path.stem + instance
        unit = read_unit(path)
        (command,) = unit["ExecStart"]
        self._command = shlex.split(command.replace(INSTALLED, str(DGX_MUSIC)))
        if unit.get("MemoryDenyWriteExecute") == ["yes"]:
            self._command = [str(DGX_MUSIC.with_name("python")), "-c", DENY_WRITE_AND_EXECUTE, *self._command]
        words = [word for line in unit["Environment"] for word in shlex.split(line)]
        places = {"%S": str(state), "%t": str(state), "%i": instance}
        own = dict(re.sub("%[Sti]", lambda found: places[found[0]], word).split("=", 1) for word in words)
        for folder in unit.get("RuntimeDirectory", ()):
            (state / folder.replace("%i", instance)).mkdir(mode=0o700)
        self.data_dir = Path(own["DGX_MUSIC_DATA_DIR"])
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        notify = str(state / f"{self.name}.notify")
        self._socket.bind(notify)
        self._environment = environment(**own | settings, NOTIFY_SOCKET=notify, WATCHDOG_USEC="200000")
        self.process: Process

    async def start(self) -> None:
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        self.process = await asyncio.create_subprocess_exec(*self._command, env=self._environment, stderr=PIPE)

    async def receive(self) -> str:
        """Returns what the process tells next."""
        loop = asyncio.get_running_loop()
        return (await asyncio.wait_for(loop.sock_recv(self._socket, 4096), 60)).decode()

    async def receive_until(self, state: str) -> list[str]:
        told = [await self.receive()]
        while told[-1] != state:
            told.append(await self.receive())
        return told

    def has_told(self) -> bool:
        """Whether there is something to receive."""
        try:
            self._socket.recv(4096, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        return True

    async def end(self) -> tuple[int | None, str]:
        """Waits until the process has ended; returns its status and its log."""
        _, log = await asyncio.wait_for(self.process.communicate(), 60)
        return self.process.returncode, log.decode(errors="replace")

    def close(self) -> None:
        self._socket.close()
        if hasattr(self, "process") and self.process.returncode is None:
            self.process.kill()
