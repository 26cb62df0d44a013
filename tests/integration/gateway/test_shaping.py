"""What shapes music besides its prompt, edits and lineage: at the gateway and on the command line."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import json_format

from dgx_music.channel import connect
from dgx_music.error_status import read_error_details
from dgx_music.gateway.v1.gateway_pb2_grpc import MusicServiceStub
from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1.conditioning_pb2 import (
    EDIT_KIND_EXTEND_LEFT,
    EDIT_KIND_EXTEND_RIGHT,
    EDIT_KIND_REPAINT,
    LINEAGE_RELATION_EXTENSION,
    LINEAGE_RELATION_MELODY,
    LINEAGE_RELATION_REPAINT,
    LINEAGE_RELATION_STYLE,
    LINEAGE_RELATION_VARIATION,
    Adapter,
    Conditioning,
    Edit,
    LineageRelation,
    Loop,
    Melody,
    Parent,
    PromptSection,
    Style,
    WeightedPrompt,
)
from dgx_music.storage.v1.storage_pb2 import Continuation, CreateGenerationRequest, Generation
from tests.support.command_line import InProcessShell
from tests.support.tone_server import ToneServer, tone_server

if TYPE_CHECKING:
    from dgx_music.gateway.v1.gateway_pb2_grpc import MusicServiceAsyncStub

SECONDS = 60.0
UNKNOWN = "11111111-2222-4333-8444-55555555aaaa"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToneServer]:
    with tone_server(tmp_path_factory.mktemp("tone")) as server:
        yield server


@pytest.fixture
async def music(server: ToneServer) -> AsyncIterator[MusicServiceAsyncStub]:
    channel = connect(server.address)
    yield MusicServiceStub(channel)
    await channel.close()


class ToneShell(InProcessShell):
    """A command line at the server."""

    address = ""

    def _run(self, arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return super()._run(arguments, {**environment, "DGX_MUSIC_GATEWAY_ADDRESS": self.address})


@pytest.fixture
def tone(tmp_path: Path, server: ToneServer, capfd: pytest.CaptureFixture[str]) -> ToneShell:
    shell = ToneShell(tmp_path / "data", capfd)
    shell.address = server.address
    return shell


async def create(
    music: MusicServiceAsyncStub, prompt: str = "piano", seconds: float = 0.0, **fields: Any
) -> Generation:
    request = CreateGenerationRequest(prompt=prompt, duration_seconds=seconds, **fields)
    return (await music.CreateGeneration(request, timeout=SECONDS)).generation


async def completed(music: MusicServiceAsyncStub, generation: Generation) -> Generation:
    request = storage.WatchGenerationRequest(id=generation.id)
    async for change in music.WatchGeneration(request, timeout=SECONDS):
        generation = change.generation
    assert generation.state == storage.GENERATION_STATE_COMPLETED, generation.error_message
    return generation


async def refused(music: MusicServiceAsyncStub, seconds: float = 2.0, **fields: Any) -> tuple[str, str]:
    """Returns the field at fault, or else the reason, and the message."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create(music, seconds=seconds, **fields)
    details = read_error_details(caught.value)
    return next(iter(details.violations.items()), (details.reason, details.message))


@pytest.fixture
async def source(music: MusicServiceAsyncStub) -> Generation:
    return await completed(music, await create(music, "a source", 2.0))


async def test_conditions_and_parents_are_reported(music: MusicServiceAsyncStub, source: Generation) -> None:
    conditioning = Conditioning(
        negative_prompt="drums",
        sections=[PromptSection(end_seconds=1.0, prompt="calm")],
        melody=Melody(source_id=source.id, start_seconds=0.5),
        style=Style(source_id=source.id.upper(), text_guidance=2.0),
        lyrics="la",
        steps=8,
    )
    made = await create(music, seconds=2.0, conditioning=conditioning, variation_of=source.id)
    conditioning.style.source_id = source.id
    assert made.conditioning == conditioning
    assert [(parent.id, parent.relation) for parent in made.parents] == [
        (source.id, LINEAGE_RELATION_MELODY),
        (source.id, LINEAGE_RELATION_STYLE),
        (source.id, LINEAGE_RELATION_VARIATION),
    ]


