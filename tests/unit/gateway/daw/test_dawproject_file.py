"""DAWproject archives: valid by a schema, and with the session's times."""

from __future__ import annotations

import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import xmlschema

from gateway.daw.dawproject_file import write_dawproject
from gateway.daw.session_model import Note
from tests.support.daw_sessions import HOSTILE_NAME, SECONDS, build_daw_session, steady

SCHEMA = Path(__file__).parents[4] / "tests" / "support" / "dawproject.xsd"
NOTES = (Note(0.0, 0.5, 60, 100), Note(1.5, 2.0, 127, 1, 9))


@pytest.fixture
def written(tmp_path):
    """Writes a session; returns its archive and what project.xml says."""

    def write(session):
        audio = {
            track.audio.name: tmp_path / session.audio_folder / track.audio.name
            for track in session.tracks
            if track.audio
        }
        path = tmp_path / "x.dawproject"
        write_dawproject(session, audio, path, "1.2.3")
        archive = zipfile.ZipFile(path)
        return archive, ElementTree.fromstring(archive.read("project.xml"))

    return write


def test_archive_is_valid_and_complete(tmp_path, written):
    session = build_daw_session(tmp_path, ("notes.mid", NOTES))
    archive, root = written(session)
    with archive:
        schema = xmlschema.XMLSchema(SCHEMA)
        for name in ("project.xml", "metadata.xml"):
            schema.validate(archive.read(name).decode())
        assert archive.testzip() is None
        assert {file.get("path") for file in root.iter("File")} == set(archive.namelist()) - {
            "project.xml",
            "metadata.xml",
        }
        for track in session.tracks:
            if track.audio:
                content = (tmp_path / session.audio_folder / track.audio.name).read_bytes()
                assert archive.read(f"audio/{track.audio.name}") == content


def test_steady_session_is_valid_and_has_no_automation(tmp_path, written):
    archive, root = written(steady(build_daw_session(tmp_path)))
    with archive:
        xmlschema.XMLSchema(SCHEMA).validate(archive.read("project.xml").decode())
    assert root.find("Arrangement/TempoAutomation") is None
    assert root.find("Arrangement/Markers") is None
    assert root.find("Transport/Tempo").get("value") == "124"


def test_schema_rejects_what_no_daw_reads(tmp_path, written):
    archive, root = written(build_daw_session(tmp_path))
    archive.close()
    root.find("Arrangement/Lanes/Lanes").set("track", "nowhere")
    with pytest.raises(xmlschema.XMLSchemaValidationError):
        xmlschema.XMLSchema(SCHEMA).validate(ElementTree.tostring(root, encoding="unicode"))


def test_times_are_in_beats_and_the_audio_keeps_its_speed(tmp_path, written):
    session = build_daw_session(tmp_path, ("notes.mid", NOTES))
    archive, root = written(session)
    archive.close()
    clips = list(root.iter("Clip"))
    assert [clip.get("name") for clip in clips] == [HOSTILE_NAME, "Bass", "Second take", "Notes"]
    for clip, track in zip(clips, session.tracks, strict=True):
        start = float(clip.get("time"))
        assert session.tempo_map.seconds_at(start) == pytest.approx(track.start_seconds, abs=1e-6)
        for warp in clip.iter("Warp"):
            heard = session.tempo_map.seconds_at(start + float(warp.get("time"))) - track.start_seconds
            assert float(warp.get("contentTime")) == pytest.approx(heard, abs=1e-6)
    assert float(list(clips[2].iter("Warp"))[-1].get("contentTime")) == SECONDS[1]
    assert len(list(clips[2].iter("Warp"))) == 3  # The tempo changes once within the clip.
    notes = list(clips[3].iter("Note"))
    assert [(note.get("time"), note.get("key"), note.get("channel")) for note in notes] == [
        ("0", "60", "0"), ("1.5", "127", "9"),
    ]  # fmt: skip
    assert [point.get("numerator") for point in root.iter("TimeSignaturePoint")] == ["4", "3"]
    assert [mute.get("value") for mute in root.iter("Mute")] == ["false", "true", "false", "false"]
    assert float(next(root.iter("Volume")).get("value")) == 1.0


def test_same_session_gives_the_same_bytes(tmp_path, written):
    session = build_daw_session(tmp_path)
    contents = set()
    for _ in range(2):
        written(session)[0].close()
        contents.add((tmp_path / "x.dawproject").read_bytes())
    assert len(contents) == 1
