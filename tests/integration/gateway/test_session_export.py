"""`dgx-music session export`: takes as sessions for DAWs, end to end."""

from __future__ import annotations

import json
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rpp
import soundfile

from dgx_music.audio.v1.audio_pb2 import FILE_FORMAT_FLAC_24, OutputOptions
from export_service.pipeline.beat_grid_reading import read_beat_grid
from gateway.daw.session_export import SessionFormat, SessionOptions, export_session
from tests.support import ardour
from tests.support.command_line import InProcessShell
from tests.support.embedded_services import EmbeddedServices
from tests.support.library_files import completed

NOBODY = "00000000-0000-4000-8000-000000000000"


def generate(shell: InProcessShell, prompt: str, seconds: float, *options: str) -> str:
    (made,) = shell.generations("generate", prompt, "--duration", str(seconds), "--seed", "5", "--json", *options)
    return made.id


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_two_takes_of_one_tempo_are_layers(shell: InProcessShell, tmp_path: Path) -> None:
    takes = [generate(shell, "house at 124 BPM in A minor", seconds) for seconds in (2.0, 1.0)]
    folder = tmp_path / "new" / "song"
    printed = shell.run("session", "export", *takes, "--to", str(folder))
    assert printed.stdout.splitlines() == [str(folder / f"song.{end}") for end in ("ardour", "dawproject", "rpp")]
    assert "2 takes, beginning together" in printed.stderr
    assert "  0%  house at 124 BPM in A minor 5: audio" in printed.stderr

    audio = "interchange/song/audiofiles"
    names = ["house at 124 BPM in A minor 5.wav", "house at 124 BPM in A minor 5 (2).wav"]
    assert files_of(folder) == {"song.ardour", "song.dawproject", "song.rpp", *(f"{audio}/{name}" for name in names)}
    for name, seconds in zip(names, (2, 1), strict=True):
        info = soundfile.info(folder / audio / name)
        assert (info.samplerate, info.channels, info.subtype, info.frames) == (48_000, 2, "PCM_24", seconds * 48_000)

    project = rpp.loads((folder / "song.rpp").read_text(encoding="utf-8"))
    assert ["TEMPO", "124", "4", "4"] in [line for line in project if isinstance(line, list)]
    root = ElementTree.parse(folder / "song.ardour").getroot()
    assert root.find("TempoMap/Tempos/Tempo").get("npm") == "124"  # type: ignore[union-attr]
    with zipfile.ZipFile(folder / "song.dawproject") as archive:
        assert archive.read(f"audio/{names[0]}") == (folder / audio / names[0]).read_bytes()
        inside = ElementTree.fromstring(archive.read("project.xml"))
    markers = [marker.get("name") for marker in inside.iter("Marker")]
    assert markers
    assert [mute.get("value") for mute in inside.iter("Mute")] == ["false", "true"]


@pytest.mark.slow
def test_session_that_is_there_is_replaced_only_by_force(shell: InProcessShell, tmp_path: Path) -> None:
    takes, folder = [generate(shell, "house at 124 BPM in A minor", 2.0)], tmp_path / "song"
    shell.run("session", "export", *takes, "--to", str(folder))
    before = {name: (folder / name).read_bytes() for name in files_of(folder)}
    refused = shell.error("session", "export", *takes, "--to", str(folder), status=1)
    assert "song.ardour already exists" in refused
    shell.run("session", "export", *takes, "--to", str(folder), "--force")
    assert {name: (folder / name).read_bytes() for name in files_of(folder)} == before


@pytest.mark.slow
def test_takes_of_two_tempi_with_stems_and_notes(shell: InProcessShell, tmp_path: Path) -> None:
    takes = [generate(shell, "techno at 130 BPM", 4.0), generate(shell, "jazz at 100 BPM in C major", 4.0)]
    folder = tmp_path / "song"
    options = "--format", "reaper", "--stems", "--midi", "--name", "Night: ride", "--sample-rate", "44100", "--json"
    described = json.loads(shell.run("session", "export", *takes, "--to", str(folder), *options).stdout)
    assert described["files"] == [str(folder / "Night_ ride.rpp")]
    assert (described["placement"], described["sample_rate_hz"]) == ("sequence", 44_100)
    assert [round(one["bpm"]) for one in described["tempo"]] == [130, 100]

    mix, rate = soundfile.read(folder / "audio" / "techno at 130 BPM 5.wav", always_2d=True)
    assert rate == 44_100
    stems = sorted((folder / "audio").glob("techno at 130 BPM 5 - *.wav"))
    assert len(stems) >= 3
    total = sum(soundfile.read(stem, always_2d=True)[0] for stem in stems)
    assert total.shape == mix.shape
    # The finished file is the sum with a gain, unless its limiter has worked.
    gain = float((mix * total).sum() / (total * total).sum())
    assert np.sqrt(np.mean((mix - gain * total) ** 2)) < 0.02 * np.sqrt(np.mean(mix**2))

    tracks = [
        child
        for child in rpp.loads((folder / "Night_ ride.rpp").read_text("utf-8"))
        if getattr(child, "tag", "") == "TRACK"
    ]
    sources = [track.find(".//SOURCE") for track in tracks]
    assert {source.attrib[0] for source in sources} == {"WAVE", "MIDI"}
    for source in sources:
        assert (folder / source[0][1]).is_file()