@pytest.mark.parametrize(
    ("field", "conditioning"),
    [
        ("negative_prompt", Conditioning(negative_prompt="drums")),
        ("further_prompts", Conditioning(further_prompts=[WeightedPrompt(prompt="strings", weight=1)])),
        ("sections", Conditioning(sections=[PromptSection(end_seconds=1, prompt="calm")])),
        ("melody", Conditioning(melody=Melody(source_id=UNKNOWN))),
        ("style", Conditioning(style=Style(source_id=UNKNOWN))),
        ("adapters", Conditioning(adapters=[Adapter(name="lofi")])),
        ("lyrics", Conditioning(lyrics="la")),
        ("steps", Conditioning(steps=8)),
    ],
)
async def test_model_that_lacks_a_capability_names_those_that_have_it(
    music: MusicServiceAsyncStub, field: str, conditioning: Conditioning
) -> None:
    at_fault, problem = await refused(music, model_name="sketch", conditioning=conditioning)
    assert at_fault == f"conditioning.{field}"
    assert "model 'sketch' can't" in problem
    assert "models that can: tone" in problem


async def test_fields_are_checked_in_a_batch_too(music: MusicServiceAsyncStub) -> None:
    good = CreateGenerationRequest(prompt="a", duration_seconds=1)
    bad = CreateGenerationRequest(prompt="a", duration_seconds=1, conditioning=Conditioning(steps=501))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await music.BatchCreateGenerations(storage.BatchCreateGenerationsRequest(requests=[good, bad]), timeout=SECONDS)
    assert list(read_error_details(caught.value).violations) == ["requests[1].conditioning.steps"]


async def test_sources_must_be_completed(music: MusicServiceAsyncStub) -> None:
    unfinished = await create(music, seconds=3600.0, model_name="sketch")
    await music.CancelGeneration(storage.CancelGenerationRequest(id=unfinished.id), timeout=SECONDS)
    for fields in (
        {"continuation": Continuation(source_id=unfinished.id)},
        {"conditioning": Conditioning(melody=Melody(source_id=unfinished.id))},
        {"conditioning": Conditioning(style=Style(source_id=unfinished.id))},
        {"edit": Edit(source_id=unfinished.id, kind=EDIT_KIND_EXTEND_LEFT, added_seconds=1)},
    ):
        assert (await refused(music, **fields))[0] == "SOURCE_NOT_COMPLETED"


@pytest.mark.parametrize(
    ("edit", "seconds", "relation"),
    [
        (Edit(kind=EDIT_KIND_EXTEND_LEFT, added_seconds=1.5), 3.5, LINEAGE_RELATION_EXTENSION),
        (Edit(kind=EDIT_KIND_EXTEND_RIGHT, added_seconds=2), 4.0, LINEAGE_RELATION_EXTENSION),
        (Edit(kind=EDIT_KIND_REPAINT, start_seconds=0.5, end_seconds=1.5), 2.0, LINEAGE_RELATION_REPAINT),
    ],
)
async def test_edit_has_the_length_of_its_result(
    music: MusicServiceAsyncStub, source: Generation, edit: Edit, seconds: float, relation: LineageRelation
) -> None:
    edit.source_id = source.id
    made = await create(music, edit=edit)
    assert (made.duration_seconds, made.edit, list(made.parents)) == (
        seconds,
        edit,
        [Parent(id=source.id, relation=relation)],
    )
    assert (await create(music, seconds=seconds, edit=edit)).duration_seconds == seconds
    field, problem = await refused(music, seconds=seconds + 1, edit=edit)
    assert (field, f"must be {seconds:g} s" in problem) == ("duration_seconds", True)
    await completed(music, made)


