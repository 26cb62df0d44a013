"""The distribution `dgx-music-client`: built as for a release, and used with its declared dependencies alone."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, sys
import dgx_music.channel, dgx_music.client, dgx_music.errors, dgx_music.limits, dgx_music.pcm, dgx_music.error_status
writer = dgx_music.pcm.PcmWriter(channels=2)
chunks = list(writer.chunks(bytes(800)))
from dgx_music import AudioChunk, Client
from dgx_music.errors import ConnectionLost
with Client("127.0.0.1:1", timeout=20) as client:
    try:
        client.generate("a")
    except ConnectionLost as error:
        problem = str(error)
try:
    AudioChunk(0, bytes(8), 8000, 2).samples
except ImportError as error:
    advice = str(error)
print(json.dumps({
    "file": dgx_music.__file__, "frames": writer.end().total_frames, "modules": sorted(sys.modules),
    "problem": problem, "advice": advice,
}))
"""

HEAVY = {"sqlalchemy", "scipy", "torch", "soundfile", "numpy", "pydantic", "structlog", "typer", "rich"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(command, cwd=ROOT / "dgx_music", check=True, capture_output=True)
    (built,) = folder.glob("dgx_music_client-*.whl")
    return built


def test_wheel_has_stubs_and_types_but_no_build_files(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        f"dgx_music/{name}" for name in ("py.typed", "client/async_client.py", "gateway/v1/gateway_pb2_grpc.pyi")
    } <= set(names)
    assert {name.partition("/")[0] for name in names} == {"dgx_music", "dgx_music_client-0.1.0.dist-info"}
    assert not {"dgx_music/hatch_build.py", "dgx_music/pyproject.toml"} & set(names)


def test_client_works_with_its_declared_dependencies_alone(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    (metadata,) = installed.glob("*.dist-info")
    for name in declared(PathDistribution(metadata)):
        for file in distribution(name).files or ():
            if file.parts[0] != ".." and "__pycache__" not in file.parts:
                link = installed / file
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(Path(str(distribution(name).locate_file(file))).resolve())

    # -S: without site-packages, and so without everything else that is installed here.
    program = f"import sys; sys.path.insert(0, {str(installed)!r})\n{PROGRAM}"
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert Path(result["file"]).is_relative_to(installed)
    assert result["frames"] == 100
    assert "no answer from the server at 127.0.0.1:1" in result["problem"]
    assert "pip install numpy" in result["advice"]
    assert not {module.partition(".")[0] for module in result["modules"]} & HEAVY


def declared(package: PathDistribution) -> set[str]:
    """Names of all distributions that the package needs, directly or through another."""
    names: set[str] = set()
    waiting = list(package.requires or ())
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name in names or not (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            continue
        names.add(requirement.name)
        waiting += distribution(requirement.name).requires or ()
    return names
