"""REAPER projects, read back by a library that we did not write."""

from __future__ import annotations

from dataclasses import replace

import pytest
import rpp

from gateway.daw.reaper_project import write_reaper
from gateway.daw.session_model import Note
from tests.support.daw_sessions import HOSTILE_NAME, SECONDS, build_daw_session, steady


def values(element, name):
    """The arguments of the first line with this name in a block."""
    return next(line[1:] for line in element if isinstance(line, list) and line[0] == name)


def blocks(element, tag):
    return [child for child in element if isinstance(child, rpp.Element) and child.tag == tag]


def test_project_is_read_back(tmp_path):
    session = build_daw_session(tmp_path, ("notes.mid", (Note(0.0, 1.0, 60, 100),)))
    project = rpp.loads(write_reaper(session))
    assert project.tag == "REAPER_PROJECT"
    assert values(project, "SAMPLERATE")[0] == "48000"
    assert values(project, "TEMPO") == ["124", "4", "4"]
    tracks = blocks(project, "TRACK")
    assert len(tracks) == 4
    for track, expected in zip(tracks, session.tracks, strict=True):
        (item,) = blocks(track, "ITEM")
        (source,) = blocks(item, "SOURCE")
        assert float(values(item, "POSITION")[0]) == pytest.approx(expected.start_seconds)
        assert values(track, "MUTESOLO")[0] == str(int(expected.is_muted))
        assert 10.0 ** (expected.gain_db / 20.0) == pytest.approx(float(values(track, "VOLPAN")[0]))
        if expected.audio:
            assert source.attrib[0] == "WAVE"
            assert (tmp_path / values(source, "FILE")[0]).is_file()
            assert float(values(item, "LENGTH")[0]) == pytest.approx(expected.audio.frames / 48_000)
        else:
            assert source.attrib[0] == "MIDI"
            length = 2 * 60 / 90 + 4 * 60 / 90
            assert float(values(item, "LENGTH")[0]) == pytest.approx(length)
    assert float(values(blocks(tracks[2], "ITEM")[0], "LENGTH")[0]) == SECONDS[1]
    points = [line for line in blocks(project, "TEMPOENVEX")[0] if line[0] == "PT"]
    assert [float(point[2]) for point in points] == [124.0, 90.0, 95.0]
    assert [int(point[4]) & 0xFFFF for point in points] == [4, 3, 0]
    assert {point[3] for point in points} == {"1"}  # The tempo stays until the next point.


def test_names_keep_what_reaper_can_write(tmp_path):
    project = rpp.loads(write_reaper(build_daw_session(tmp_path)))
    assert values(blocks(project, "TRACK")[0], "NAME")[0] == HOSTILE_NAME
    markers = [line for line in project if isinstance(line, list) and line[0] == "MARKER"]
    assert [marker[3] for marker in markers] == ['Intro "A" <1>', "Verse"]


@pytest.mark.parametrize("name", ["\"'`", "two\nlines\t>", "", "<TRACK", "|x"])
def test_no_name_breaks_the_project(tmp_path, name):
    session = build_daw_session(tmp_path)
    hostile = replace(
        session, tracks=[replace(session.tracks[0], name=name), *session.tracks[1:]], comment=f"{name}\n>"
    )
    assert len(blocks(rpp.loads(write_reaper(hostile)), "TRACK")) == 3


def test_steady_session_has_no_envelope_and_is_reproducible(tmp_path):
    session = steady(build_daw_session(tmp_path))
    text = write_reaper(session)
    assert "TEMPOENVEX" not in text
    assert write_reaper(session) == text