async def test_edit_that_does_not_fit_its_source_is_refused(music: MusicServiceAsyncStub, source: Generation) -> None:
    beyond = Edit(source_id=source.id, kind=EDIT_KIND_REPAINT, start_seconds=1, end_seconds=2.5)
    assert await refused(music, 0, edit=beyond) == (
        "edit.end_seconds",
        "must be at most the length of the source, 2 s, not 2.5",
    )
    unknown = Edit(source_id=UNKNOWN, kind=EDIT_KIND_EXTEND_RIGHT, added_seconds=1)
    assert (await refused(music, 0, edit=unknown))[0] == "edit.source_id"
    kind = Edit(source_id=source.id, kind=77, added_seconds=1)  # type: ignore[arg-type]
    assert (await refused(music, 0, edit=kind))[0] == "edit.kind"
    endless = Edit(source_id=source.id, kind=EDIT_KIND_EXTEND_RIGHT, added_seconds=math.nan)
    assert (await refused(music, 0, edit=endless))[0] == "edit.added_seconds"
    malformed = Edit(source_id="x", kind=EDIT_KIND_EXTEND_RIGHT, added_seconds=1)
    assert (await refused(music, 0, edit=malformed))[0] == "edit.source_id"
    good = Edit(source_id=source.id, kind=EDIT_KIND_EXTEND_RIGHT, added_seconds=1)
    assert await refused(music, 0, edit=good, continuation=Continuation(source_id=source.id)) == (
        "edit",
        "can't be combined with continuation",
    )
    assert (await refused(music, 0, edit=good, model_name="sketch"))[0] == "edit"


async def test_loop_has_the_tempo_of_its_prompt(music: MusicServiceAsyncStub) -> None:
    made = await create(music, "lo-fi at 96 BPM", loop=Loop(bars=2))
    assert (made.loop, made.duration_seconds) == (Loop(bars=2, bpm=96.0), 5.0)
    waltz = await create(music, "a waltz at 96 BPM", 3.0, loop=Loop(bars=2, beats_per_bar=3, bpm=120.0))
    assert (waltz.loop.bpm, waltz.duration_seconds) == (120.0, 3.0)
    await completed(music, made)
    assert (await refused(music, 0, loop=Loop(bars=2)))[0] == "loop.bpm"
    assert (await refused(music, 0, loop=Loop(bars=65, bpm=84)))[0] == "loop.bars"
    assert (await refused(music, 3.0, loop=Loop(bars=2, bpm=96)))[0] == "duration_seconds"


async def test_variation_of_nothing_is_refused(music: MusicServiceAsyncStub) -> None:
    assert await refused(music, variation_of=UNKNOWN) == ("variation_of", f"there is no generation '{UNKNOWN}'")
    field, problem = await refused(music, variation_of="x")
    assert (field, problem[:14]) == ("variation_of", "must be a UUID")


@pytest.mark.parametrize(
    ("seconds", "fields", "field", "problem"),
    [
        (2.0, {"continuation": Continuation(source_id=UNKNOWN)}, "continuation.source_id", "there is no finished"),
        (2.0, {"continuation": Continuation(source_id="SOURCE", seconds=30)}, "continuation.seconds", "must be 0.5"),
        (2.0, {"conditioning": Conditioning(melody=Melody(source_id=UNKNOWN))}, "melody.source_id", "there is no"),
        (
            2.0,
            {"conditioning": Conditioning(melody=Melody(source_id="SOURCE", start_seconds=2))},
            "melody.start_seconds",
            "must be before the end of the source at 2 s, not 2",
        ),
        (
            2.0,
            {"conditioning": Conditioning(style=Style(source_id="SOURCE", start_seconds=1))},
            "style.start_seconds",
            "leaves 1 s of audio; 1.5 s are needed",
        ),
        (2.0, {"conditioning": Conditioning(adapters=[Adapter()])}, "adapters[0].name", "must not be empty"),
        (
            0.0,
            {"loop": Loop(bars=1, bpm=100), "continuation": Continuation(source_id="SOURCE")},
            "loop",
            "can't be combined with continuation",
        ),
        (
            0.0,
            {"edit": Edit(source_id="SOURCE", kind=EDIT_KIND_EXTEND_RIGHT, added_seconds=3599)},
            "edit.added_seconds",
            "must be at most 3598 s",
        ),
    ],
)
async def test_what_can_never_be_made_is_not_queued(
    music: MusicServiceAsyncStub, source: Generation, seconds: float, fields: dict[str, Any], field: str, problem: str
) -> None:
    for message in fields.values():
        if isinstance(message, Conditioning):
            for part in (message.melody, message.style):
                if part.source_id == "SOURCE":
                    part.source_id = source.id
        elif not isinstance(message, Loop) and message.source_id == "SOURCE":
            message.source_id = source.id
    found, text = await refused(music, seconds=seconds, **fields)
    assert found.removeprefix("conditioning.") == field
    assert text.startswith(problem), text


async def test_duration_is_decided_by_the_server(music: MusicServiceAsyncStub) -> None:
    assert (await create(music, seconds=0.0)).duration_seconds == 16


