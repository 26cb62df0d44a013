"""Reads deploy/Dockerfile."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from string import Template

DOCKERFILE = Path(__file__).parents[2] / "deploy/Dockerfile"


def stage_lines() -> dict[str, list[str]]:
    """The instructions of each stage by its name, the FROM line first, with the defaults of arguments in place."""
    stages: dict[str, list[str]] = {}
    arguments: dict[str, str] = {}
    for line in DOCKERFILE.read_text().replace("\\\n", "").splitlines():
        if line.startswith("FROM "):
            lines = stages[line.split()[-1]] = []
            arguments = {}
        elif line.startswith("ARG "):
            name, _, value = line.removeprefix("ARG ").partition("=")
            arguments[name] = value
            continue
        if line and not line.startswith("#"):
            lines.append(Template(line).safe_substitute(arguments))
    return stages


def image_environment(stage: str = "base") -> dict[str, str]:
    """The variables that a stage sets, without PATH."""
    lines = [line for line in stage_lines()[stage] if line.startswith("ENV ")]
    settings = dict(word.split("=", 1) for line in lines for word in shlex.split(line)[1:])
    return {name: value for name, value in settings.items() if name != "PATH"}


def copied_paths() -> list[str]:
    """The paths that are copied into the images from the folder that is built."""
    lines = [line for stage in stage_lines().values() for line in stage]
    return [word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]]


def pip_arguments(stage: str) -> list[str]:
    """What pip installs in a stage, in the stages that it builds on, and where it copies the result from."""
    stages = stage_lines()
    if stage not in stages:
        return []
    first, *lines = stages[stage]
    installed = pip_arguments(first.split()[1])
    for line in lines:
        if found := re.fullmatch(r"COPY --from=(\S+) /opt/dgx-music /opt/dgx-music", line):
            installed += pip_arguments(found[1])
        elif found := re.match(r"RUN /opt/dgx-music/bin/pip install (.+?)(?: &&|$)", line):
            installed.append(shlex.split(found[1])[-1])
    return installed
