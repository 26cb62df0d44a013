"""Lines for the shell: quoted for any prompt, and refused where an option lacks."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from dgx_music.storage.v1.storage_pb2 import CreateGenerationRequest, Generation
from gateway.studio.repeating.repeat_request import GatewayAccess, repeat_request
from gateway.studio.repeating.shell_line import Inexpressible, shell_line

LOCAL = GatewayAccess("unix:/data/run/gateway.sock", data_dir=Path("/my data"))
REMOTE = GatewayAccess("music.lan:50050", uses_tls=True, requires_token=True)
ID = "11111111-2222-4333-8444-55555555aaaa"


def generation(**fields: Any) -> Generation:
    plain = {"prompt": "house", "modelName": "sketch", "seed": "7", "durationSeconds": 0.5}
    return json_format.ParseDict(plain | fields, Generation())


def words(access: GatewayAccess = LOCAL, source: Generation | None = None, **fields: Any) -> list[str]:
    """Returns what a shell makes of the line."""
    return shlex.split(shell_line(repeat_request(generation(**fields)), access, source))


@pytest.mark.parametrize(
    "prompt", ["-o x", "--help", 'it\'s $HOME `id` \\ "!!"', "two\nlines\tand a tab", "猫 🎹 \u202e"]
)
def test_prompt_is_one_word_after_all_options(prompt: str) -> None:
    assert words(prompt=prompt) == [
        "dgx-music",
        "--data-dir",
        "/my data",
        "generate",
        "--duration=0.5",
        "--seed=7",
        "--model=sketch",
        "--",
        prompt,
    ]


def test_server_elsewhere_is_named_by_its_address() -> None:
    assert words(REMOTE)[:3] == ["DGX_MUSIC_GATEWAY_ADDRESS=music.lan:50050", "dgx-music", "generate"]
    assert words(GatewayAccess(""))[:2] == ["dgx-music", "generate"]


def test_everything_that_has_an_option_is_said() -> None:
    conditioning = {
        "negativePrompt": "-x",
        "furtherPrompts": [{"prompt": "a:1", "weight": 0.3}],
        "sections": [{"startSeconds": 0, "endSeconds": 1.5, "prompt": "-in two\nlines"}],
        "melody": {"sourceId": ID, "startSeconds": 0.1},
        "style": {"sourceId": ID, "startSeconds": 1, "textGuidance": 2.5},
        "adapters": [{"name": "lofi", "scale": 0.8}, {"name": "dub"}],
        "lyrics": "la",
        "steps": 8,
    }
    output = {
        "format": "FILE_FORMAT_MP3",
        "sampleRateHz": 48000,
        "channels": 1,
        "profile": "LOUDNESS_PROFILE_STREAMING",
    }
    more = {"ceilingDbtp": -2, "bitRateKbps": 192, "tagPrompt": True, "publication": {"title": "-t", "album": "a b"}}
    said = words(
        conditioning=conditioning,
        output=output | more,
        sampling={"temperature": 0.7, "topK": 0, "guidanceScale": 3},
        continuation={"sourceId": ID, "seconds": 1.5},
        loop={"bars": 8, "bpm": 90.5, "beatsPerBar": 3},
    )
    assert said[said.index("generate") + 1 : -2] == [
        "--seed=7",
        "--model=sketch",
        "--temperature=0.7",
        "--top-k=0",
        "--guidance=3.0",
        f"--continue={ID}",
        "--continue-seconds=1.5",
        "--negative=-x",
        "--also=a:1:0.3",
        "--section=0.0:1.5 -in two\nlines",
        f"--melody={ID}",
        "--melody-start=0.1",
        f"--style={ID}",
        "--style-start=1.0",
        "--text-guidance=2.5",
        "--adapter=lofi:0.8",
        "--adapter=dub",
        "--lyrics=la",
        "--steps=8",
        "--loop=8bars",
        "--tempo=90.5",
        "--beats=3",
        "--format=mp3",
        "--sample-rate=48000",
        "--channels=1",
        "--loudness=streaming",
        "--ceiling=-2.0",
        "--bitrate=192",
        "--tag-prompt",
        "--title=-t",
        "--album=a b",
    ]


@pytest.mark.parametrize(
    ("conditioning", "what"),
    [
        ({"promptWeight": 0.5}, "weight of the prompt"),
        ({"sections": [{"endSeconds": 1, "prompt": " a"}]}, "a section"),
        ({"style": {"sourceId": ID, "seconds": 2}}, "style"),
        ({"adapters": [{"name": "a:b"}]}, "adapter"),
        ({"lyrics": "@file"}, "lyrics"),
    ],
)
def test_what_has_no_option_is_named(conditioning: dict[str, Any], what: str) -> None:
    with pytest.raises(Inexpressible, match=what):
        words(conditioning=conditioning)


@pytest.mark.parametrize(
    ("edit", "begin"),
    [
        ({"kind": "EDIT_KIND_REPAINT", "startSeconds": 1, "endSeconds": 2.5}, ["repaint", "--from=1.0", "--to=2.5"]),
        ({"kind": "EDIT_KIND_EXTEND_LEFT", "addedSeconds": 3}, ["extend", "--left=3.0"]),
        ({"kind": "EDIT_KIND_EXTEND_RIGHT", "addedSeconds": 3}, ["extend", "--right=3.0"]),
    ],
)
def test_edit_says_what_its_command_would_not_take_from_the_source(edit: dict[str, Any], begin: list[str]) -> None:
    source = generation(id=ID, conditioning={"negativePrompt": "n"}, prompt="of the source")
    made = {"edit": {"sourceId": ID, **edit}, "sampling": {"topK": 5}, "output": {"targetLufs": -20}}
    said = words(source=source, conditioning={"negativePrompt": "n"}, **made)
    assert said[3 : 3 + len(begin)] == begin
    options = ["--seed=7", "--model=sketch", "--top-k=5", "--negative=n", "--loudness=-20.0"]
    assert said[3 + len(begin) :] == [*options, "--", ID, "house"]
    with pytest.raises(Inexpressible, match="this edit"):  # The command would take the negative text of the source.
        words(source=source, **made)
    of_a_clip = words(**made)
    assert "--negative=n" not in of_a_clip


def test_request_leaves_out_what_is_not_of_the_music() -> None:
    request = repeat_request(generation(requestId=ID, priority=5, rating=3, id=ID, metadata={"a": "b"}))
    assert request == CreateGenerationRequest(prompt="house", model_name="sketch", seed=7, duration_seconds=0.5)