def test_generate_shapes_what_its_options_say(tone: ToneShell, tmp_path: Path) -> None:
    (source,) = tone.generations("generate", "a source", "-d", "2")
    (tmp_path / "lyrics.txt").write_text("[chorus]\nla la\n")
    (made,) = tone.generations(
        *("generate", "piano", "-d", "4", "--negative", "drums", "--section", "0:2", "calm piano"),
        *("--section", "2:4 drop, drums", "--melody", source.id, "--melody-start", "0.5", "--style", source.id),
        *("--text-guidance", "3", "--lyrics", f"@{tmp_path}/lyrics.txt", "--steps", "8"),
    )
    assert made.conditioning == Conditioning(
        negative_prompt="drums",
        sections=[
            PromptSection(end_seconds=2, prompt="calm piano"),
            PromptSection(start_seconds=2, end_seconds=4, prompt="drop, drums"),
        ],
        melody=Melody(source_id=source.id, start_seconds=0.5),
        style=Style(source_id=source.id, text_guidance=3),
        lyrics="[chorus]\nla la\n",
        steps=8,
    )
    shown = tone.run("show", made.id).stdout
    for text in ("negative", "drums", "0 to 2 s: calm piano; 2 to 4 s: drop, drums", f"of {source.id}, from 0.5 s"):
        assert text in shown
    (loop,) = tone.generations(
        "generate", "lo-fi at 120 BPM", "--also", "strings:0.5", "--also", "at 12:5", "--loop", "1bar"
    )
    assert (loop.duration_seconds, loop.loop) == (2.0, Loop(bars=1, bpm=120))
    assert [(one.prompt, one.weight) for one in loop.conditioning.further_prompts] == [("strings", 0.5), ("at 12", 5)]


def test_melody_file_is_imported(tone: ToneShell, tmp_path: Path) -> None:
    (source,) = tone.generations("generate", "a source", "-d", "1", "-o", f"{tmp_path}/a.wav")
    (made,) = tone.generations("generate", "piano", "-d", "1", "--melody", f"{tmp_path}/a.wav")
    assert made.conditioning.melody.source_id not in ("", source.id)
    line = tone.error("generate", "piano", "--model", "sketch", "--melody", f"{tmp_path}/a.wav", status=2)
    assert line.startswith("error: --melody: model 'sketch' can't follow a melody; models that can: tone")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--section", "0:9", "calm"), "--section: must be at most the duration of 2 s, not 9"),
        (("--section", "x", "calm"), "--section: 'x' is not a part of the music"),
        (("--section", "0:1"), "--section: must not be empty"),
        (("--also", "a:20"), "--also: must be above 0 and at most 10, not 20"),
        (("--adapter", "a:0.5"), "--adapter: there is no adapter 'a'"),
        (("--adapter", "a:b"), "--adapter: 'b' is not a scale"),
        (("--melody", "x.wav"), "--melody: x.wav is neither a valid id nor an existing file"),
        (("--melody-start", "1"), "--melody-start: can only be used together with --melody"),
        (("--style", UNKNOWN, "--text-guidance", "11"), "--text-guidance: must be 1 to 10, not 11"),
        (("--lyrics", "@/nonexistent"), "--lyrics: failed to read /nonexistent"),
        (("--bars", "8beats"), "--bars: must be a number of bars such as 8"),
        (("--loop", "8", "--tempo", "90"), "--duration: must be 21.33333333 s, the length of the result, not 2"),
        (("--beats", "3"), "--beats: can only be used together with --bars"),
    ],
)
def test_error_names_the_option(tone: ToneShell, options: tuple[str, ...], problem: str) -> None:
    assert tone.error("generate", "piano", "-d", "2", *options, status=2).startswith(f"error: {problem}")


