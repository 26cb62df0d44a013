"""The Python programs in README.md and docs/python-client.md do what these say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import ANY

import pytest
import soundfile

from dgx_music import Client
from tests.support.tone_server import tone_server

ROOT = Path(__file__).parents[3]
LONGEST_EXAMPLE = 15
"""Lines."""
PROGRAM = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_example_of_the_readme_runs(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = PROGRAM.findall((ROOT / "README.md").read_text())
    assert len(program.splitlines()) <= LONGEST_EXAMPLE
    monkeypatch.setenv("DGX_MUSIC_GATEWAY_ADDRESS", address)
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    exec(program, {"print": lambda *values: lines.append(" ".join(map(str, values)))})
    assert soundfile.info("beat.mp3").duration == pytest.approx(16, abs=0.1)
    assert lines[:2] == ["-16.0 LUFS, 84 BPM, A minor", "(512000, 2)"]
    assert lines[2].startswith("0 0.")
    assert any(line.startswith("<Generation 'lo-fi beat with a dusty piano at 84 BPM': completed, ") for line in lines)


def test_examples_of_the_page_run(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = PROGRAM.findall((ROOT / "docs/python-client.md").read_text())
    quickstart, submit, _, _, stream, history, asynchronous = programs
    monkeypatch.setenv("DGX_MUSIC_GATEWAY_ADDRESS", address)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"play": lambda samples: samples.shape}
    exec(quickstart.replace("duration=30", "duration=1"), scope)
    with Client() as client:
        scope["client"] = client
        exec(submit.replace("duration=30", "duration=1").replace('"duration": 8', '"duration": 1'), scope)
        exec(stream.replace("duration=120", "duration=1"), scope)
        exec(history, scope)
    lines = "".join(f"    {line}\n" for line in asynchronous.splitlines())
    shortened = lines.replace("duration=16", "duration=1").replace("duration=60", "duration=1")
    exec(f"import asyncio\nasync def main():\n{shortened}\nasyncio.run(main())", scope)
    assert {path.name for path in tmp_path.iterdir()} == {"house.wav", "house.mp3"}


def test_examples_of_shaping_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, shaping, edits, *_ = PROGRAM.findall((ROOT / "docs/python-client.md").read_text())
    monkeypatch.chdir(tmp_path)
    with tone_server(tmp_path / "server") as server, Client(server.address) as client:
        client.generate("a tone", duration=1).save("hum.wav")
        lines: list[str] = []
        scope: dict[str, object] = {"client": client, "print": lambda *values: lines.append(" ".join(map(str, values)))}
        installed = shaping.replace('    adapters={"lofi": 0.8},\n', "")
        exec(installed.replace("48", "3").replace("16", "1"), scope)
        exec(edits.replace("16", "1").replace("12, 20", "1, 2"), scope)
    assert len(lines) == 8  # The clip, and seven generations.


STRICT_PROGRAM = """
import asyncio
from collections.abc import Iterator

import dgx_music
from dgx_music import AsyncClient, AudioChunk, Client, Generation
from dgx_music.errors import InvalidArgument


def show(music: Generation) -> None:
    print(music.progress)


def main() -> int:
    with Client("127.0.0.1:50050", timeout=5) as client:
        music = client.generate("a", duration=1.0, loudness="streaming", on_progress=show)
        found: Iterator[Generation] = client.history(state=["completed", "failed"], limit=3)
        reveal_type(music)
        reveal_type(music.tempo)
        reveal_type(music.audio())
        reveal_type([chunk for chunk in client.stream(music)])
        try:
            client.submit_many(["a", {"prompt": "b", "seed": 3}], duration=2)
        except InvalidArgument as error:
            reveal_type(error.field)
    return len(list(found))


async def other() -> None:
    async with AsyncClient() as client:
        music = await client.generate("a", duration=1)
        reveal_type(await music.save("a.mp3", bit_rate=192))
        async for chunk in client.stream("a"):
            reveal_type(chunk)


main()
asyncio.run(other())
"""
WRONG_PROGRAM = """
import dgx_music

client = dgx_music.Client()
client.generate("a", durations=3)
client.generate("a", duration="long")
client.history(state="done")
dgx_music.Cleint()
"""


@pytest.mark.slow
def test_type_checker_knows_a_users_program(tmp_path: Path) -> None:
    """mypy in strict mode, as for a program outside of this project."""
    (tmp_path / "right.py").write_text(STRICT_PROGRAM)
    (tmp_path / "wrong.py").write_text(WRONG_PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", tmp_path / "cache"]
    checked = subprocess.run(
        [*command, "right.py", "wrong.py"],
        cwd=tmp_path,
        env={"PATH": "", "MYPYPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = checked.stdout.splitlines()
    revealed = [line.partition('"')[2].rstrip('"') for line in lines if line.startswith("right.py")]
    assert revealed == [
        "dgx_music.client.blocking.sync_generation.Generation",
        "float | None",
        ANY,
        "list[dgx_music.client.audio_listening.AudioChunk]",
        "str | None",
        "pathlib.Path",
        "dgx_music.client.audio_listening.AudioChunk",
    ], checked.stdout
    assert revealed[2].startswith("numpy.ndarray[")
    assert [line.split(":")[1] for line in lines if line.startswith("wrong.py") and "error" in line] == list("5678")
