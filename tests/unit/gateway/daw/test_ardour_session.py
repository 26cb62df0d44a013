"""Ardour sessions: what is in the file, and what Ardour itself makes of it."""

from __future__ import annotations

from xml.etree import ElementTree

import mido
import pytest

from gateway.daw.ardour_session import SUPERCLOCKS_PER_SECOND, ArdourWriter
from gateway.daw.session_model import Note
from tests.support import ardour
from tests.support.daw_sessions import HOSTILE_NAME, RATE_HZ, SECONDS, build_daw_session

NOTES = (Note(0.0, 0.5, 60, 100), Note(1.5, 2.0, 64, 90))
needs_ardour = [
    pytest.mark.slow,
    pytest.mark.skipif(ardour.LUA is None, reason="Ardour is not installed: apt-get install ardour"),
]


def write_session(folder):
    """Writes a session with audio and notes into a folder of its own; returns the folder and the session."""
    folder = folder / "song"
    session = build_daw_session(folder, ("notes.mid", NOTES))
    midi = folder / session.midi_folder / "notes.mid"
    midi.parent.mkdir(parents=True)
    file = mido.MidiFile(type=0, ticks_per_beat=480)
    track = file.add_track("Notes")
    for note in NOTES:
        start = round(note.start_beats * 480) - sum(message.time for message in track)
        track.append(mido.Message("note_on", note=note.pitch, velocity=note.velocity, time=start))
        track.append(mido.Message("note_off", note=note.pitch, time=round(note.length_beats * 480)))
    file.save(midi)
    (folder / "song.ardour").write_bytes(ArdourWriter(session).write())
    return folder, session


def test_numbers_are_unique_and_references_exist(tmp_path):
    root = ElementTree.fromstring(ArdourWriter(build_daw_session(tmp_path)).write())
    numbers = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(set(numbers)) == len(numbers)
    assert int(root.get("id-counter")) > max(map(int, numbers))
    sources = {source.get("id") for source in root.find("Sources")}
    used = {value for region in root.iter("Region") for key, value in region.items() if key.startswith("source-")}
    assert used == sources
    playlists = {playlist.get("id") for playlist in root.find("Playlists")}
    assert {route.get("audio-playlist") for route in root.find("Routes")} - {None} == playlists


def test_times_are_in_ardours_unit(tmp_path):
    session = build_daw_session(tmp_path)
    root = ElementTree.fromstring(ArdourWriter(session).write())
    for playlist, track in zip(root.find("Playlists"), session.tracks, strict=True):
        length, position = playlist.find("Region").get("length").split("@")
        assert int(position[1:]) / SUPERCLOCKS_PER_SECOND == pytest.approx(track.start_seconds, abs=1e-8)
        assert int(length[1:]) * RATE_HZ == track.audio.frames * SUPERCLOCKS_PER_SECOND
    tempi = root.findall("TempoMap/Tempos/Tempo")
    assert [tempo.get("bbt") for tempo in tempi] == ["1|1|0", "6|1|0", "8|3|0"]
    assert [meter.get("divisions-per-bar") for meter in root.findall("TempoMap/Meters/Meter")] == ["4", "3"]


def test_same_session_gives_the_same_bytes(tmp_path):
    session = build_daw_session(tmp_path)
    assert ArdourWriter(session).write() == ArdourWriter(session).write()


class TestArdourItself:
    pytestmark = needs_ardour

    def test_opens_the_session(self, tmp_path):
        folder, session = write_session(tmp_path)
        second = session.tracks[2].start_seconds
        times = (0.0, 60 / 124 * 5, second, second + 3 * 60 / 90, second + 8 * 60 / 90 + 60 / 95)
        said = ardour.describe(folder, "song", tmp_path, times)

        def of_kind(kind):
            return [one for one in said if one["kind"] == kind]

        assert of_kind("session") == [{"kind": "session", "rate": RATE_HZ}]
        routes = {route["name"]: route for route in of_kind("route")}
        regions = {region["track"]: region for region in of_kind("region")}
        assert set(routes) == {*(track.name for track in session.tracks), "Master"}
        assert routes[HOSTILE_NAME]["colour"] == 0xE4572EFF
        for track in session.tracks:
            route, region = routes[track.name], regions[track.name]
            assert route["muted"] is track.is_muted
            assert route["gain"] == pytest.approx(10.0 ** (track.gain_db / 20.0), rel=1e-5)
            assert region["position"] == pytest.approx(track.start_seconds * RATE_HZ, abs=1)
            if track.audio:
                assert (region["length"], region["channels"]) == (track.audio.frames, track.audio.channels)
                assert region["peak"] == pytest.approx(0.5, abs=0.001)
        assert regions["Notes"]["notes"] == len(NOTES)
        assert regions["Notes"]["length"] == pytest.approx(6 * 60 / 90 * RATE_HZ, abs=2)
        starts = {location["name"]: location["start"] for location in of_kind("location")}
        assert starts["session"] == starts['Intro "A" <1>'] == 0
        assert starts["Verse"] == pytest.approx(second * RATE_HZ, abs=1)
        bars = [one["bbt"].split("|") for one in of_kind("time")]
        assert [(int(bar), int(beat), round(int(ticks) / 1920)) for bar, beat, ticks in bars] == [
            (1, 1, 0), (2, 2, 0), (6, 1, 0), (7, 1, 0), (9, 1, 0),
        ]  # fmt: skip
        assert len(SECONDS) == 2

    def test_its_own_session_has_our_elements(self, tmp_path):
        """Every element and attribute that we write and that says something is one that Ardour writes."""
        ardour.run_lua(ardour.CREATE, tmp_path / "own", "own", tmp_path)
        own = ElementTree.parse(tmp_path / "own" / "own.ardour").getroot()
        ours = ElementTree.fromstring(ArdourWriter(build_daw_session(tmp_path)).write())
        assert ours.tag == own.tag
        assert ours.get("version") <= own.get("version")
        assert {child.tag for child in ours} <= {child.tag for child in own}
        for path in ("Routes/Route", "Routes/Route/IO", "Routes/Route/IO/Port", "Playlists/Playlist",
            "TempoMap/Tempos/Tempo", "TempoMap/Meters/Meter", "Locations/Location", "Routes/Route/PresentationInfo",
        ):  # fmt: skip
            known = {name for element in own.findall(path) for name in element.attrib}
            written = {name for element in ours.findall(path) for name in element.attrib}
            assert written
            assert written <= known, path