def test_edits_and_variations_form_a_lineage(tone: ToneShell) -> None:
    (source,) = tone.generations("generate", "a source", "-d", "1", "--negative", "drums", "--temperature", "0.5")
    (longer,) = tone.generations("extend", source.id, "--right", "1")
    assert (longer.prompt, longer.duration_seconds, longer.edit.kind) == ("a source", 2.0, EDIT_KIND_EXTEND_RIGHT)
    assert (longer.conditioning, longer.sampling) == (source.conditioning, source.sampling)
    (repainted,) = tone.generations(
        "repaint", longer.id, "bells", "--from", "0.5", "--to", "1", "--seed", "7", "--negative", "guitar"
    )
    assert (repainted.prompt, repainted.seed, repainted.conditioning.negative_prompt) == ("bells", 7, "guitar")
    varied = tone.generations("variations", longer.id, "--count", "2", "--seed", "3")
    assert [one.seed for one in varied] == [3, 4]
    varied.sort(key=lambda one: one.created_at.ToNanoseconds())  # They were created at the same time.
    assert all(one.edit == longer.edit and one.duration_seconds == 2.0 for one in varied)

    assert tone.run("show", longer.id, "--lineage").stdout.splitlines() == [
        f'{source.id} completed "a source"',
        f'├─ {longer.id} extension completed "a source"  ← this one',
        f'│  ├─ {repainted.id} repaint completed "bells"',
        f'│  ├─ {varied[0].id} variation completed "a source"',
        f'│  └─ {varied[1].id} variation completed "a source"',
        f'├─ {varied[0].id} extension completed "a source"',
        f'└─ {varied[1].id} extension completed "a source"',
    ]
    nodes = json.loads(tone.run("show", longer.id, "--lineage", "--json").stdout)["nodes"]
    assert {node["id"] for node in nodes} == {one.id for one in (source, longer, repainted, *varied)}


def test_edit_errors_say_what_to_type(tone: ToneShell, tmp_path: Path) -> None:
    (sketch,) = tone.generations("generate", "house", "-d", "1", "--model", "sketch", "-o", f"{tmp_path}/a.wav")
    for arguments, problem in (
        (("extend", sketch.id), "give either --left SECONDS or --right SECONDS"),
        (("extend", sketch.id, "--left", "1"), "--model: model 'sketch' can't continue audio; models that can: tone"),
        (("extend", sketch.id, "--left", "0", "--model", "tone"), "--left or --right: must be 0.1 to 3600 s, not 0"),
        (("extend", "nothing", "--left", "1"), "ID: nothing is neither a valid id nor an existing file"),
        (("extend", f"{tmp_path}/a.wav", "--left", "1"), "PROMPT: describe the music;"),
        (("repaint", sketch.id, "--from", "0", "--to", "2", "--model", "tone"), "--to: must be at most the length of"),
        (("variations", UNKNOWN), "there is no generation"),
    ):
        line = tone.error(*arguments, status=1 if arguments[0] == "variations" else 2)
        assert line.splitlines()[-1].startswith(f"error: {problem}"), line


def test_file_of_another_origin_is_extended(tone: ToneShell, tmp_path: Path) -> None:
    tone.generations("generate", "house", "-d", "1", "--model", "sketch", "-o", f"{tmp_path}/a.wav")
    (longer,) = tone.generations("extend", f"{tmp_path}/a.wav", "more house", "--left", "1")
    assert (longer.prompt, longer.model_name, longer.duration_seconds) == ("more house", "tone", 2.0)


def test_columns_of_a_prompt_file_shape_too(tone: ToneShell, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "prompt,duration,negative,section,also,loop\n"
        "piano,2,drums,0:1 calm | 1:2 drums,,\n"
        'lo-fi at 120 BPM,,,,"strings:2 | choir",1bar\n'
    )
    lines = tone.run("generate", "--file", f"{tmp_path}/a.csv", "--json").stdout.splitlines()
    made = {found["line"]: json_format.ParseDict(found["generation"], Generation()) for found in map(json.loads, lines)}
    first, second = made[2], made[3]
    assert [section.prompt for section in first.conditioning.sections] == ["calm", "drums"]
    assert first.conditioning.negative_prompt == "drums"
    assert (second.duration_seconds, second.loop.bars) == (2.0, 1)
    assert [(one.prompt, one.weight) for one in second.conditioning.further_prompts] == [("strings", 2), ("choir", 1)]
    (tmp_path / "b.csv").write_text("prompt,loop,section\npiano,2bars,\npiano,,0:40 calm\n")
    lines = tone.run("generate", "--file", f"{tmp_path}/b.csv", status=2).stderr
    assert f"{tmp_path}/b.csv:2: --tempo: must be 20 to 400" in lines
    assert f"{tmp_path}/b.csv:3: section: must be at most the duration of 16 s, not 40" in lines
