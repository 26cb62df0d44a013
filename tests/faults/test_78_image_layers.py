"""The commands of deploy/Dockerfile that need no network, in a scratch folder: what the images install serves."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import environment
from tests.support.dockerfile import stage_lines

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_wheels_of_the_image_contain_all_that_serves(tmp_path: Path) -> None:
    stages = stage_lines()
    for line in stages["wheels"]:
        if found := re.fullmatch(r"COPY (.+) (/src\S*)", line):
            for path in found[1].split():
                copy(ROOT / path, tmp_path / found[2].lstrip("/"), is_single=found[2] != "/src/")
    commands = [line for name in ("wheels", "build-services") for line in stages[name] if line.startswith("RUN ")]
    (build,) = (line for line in commands if "pip wheel" in line)
    (install,) = (line for line in commands if "--no-index" in line)
    run(build, tmp_path)
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "wheels").iterdir()) == [
        "dgx_music",
        "dgx_music_client",
    ]
    run(install.partition(" && ")[0].replace("install", f"install --target {tmp_path}/site", 1), tmp_path)
    # With the libraries of this environment, which are no part of the wheels.
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import gateway.cli.main as main, storage_service;"
        f"assert main.__file__.startswith({str(tmp_path)!r}); sys.argv[0] = 'dgx-music'; main.main()"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            "--data-dir",
            tmp_path / "data",
            "generate",
            "house",
            "--duration",
            "1",
            "--json",
        ],
        cwd=tmp_path,
        env=environment(PYTHONPATH=""),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert "GENERATION_STATE_COMPLETED" in done.stdout


def copy(source: Path, target: Path, *, is_single: bool) -> None:
    """What COPY does: a folder's content, or files into a folder."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    assert source.is_dir() == is_single


def run(line: str, folder: Path) -> None:
    """Runs the command of a RUN line with the paths of the image below a folder."""
    text = line.removeprefix("RUN ").replace("/opt/dgx-music/bin/pip", f"{sys.executable} -m pip")
    text = re.sub(r"(?<=\s)/(?=wheels|src)", f"{folder}/", text)
    wheels = sorted(str(path) for path in (folder / "wheels").glob("*.whl"))
    words = [one for word in shlex.split(text) for one in (wheels if word.endswith("*.whl") else [word])]
    done = subprocess.run(
        words, cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
