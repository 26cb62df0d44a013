"""`ServiceProcesses`: the four services as real processes, which a test starts, kills, stops, continues and restarts
one by one, with failpoints, a clock or a network of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import psutil

from dgx_music.channel import connect
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.generation.v1 import generation_pb2_grpc
from dgx_music.storage.v1 import storage_pb2_grpc
from tests.support.command_line import DGX_MUSIC, environment
from tests.support.processes import free_ports

SERVICES = ("storage", "export", "generation", "gateway")
STUBS = {
    "storage": storage_pb2_grpc.StorageServiceStub,
    "export": export_pb2_grpc.ExportServiceStub,
    "generation": generation_pb2_grpc.GenerationServiceStub,
    "gateway": gateway_pb2_grpc.MusicServiceStub,
}
START_SECONDS = 60.0


class ServiceProcess:
    """One process that serves one service. Its log is kept in a file."""

    def __init__(self, name: str, process: Process, log_file: Path) -> None:
        self.name = name
        self.process = process
        self.log_file = log_file
        self._lines: list[bytes] = []
        self._more = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process.returncode is None

    def log(self) -> str:
        """What it has logged so far."""
        return b"".join(self._lines).decode(errors="replace")

    def forget_log(self) -> None:
        """Forgets what it has logged so far, which the file keeps: of a long life, it is a lot."""
        self._lines.clear()

    async def wait_for_event(self, event: str, count: int = 1) -> None:
        """Waits until so many lines of its log have this event. Raises AssertionError if it ends before."""
        wanted = f'"{event}"'.encode()

        def has_happened() -> bool:
            return sum(wanted in line for line in self._lines) >= count or self._reader.done()

        async with self._more:
            await asyncio.wait_for(self._more.wait_for(has_happened), START_SECONDS)
        assert sum(wanted in line for line in self._lines) >= count, f"{self.name} ended without {event}: {self.log()}"

    async def kill(self, number: int = signal.SIGKILL) -> int:
        """Sends a signal that ends it; returns its exit status when it has ended."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        return await self.wait()

    async def wait(self) -> int:
        """Returns the exit status, negative for a signal, when it and the processes that it started have ended."""
        status = await self.process.wait()
        await self._reader  # Its engine processes have its standard error too.
        return status

    async def wait_until_stopped(self) -> None:
        """Waits until it is stopped by a failpoint."""
        async with asyncio.timeout(START_SECONDS):
            stopped = os.waitid, os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT
            result = await asyncio.to_thread(*stopped)
        assert result.si_code == os.CLD_STOPPED, self.log()

    def pause(self) -> None:
        """Stops it by SIGSTOP, with the processes that it has started."""
        for process in self._family():
            process.suspend()

    def resume(self) -> None:
        for process in self._family():
            process.resume()

    def memory_bytes(self) -> int:
        """Resident memory of it and the processes that it has started."""
        return sum(process.memory_info().rss for process in self._family())

    def peak_memory_bytes(self) -> int:
        """The largest resident memory that it, without the processes that it has started, has had so far."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) * 1024

    def thread_count(self) -> int:
        return sum(process.num_threads() for process in self._family())

    def file_descriptor_count(self) -> int:
        return sum(process.num_fds() for process in self._family())

    def socket_count(self) -> int:
        """TCP sockets of it alone."""
        return len(psutil.Process(self.pid).net_connections("tcp"))

    def _family(self) -> list[psutil.Process]:
        own = psutil.Process(self.pid)
        return [own, *own.children(recursive=True)]

    async def _read(self) -> None:
        assert self.process.stderr is not None
        with self.log_file.open("ab", buffering=0) as file:
            while line := await self.process.stderr.readline():
                file.write(line)
                async with self._more:
                    self._lines.append(line)
                    self._more.notify_all()
        async with self._more:
            self._more.notify_all()


class ServiceProcesses:
    """A set of services on one data directory. Names such as "generation" or, for one more of the same service,
    "generation-2"; a service keeps its address when it is started again."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir = data_dir
        self.settings = settings
        """Environment variables of all of them."""
        self.addresses: dict[str, str] = {}
        """Name → the address that it listens on."""
        self.neighbours: dict[str, str] = {}
        """Service → the address at which the others call it, if that is not its own: a proxy's, say."""
        self.running: dict[str, ServiceProcess] = {}
        self._started: list[ServiceProcess] = []
        self._channels: dict[str, grpc.aio.Channel] = {}
        for name in SERVICES:
            self.address(name)

    def address(self, name: str) -> str:
        if name not in self.addresses:
            self.addresses[name] = f"127.0.0.1:{free_ports(1)[0]}"
        return self.addresses[name]

    async def start(
        self, *names: str, module: str | None = None, prefix: tuple[str, ...] = (), **settings: str
    ) -> None:
        """Starts processes and waits until they serve, in this order.

        `settings` are further environment variables, such as DGX_MUSIC_FAILPOINT="storage.before_commit:kill@3".
        `prefix` is put before the command, such as ("faketime", "-f", "+1h"). `module` is run in place of the command.
        """
        for name in names:
            service = name.partition("-")[0]
            addresses = {**{one: self.address(one) for one in SERVICES}, **self.neighbours, service: self.address(name)}
            variables = {f"DGX_MUSIC_{one.upper()}_ADDRESS": address for one, address in addresses.items()}
            variables |= {"DGX_MUSIC_DATA_DIR": str(self.data_dir), **self.settings, **settings}
            env = environment(**variables)
            command = [sys.executable, "-m", module, "serve", service] if module else [str(DGX_MUSIC), "serve", service]
            process = await asyncio.create_subprocess_exec(*prefix, *command, env=env, stderr=PIPE, limit=1 << 26)
            log_file = self.data_dir.parent / f"{self.data_dir.name}-{name}.log"
            self.running[name] = ServiceProcess(name, process, log_file)
            self._started.append(self.running[name])
            await self.running[name].wait_for_event("serving")

    async def start_http(self, **settings: str) -> tuple[ServiceProcess, str]:
        """Starts `dgx-music http` as "http"; returns its process and its URL."""
        return await self._start_web("http", ["http"], **settings)

    async def start_studio(self, **settings: str) -> tuple[ServiceProcess, str]:
        """Starts `dgx-music studio` as "studio"; returns its process and its URL."""
        return await self._start_web(
            "studio", ["studio", "--no-open"], DGX_MUSIC_LOG_LEVEL="info", DGX_MUSIC_LOG_FORMAT="json", **settings
        )

    async def _start_web(self, name: str, command: list[str], **settings: str) -> tuple[ServiceProcess, str]:
        address = self.address(name)
        env = environment(
            DGX_MUSIC_DATA_DIR=str(self.data_dir),
            DGX_MUSIC_GATEWAY_ADDRESS=self.address("gateway"),
            **{f"DGX_MUSIC_{name.upper()}_LISTEN": address},
            **{**self.settings, **settings},
        )
        process = await asyncio.create_subprocess_exec(str(DGX_MUSIC), *command, env=env, stderr=PIPE, limit=1 << 26)
        log_file = self.data_dir.parent / f"{self.data_dir.name}-{name}.log"
        self.running[name] = ServiceProcess(name, process, log_file)
        self._started.append(self.running[name])
        await self.running[name].wait_for_event("serving")
        return self.running[name], f"http://{address}"

    async def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Sends a signal that ends the process; returns its exit status."""
        return await self.running.pop(name).kill(number)

    def pause(self, name: str) -> None:
        self.running[name].pause()

    def resume(self, name: str) -> None:
        self.running[name].resume()

    def channel(self, name: str) -> grpc.aio.Channel:
        """A channel of the test's own to the process."""
        if name not in self._channels:
            self._channels[name] = connect(self.address(name))
        return self._channels[name]

    @property
    def music(self) -> gateway_pb2_grpc.MusicServiceAsyncStub:
        return STUBS["gateway"](self.channel("gateway"))  # type: ignore[return-value]

    @property
    def storage(self) -> storage_pb2_grpc.StorageServiceAsyncStub:
        return STUBS["storage"](self.channel("storage"))  # type: ignore[return-value]

    @property
    def export(self) -> export_pb2_grpc.ExportServiceAsyncStub:
        return STUBS["export"](self.channel("export"))  # type: ignore[return-value]

    @property
    def generation(self) -> generation_pb2_grpc.GenerationServiceAsyncStub:
        return STUBS["generation"](self.channel("generation"))  # type: ignore[return-value]

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        self.running.clear()
        for process in self._started:  # Also one that was being ended or started when the test was.
            if process.is_running:
                with suppress(psutil.NoSuchProcess):
                    process.resume()
                await process.kill()


@asynccontextmanager
async def service_processes(data_dir: Path, *names: str, **settings: str) -> AsyncIterator[ServiceProcesses]:
    """Starts the named services, by default all four, each in a process of its own, and kills them with the block."""
    data_dir.mkdir(exist_ok=True)
    services = ServiceProcesses(data_dir, **settings)
    try:
        await services.start(*(names or SERVICES))
        yield services
    finally:
        await services.close()
