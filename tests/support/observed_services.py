"""`observed_services`: the four services, each a process of its own that shows metrics, sends spans and logs, and a
`dgx-music generate` that they have served."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.command_line import DGX_MUSIC, SECONDS, environment
from tests.support.processes import free_ports
from tests.support.trace_collector import TraceCollector, running_collector

SERVICES = ("storage", "export", "generation", "gateway")


class ServiceProcess:
    """A running service. Its log is read all the time, so that it never waits for a reader."""

    def __init__(self, name: str, variables: dict[str, str]) -> None:
        self.events: list[dict[str, Any]] = []
        self._is_serving = threading.Event()
        self._process = subprocess.Popen(
            [DGX_MUSIC, "serve", name], env=variables, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        self._reader = threading.Thread(target=self._read_log)
        self._reader.start()

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self.events.append(json.loads(line))
                if self.events[-1]["event"] == "serving":
                    self._is_serving.set()
        self._is_serving.set()

    def wait_until_serving(self) -> None:
        assert self._is_serving.wait(SECONDS)
        assert self._process.poll() is None, self.events

    def stop(self) -> None:
        """Ends the process as a supervisor would, and waits for it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(SECONDS)
        finally:
            self._process.kill()
            self._reader.join()


@dataclass
class Observed:
    """What has been seen of the services and of the command."""

    collector: TraceCollector
    processes: dict[str, ServiceProcess]
    environment: dict[str, str]
    """That of a client of the services, which also sends spans."""
    metrics_ports: dict[str, int]
    generation_id: str = ""
    metrics: dict[str, str] = field(default_factory=dict)
    """Service → its page for Prometheus, if a test has kept it."""

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end. It has to succeed."""
        command = [DGX_MUSIC, *arguments]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr
        return done

    def read_metrics(self) -> dict[str, str]:
        """Returns the pages of all services."""
        return {name: read_page(port) for name, port in self.metrics_ports.items()}


def read_page(port: int) -> str:
    """Returns the metrics of a process."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=SECONDS) as page:
        return bytes(page.read()).decode()


@contextmanager
def observed_services(folder: Path, *, log_level: str = "debug") -> Iterator[Observed]:
    """Runs the services, and a command that generates a second of music."""
    ports = free_ports(2 * len(SERVICES))
    addresses = {
        f"DGX_MUSIC_{name.upper()}_ADDRESS": f"127.0.0.1:{port}" for name, port in zip(SERVICES, ports, strict=False)
    }
    metrics_ports = dict(zip(SERVICES, ports[len(SERVICES) :], strict=True))
    with ExitStack() as stack:
        collector = stack.enter_context(running_collector())
        variables = environment(
            **addresses,
            DGX_MUSIC_DATA_DIR=str(folder),
            DGX_MUSIC_LOG_LEVEL=log_level,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.address,
            OTEL_BSP_SCHEDULE_DELAY="100",
        )
        processes = {}
        for name, port in metrics_ports.items():
            processes[name] = ServiceProcess(name, {**variables, "DGX_MUSIC_METRICS_PORT": str(port)})
            stack.callback(processes[name].stop)
        for started in processes.values():
            started.wait_until_serving()
        observed = Observed(collector, processes, variables, metrics_ports)
        done = observed.run("generate", "house at 124 BPM", "--model", "sketch", "--duration", "1", "--json")
        observed.generation_id = json.loads(done.stdout.splitlines()[-1])["id"]
        yield observed
