"""What the Studio says repeats a take does repeat it, sample for sample, whatever the prompt."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from dgx_music.storage.v1.storage_pb2 import CreateGenerationRequest, Generation
from gateway.studio.repeating.repeat_request import repeat_request
from tests.support.command_line import environment
from tests.support.studio import Studio, studio, studio_process
from tests.support.tone_server import tone_server

HOSTILE = (
    """-o "it's" $HOME `id` $(id) \\ !! 🎹 \u202eabc\u202c e\u0301\n--seed=3\t'; rm -rf *; '""",
    "--help",
    "\n\n  lo-fi at 90 BPM in C minor  ",
)
OWN = {"negativePrompt": "of the source"}
"""What edits on the command line take from their source."""


async def hash_of(take: Studio, id: str) -> str:
    generation = (await take.call("GetGeneration", id=id))["generation"]
    assert generation["state"] == "GENERATION_STATE_COMPLETED"
    sha256: str = generation["metadata"]["pcm_sha256"]
    return sha256


def run_shell(line: str, folder: Path) -> str:
    """Runs the line as a user does who pastes it; returns its output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # What is below tmp_path stays there, and a file that a `*` could become must not.
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=folder,
        env={**environment(), "PATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def newest_other(take: Studio, known: set[str]) -> str:
    listed = (await take.call("ListGenerations", pageSize=10))["generations"]
    (found,) = [one["id"] for one in listed if one["id"] not in known]
    known.add(found)
    return str(found)


async def repeat_in_each_way(take: Studio, id: str, folder: Path, *, is_expressible: bool = True) -> None:
    """Runs all three, and compares the samples of each with those of the take."""
    known = {one["id"] for one in (await take.call("ListGenerations", pageSize=100))["generations"]}
    commands: dict[str, Any] = (await take.http.get(f"/api/generations/{id}/commands")).json()
    assert bool(commands["command_line"]) is not bool(commands["command_line_problem"])
    assert bool(commands["command_line"]) is is_expressible, commands
    (folder / "take.py").write_text(commands["python"])
    expected, request = await hash_of(take, id), await request_of(take, id)
    for line in filter(None, (commands["command_line"], commands["buf_curl"], "python take.py")):
        await asyncio.to_thread(run_shell, line, folder)
        repeated = await newest_other(take, known)
        await take.wait(repeated)
        assert await request_of(take, repeated) == request, line
        assert await hash_of(take, repeated) == expected, line


async def request_of(take: Studio, id: str) -> CreateGenerationRequest:
    """Returns all that was asked for."""
    generation = (await take.call("GetGeneration", id=id))["generation"]
    return repeat_request(json_format.ParseDict(generation, Generation()))


@pytest.mark.slow
async def test_takes_with_hostile_prompts_are_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    async with studio_process(tmp_path / "data") as take:
        for prompt in HOSTILE:
            await repeat_in_each_way(take, await take.generate(prompt), folder)
    assert [path.suffix for path in folder.iterdir()].count(".py") == 1


def repeated_requests(source: str) -> list[dict[str, Any]]:
    """One request for each thing that a command or a program must say in its own way; in JSON."""
    edits = [
        {"kind": "EDIT_KIND_REPAINT", "startSeconds": 0.75, "endSeconds": 1.1},
        {"kind": "EDIT_KIND_EXTEND_LEFT", "addedSeconds": 0.3},
        {"kind": "EDIT_KIND_EXTEND_RIGHT", "addedSeconds": 1.1},
    ]
    section = {"startSeconds": 0.25, "endSeconds": 1.5, "prompt": "-drums: 'only'"}
    return [
        {"continuation": {"sourceId": source, "seconds": 1.3}, "durationSeconds": 1, "sampling": {"topK": 0}},
        *(
            {"edit": {"sourceId": source, **edit}, "sampling": {"temperature": 0.7}, "conditioning": OWN}
            for edit in edits
        ),
        {
            "edit": {"sourceId": source, **edits[0]},
            "conditioning": {"negativePrompt": "-other"},
            "output": {"profile": "LOUDNESS_PROFILE_STREAMING"},
        },
        {"loop": {"bars": 1, "bpm": 133.3, "beatsPerBar": 3}},
        {"durationSeconds": 2, "conditioning": {"sections": [section], "negativePrompt": "-o: none"}},
        {"durationSeconds": 1.1, "conditioning": {"furtherPrompts": [{"prompt": "a:1", "weight": 0.3}], "steps": 7}},
        {
            "durationSeconds": 1,
            "conditioning": {"melody": {"sourceId": source, "startSeconds": 0.1}, "lyrics": "-la\n"},
        },
        {"durationSeconds": 1, "conditioning": {"style": {"sourceId": source, "textGuidance": 2.5}}},
        {"durationSeconds": 0.7, "sampling": {"guidanceScale": 0, "topP": 0.9, "topK": 12, "temperature": 1.3}},
        {
            "durationSeconds": 0.7,
            "output": {"format": "FILE_FORMAT_FLAC_16", "targetLufs": -20.5, "ceilingDbtp": -3, "channels": 1},
        },
        {"durationSeconds": 0.7, "output": {"format": "FILE_FORMAT_MP3", "quality": 3, "sampleRateHz": 16000}},
        {"durationSeconds": 0.7, "output": {"publication": {"title": "-'x"}, "tagPrompt": True}},
    ]


def only_python(source: str) -> list[dict[str, Any]]:
    """What the command line has no option for."""
    return [
        {"durationSeconds": 1, "conditioning": {"promptWeight": 0.5, "furtherPrompts": [{"prompt": "x", "weight": 1}]}},
        {"durationSeconds": 1, "conditioning": {"lyrics": "@home"}},
        {"durationSeconds": 1, "conditioning": {"style": {"sourceId": source, "quantizers": 2}}},
        {
            "edit": {"sourceId": source, "kind": "EDIT_KIND_EXTEND_LEFT", "addedSeconds": 1},
            "conditioning": {**OWN, "lyrics": "new"},
        },
        {"edit": {"sourceId": source, "kind": "EDIT_KIND_EXTEND_LEFT", "addedSeconds": 1}},
    ]


@pytest.mark.slow
async def test_all_that_can_be_asked_for_is_repeated(tmp_path: Path) -> None:
    with tone_server(tmp_path / "tone") as server:
        async with studio(server.address, gateway_address=server.address) as take:
            source = await take.generate("the source", 2, conditioning=OWN)
            for number, request in enumerate([*repeated_requests(source), *only_python(source)]):
                made = await take.call("CreateGeneration", prompt="-house 'at' $1", **request)
                id = made["generation"]["id"]
                assert (await take.wait(id))["state"] == "GENERATION_STATE_COMPLETED"
                is_expressible = number < len(repeated_requests(source))
                await repeat_in_each_way(take, id, tmp_path, is_expressible=is_expressible)
