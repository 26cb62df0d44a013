"""Music made from earlier music by the Python client, and what shapes it besides its prompt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dgx_music import AsyncClient, Client
from dgx_music.client.blocking.sync_generation import Generation
from dgx_music.errors import InvalidArgument
from dgx_music.storage.v1.conditioning_pb2 import (
    EDIT_KIND_EXTEND_LEFT,
    EDIT_KIND_REPAINT,
    LINEAGE_RELATION_EXTENSION,
    LINEAGE_RELATION_VARIATION,
    Adapter,
    Conditioning,
    Loop,
    Melody,
    PromptSection,
    Style,
    WeightedPrompt,
)
from tests.support.tone_server import tone_server


@pytest.fixture(scope="module")
def tone_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tone_server(tmp_path_factory.mktemp("tone")) as server:
        yield server.address


@pytest.fixture
def tone(tone_address: str) -> Iterator[Client]:
    with Client(tone_address) as client:
        yield client


@pytest.fixture
def source(tone: Client) -> Generation:
    return tone.generate("a source", duration=1, temperature=0.5, negative="drums")


def test_options_shape_the_music(tone: Client, source: Generation) -> None:
    longer = tone.generate("long enough for its style", duration=1.5)
    shaped = tone.submit(
        "piano",
        duration=2,
        negative="drums",
        sections=[(0, 1, "calm"), (1, 2, "loud")],
        melody=source,
        melody_start=0.5,
        style=longer.id,
        text_guidance=2,
        lyrics="la",
        steps=4,
    )
    assert shaped.message.conditioning == Conditioning(
        negative_prompt="drums",
        sections=[
            PromptSection(end_seconds=1, prompt="calm"),
            PromptSection(start_seconds=1, end_seconds=2, prompt="loud"),
        ],
        melody=Melody(source_id=source.id, start_seconds=0.5),
        style=Style(source_id=longer.id, text_guidance=2),
        lyrics="la",
        steps=4,
    )
    mixed = tone.submit("lo-fi at 120 BPM", also={"strings": 0.5}, loop=1)
    assert (mixed.duration, mixed.message.loop) == (2.0, Loop(bars=1, bpm=120))
    assert list(mixed.message.conditioning.further_prompts) == [WeightedPrompt(prompt="strings", weight=0.5)]


def test_music_is_extended_repainted_and_varied(tone: Client, source: Generation) -> None:
    longer = source.extend(left=1).wait()
    assert (longer.prompt, longer.duration, longer.message.edit.kind) == ("a source", 2.0, EDIT_KIND_EXTEND_LEFT)
    assert longer.message.sampling.temperature == 0.5
    assert longer.message.conditioning.negative_prompt == "drums"
    repainted = longer.repaint(0.5, 1, "bells", seed=7, negative="guitar", format="flac")
    assert (repainted.prompt, repainted.seed, repainted.message.edit.kind) == ("bells", 7, EDIT_KIND_REPAINT)
    assert repainted.message.conditioning.negative_prompt == "guitar"
    varied = source.variations(3, seed=5)
    assert [(one.seed, one.duration) for one in varied] == [(5, 1.0), (6, 1.0), (7, 1.0)]
    lineage = {node.id: [(one.id, one.relation) for one in node.parents] for node in longer.lineage()}
    assert lineage == {
        source.id: [],
        longer.id: [(source.id, LINEAGE_RELATION_EXTENSION)],
        repainted.id: lineage[repainted.id],
    }
    assert [(one.id, one.relation) for one in source.lineage()[-1].parents] == [(source.id, LINEAGE_RELATION_VARIATION)]


async def test_asynchronous_client_does_the_same(tone_address: str) -> None:
    async with AsyncClient(tone_address) as client:
        source = await client.generate("a source", duration=1)
        longer = await (await source.extend("more", right=0.5)).wait()
        assert (longer.prompt, longer.duration) == ("more", 1.5)
        assert [node.id for node in await longer.lineage()] == [source.id, longer.id]


def test_errors_name_the_argument(tone: Client, source: Generation) -> None:
    for argument, call in (
        ("left", lambda: source.extend()),
        ("left", lambda: source.extend(left=1, right=1)),
        ("left or right", lambda: source.extend(right=0)),
        ("end", lambda: source.repaint(0.5, 2)),
        ("duration", lambda: source.variations(duration=2)),
        ("seed", lambda: source.variations(2, seed=2**63 - 1)),
        ("model", lambda: source.extend(left=1, model="sketch", negative="")),
        ("melody_start", lambda: tone.submit("x", melody_start=1)),
        ("tempo", lambda: tone.submit("x", tempo=90)),
        ("tempo", lambda: tone.submit("x", loop=2)),
        ("sections", lambda: tone.submit("x", sections=[(0, 99, "y")])),
        ("also", lambda: tone.submit("x", also={"y": 11})),
        ("melody", lambda: tone.submit("x", melody=3)),
        ("adapters", lambda: tone.submit("x", adapters={"a": 9})),
        ("negative", lambda: tone.submit("x", negative="drums", model="sketch")),
        ("requests[1].steps", lambda: tone.submit_many(["x", {"prompt": "y", "steps": 501}])),
    ):
        with pytest.raises(InvalidArgument) as error:
            call()
        assert error.value.field == argument


def test_adapters_have_scales() -> None:
    from dgx_music.client.shaping.conditioning_options import build_conditioning

    for given, expected in (
        ("a", [Adapter(name="a")]),
        (["a", "b"], [Adapter(name="a"), Adapter(name="b")]),
        ({"a": 0.5}, [Adapter(name="a", scale=0.5)]),
    ):
        conditioning = build_conditioning({"adapters": given})  # type: ignore[typeddict-item]
        assert conditioning is not None
        assert list(conditioning.adapters) == expected
