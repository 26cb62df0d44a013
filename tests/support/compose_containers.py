"""The containers of compose.yaml as plain processes, each with its own loopback address and a folder for its volume."""

from __future__ import annotations

import asyncio
import os
import random
import re
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.command_line import DGX_MUSIC
from tests.support.dockerfile import image_environment

ROOT = Path(__file__).parents[2]
VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-+?])([^}]*))?\}")


def own_services() -> dict[str, dict[str, Any]]:
    """The services of compose.yaml that this project builds, of all profiles."""
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return {name: service for name, service in services.items() if "build" in service}


def of_profiles(*profiles: str) -> dict[str, dict[str, Any]]:
    """Those that `docker compose` starts with these profiles."""
    return {
        name: service
        for name, service in own_services().items()
        if not service.get("profiles") or set(profiles) & set(service["profiles"])
    }


def interpolate(value: str, variables: Mapping[str, str]) -> str:
    """Replaces ${NAME}, ${NAME:-default}, ${NAME:+replacement} and ${NAME:?error}, as Compose does."""

    def replacement(found: re.Match[str]) -> str:
        name, operator, text = found.groups()
        current = variables.get(name, "")
        if operator == ":+":
            return text if current else ""
        assert current or operator != ":?", text
        return current or (text if operator == ":-" else "")

    return VARIABLE.sub(replacement, value)


def read_env_file(path: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of an env file, which may refer to `variables`."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {name: interpolate(value, variables) for name, _, value in (line.partition("=") for line in lines)}


class Containers:
    """The services that are given, each in a container."""

    def __init__(self, services: dict[str, dict[str, Any]], folder: Path, variables: Mapping[str, str]) -> None:
        """`variables` are those of the shell and of env files."""
        self.services, self.folder, self._variables = services, folder, variables
        network = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}"
        self.ips = {name: f"{network}.{number}" for number, name in enumerate(services, 1)}
        self.processes: dict[str, Process] = {}

    def address(self, name: str) -> str:
        """Where a service listens."""
        port = self.services[name]["environment"]["DGX_MUSIC_LISTEN"].rpartition(":")[2]
        return f"{self.ips[name]}:{port}"

    def volume(self, name: str) -> Path:
        """The folder of the service's volume: services that name the same one share it."""
        volumes = self.services[name].get("volumes", [])
        return self.folder / (volumes[0].partition(":")[0] if volumes else name)

    async def start(self, name: str, **settings: str) -> Process:
        self.volume(name).mkdir(parents=True, exist_ok=True)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("DGX_MUSIC_", "AWS_"))}
        self.processes[name] = await asyncio.create_subprocess_exec(
            DGX_MUSIC,
            *self.services[name]["command"],
            env=inherited | self.environment(name) | {"DGX_MUSIC_CONFIG": os.devnull} | settings,
            stderr=PIPE,
            limit=1 << 24,
        )
        return self.processes[name]

    async def close(self) -> None:
        """Kills the processes that still run."""
        for process in self.processes.values():
            if process.returncode is None:
                process.kill()
            await process.communicate()

    def environment(self, name: str) -> dict[str, str]:
        """The variables of a container, with the paths and addresses that they have here."""
        declared = self.services[name]["environment"]
        values = {key: self._variables.get(key) if value is None else value for key, value in declared.items()}
        given = {key: interpolate(value, self._variables) for key, value in values.items() if value is not None}
        return {key: self._local(name, value) for key, value in (image_environment() | given).items()}

    def _local(self, name: str, value: str) -> str:
        if value == "/data" or value.startswith("/data/"):
            return str(self.volume(name)) + value.removeprefix("/data")
        if value.startswith("0.0.0.0:"):
            return value.replace("0.0.0.0", self.ips[name])
        if found := re.fullmatch(r"dns:///([a-z0-9-]+):(\d+)", value):
            return "ipv4:" + ",".join(f"{ip}:{found[2]}" for ip in self._resolve(found[1]))
        if found := re.fullmatch(r"([a-z]+(?:-\d+)?):(\d+)", value):
            (ip,) = self._resolve(found[1])
            return f"{ip}:{found[2]}"
        return value

    def _resolve(self, host: str) -> list[str]:
        """What Docker's DNS gives: the containers of that name or alias."""
        found = []
        for name, service in self.services.items():
            aliases = service.get("networks", {}).get("default", {}).get("aliases", ())
            if host == name or host in aliases:
                found.append(self.ips[name])
        assert found, f"no container is called {host}"
        return found