async def test_heard_beats_of_files_that_no_synthesiser_composed(
    library_services: EmbeddedServices, tmp_path: Path
) -> None:
    flac = await completed(library_services, 4.0, output=OutputOptions(format=FILE_FORMAT_FLAC_24))
    exported = await export_session(
        library_services.music, [flac.id], tmp_path, SessionOptions("song", (SessionFormat.DAWPROJECT,))
    )
    assert files_of(tmp_path) >= {"song.dawproject", "audio/techno " + str(flac.seed) + ".wav"}
    assert exported.notices == [f"techno {flac.seed}: no tempo was found; its bars are those of 120 BPM"]
    assert exported.session.tempo_map.tempi[0].bpm == 120.0


def test_take_without_stems_does_not_stop_the_session(shell: InProcessShell, tmp_path: Path) -> None:
    takes = [generate(shell, f"house at {bpm} BPM", 1.0) for bpm in (124, 125)]
    with closing(sqlite3.connect(shell.data_dir / "dgx_music.db")) as database, database:
        # As if an earlier version had made it, whose music this one can't play again.
        database.execute("UPDATE generations SET model_version = '1' WHERE id = ?", (takes[1],))
        assert database.execute("SELECT changes()").fetchone() == (1,)
    options = "--to", str(tmp_path / "song"), "--format", "ardour", "--stems", "--midi", "--json"
    done = shell.run("session", "export", *takes, *options)
    tracks = json.loads(done.stdout)["tracks"]
    assert any(name.startswith("drums - house at 124") for name in tracks)
    assert [name for name in tracks if "125" in name] == ["house at 125 BPM 5"]
    for parts in ("stems", "notes"):
        assert f"house at 125 BPM 5: no {parts}: generation {takes[1]} was made by version 1" in done.stderr
    assert "house at 125 BPM 5: no stems" in (tmp_path / "song" / "song.ardour").read_text("utf-8")
    # If no take has what was asked for, that is an error.
    refused = shell.run("session", "export", takes[1], "--to", str(tmp_path / "x"), "--stems", status=1).stderr
    assert "was made by version 1" in refused


@pytest.mark.slow
def test_takes_are_quantized_to_the_tempo_of_the_first(shell: InProcessShell, tmp_path: Path) -> None:
    takes = [generate(shell, f"techno at {bpm} BPM in A minor", 12.0) for bpm in (124, 130, 140)]
    folder = tmp_path / "song"
    options = "--to", str(folder), "--quantize-tempo", "--stems", "--midi", "--json"
    done = shell.run("session", "export", *takes[:2], *options)
    described = json.loads(done.stdout)
    assert described["placement"] == "layers"
    assert [one["bpm"] for one in described["tempo"]] == [124]
    assert "quantized to 124 BPM, to within" in done.stderr
    audio = folder / "interchange" / "song" / "audiofiles"
    assert soundfile.info(audio / "techno at 124 BPM in A minor 5.wav").frames == 12 * 48_000
    stretched = {soundfile.info(path).frames for path in audio.glob("techno at 130 BPM*.wav")}
    assert stretched == {round(12 * 130 / 124 * 48_000)}
    beats = read_beat_grid(audio / "techno at 130 BPM in A minor 5.wav", 124.0)
    assert beats.tempo[0].bpm == pytest.approx(124.0, abs=0.1)
    assert min(abs(beat - 240 / 124) for beat in beats.beats) < 0.01

    refused = shell.run(
        "session", "export", takes[0], takes[2], "--to", str(tmp_path / "x"), "--quantize-tempo", status=1
    ).stderr.splitlines()[-1]
    assert "stretched by 11% to be at 124 BPM" in refused
    assert not list((tmp_path / "x").glob("*.rpp"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ((NOBODY,), 1, NOBODY),
        (("not-an-id",), 2, "not-an-id"),
        ((NOBODY, "--sample-rate", "32000"), 2, "44100, 48000"),
        ((NOBODY, "--format", "cubase"), 2, "--format"),
    ],
)
def test_error_says_what_is_wrong(
    shell: InProcessShell, tmp_path: Path, arguments: tuple[str, ...], status: int, words: str
) -> None:
    assert words in shell.error("session", "export", *arguments, "--to", str(tmp_path / "song"), status=status)
    assert not (tmp_path / "song").exists()


@pytest.mark.slow
@pytest.mark.skipif(ardour.LUA is None, reason="Ardour is not installed: apt-get install ardour")
def test_ardour_opens_what_was_exported(shell: InProcessShell, tmp_path: Path) -> None:
    take = generate(shell, "house at 124 BPM in A minor", 8.0)
    folder = tmp_path / "song"
    shell.run("session", "export", take, "--to", str(folder), "--stems", "--midi")
    said = ardour.describe(folder, "song", tmp_path, (60 / 124 * 8,))
    regions = [one for one in said if one["kind"] == "region"]
    assert len(regions) >= 8
    assert all(region["peak"] > 0.01 for region in regions if region["channels"])
    assert all(region["notes"] > 0 for region in regions if not region["channels"])
    bar, beat, _ = said[-1]["bbt"].split("|")
    assert (bar, beat) == ("3", "1")
