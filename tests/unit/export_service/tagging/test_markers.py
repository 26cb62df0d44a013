"""Cue points, loops and sync points, as libsndfile and an XML parser read them."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import soundfile

from export_service.tagging.riff import read_tag_chunks
from export_service.tagging.sections import Section
from export_service.tagging.tags import FileTags
from service_runtime.audio.output_options import PublicationTags
from tests.support.tag_readers import FORMATS, FRAMES, RATE, write_tagged

TAGS = FileTags("12345678-9abc-def0-1234-56789abcdef0", 1, "x", "m", "house", 124.5, "F# minor", "CC0")
SECTIONS = (Section("Intro", 0, 1000), Section("Chorus <1> & 夜", 1000, 6000), Section("Outro", 6000, FRAMES))
CUE, INSTRUMENT = 0x10CE, 0x10D0
"""libsndfile commands that return what it parsed."""
CUE_POINT, NAME_BYTES = struct.Struct("=iIiiiI"), 256
LOOP = struct.Struct("=iIII")
MAX_CUES, MAX_LOOPS = 100, 16
FORWARD = 801
LOOP_FIGURES, LOOP_INFO = 0x10E0, struct.Struct("<hhiifi")


def query(path, command, size):
    """Returns the struct that a libsndfile command fills after parsing the file."""
    ffi, library = soundfile._ffi, soundfile._snd
    with soundfile.SoundFile(path) as file:
        buffer = ffi.new("char[]", size)
        assert library.sf_command(file._file, command, buffer, size) == 1
        return bytes(ffi.buffer(buffer))


def test_libsndfile_reads_cue_points(tmp_path):
    path = write_tagged(tmp_path / "a.wav", "WAV", replace(TAGS, sections=SECTIONS))
    found = query(path, CUE, 4 + MAX_CUES * (CUE_POINT.size + NAME_BYTES))
    assert struct.unpack_from("=I", found) == (3,)
    for number, section in enumerate(SECTIONS):
        start = 4 + number * (CUE_POINT.size + NAME_BYTES)
        index, position, chunk, _, _, offset = CUE_POINT.unpack_from(found, start)
        name = found[start + CUE_POINT.size :][:NAME_BYTES].partition(b"\0")[0].decode()
        assert (index, position, offset, name) == (number + 1, section.start_frame, section.start_frame, section.name)
        assert struct.pack("<i", chunk) == b"data"


@pytest.mark.parametrize(("key", "note"), [("F# minor", 54), ("", 60)])
def test_libsndfile_reads_loops_the_longest_first(tmp_path, key, note):
    path = write_tagged(tmp_path / "a.wav", "WAV", replace(TAGS, key=key, sections=SECTIONS))
    found = query(path, INSTRUMENT, 16 + MAX_LOOPS * LOOP.size)
    assert found[4] == note
    assert struct.unpack_from("=i", found, 12) == (3,)
    loops = [LOOP.unpack_from(found, 16 + number * LOOP.size) for number in range(3)]
    assert [(mode, start) for mode, start, *_ in loops] == [(FORWARD, 1000), (FORWARD, 6000), (FORWARD, 0)]
    # The chunk has the last frame of a loop; libsndfile returns the one after it.
    assert [end for _, _, end, _ in loops] == [6000, FRAMES, 1000]


def test_at_most_16_loops(tmp_path):
    sections = tuple(Section(str(number), number * 100, number * 100 + 100) for number in range(30))
    path = write_tagged(tmp_path / "a.wav", "WAV", replace(TAGS, sections=sections))
    [sampler] = read_tag_chunks(path)[b"smpl"]
    manufacturer, product, period, *_, loops, _ = struct.unpack_from("<9I", sampler)
    assert (manufacturer, product, period, loops) == (0, 0, round(1e9 / RATE), MAX_LOOPS)
    assert len(sampler) == 36 + 24 * MAX_LOOPS


@pytest.mark.parametrize("kind", ["WAV", "RF64"])
def test_ixml_is_valid_and_has_sync_points(tmp_path, kind):
    tags = replace(TAGS, sections=SECTIONS, publication=PublicationTags(album="A & <B>"))
    [document] = read_tag_chunks(write_tagged(tmp_path / "a.wav", kind, tags))[b"iXML"]
    assert len(document) % 2 == 0
    root = ElementTree.fromstring(document)
    assert root.tag == "BWFXML"
    assert (root.findtext("PROJECT"), root.findtext("NOTE")) == ("A & <B>", TAGS.comment)
    points = root.find("SYNC_POINT_LIST")
    assert points.findtext("SYNC_POINT_COUNT") == "3"
    shown = [
        (
            point.findtext("SYNC_POINT_COMMENT"),
            int(point.findtext("SYNC_POINT_LOW")),
            int(point.findtext("SYNC_POINT_EVENT_DURATION")),
        )
        for point in points.findall("SYNC_POINT")
    ]
    assert shown == [
        (section.name, section.start_frame, section.end_frame - section.start_frame) for section in SECTIONS
    ]


def test_a_file_without_sections_has_no_markers(tmp_path):
    found = read_tag_chunks(write_tagged(tmp_path / "a.wav", "WAV", TAGS))
    assert {b"bext", b"acid", b"LIST", b"id3 "} <= set(found)
    assert not {b"cue ", b"smpl", b"iXML", b"labl", b"CSET"} & set(found)


def test_libsndfile_reads_aiff_markers_and_loop(tmp_path):
    path = write_tagged(tmp_path / f"a{FORMATS['AIFF'][2]}", "AIFF", replace(TAGS, sections=SECTIONS))
    with soundfile.SoundFile(path) as file:
        parsed = file.extra_info
    markers = re.findall(r"Mark ID  : (\d+)\n +Position : (\d+)\n +Name     : (.*)", parsed)
    assert markers == [
        ("1", "0", "Intro"),
        ("2", "1000", "Chorus <1> & ?"),
        ("3", "6000", "Outro"),
        ("4", "6000", "Chorus <1> & ? end"),
    ]
    assert re.search(r"Base Note : (\d+)", parsed)[1] == "54"
    sustained = re.search(r"mode  : 801 => forward\n +begin : (\d+)\n +end   : (\d+)", parsed)
    assert sustained.groups() == ("2", "4")


@pytest.mark.parametrize("name", ["AIFF", "WAV"])
def test_libsndfile_reads_the_beats_of_a_loop(tmp_path, name):
    """`basc` of AIFF says that it loops. `acid` says how many beats it has, and that it is to be stretched."""
    bpm = 16 * 60 * RATE / FRAMES
    loop = replace(TAGS, bpm=bpm, key="F# minor", sections=(Section("loop", 0, FRAMES),))
    path = write_tagged(tmp_path / f"a{FORMATS[name][2]}", name, loop)
    numerator, denominator, loop_mode, beats, read_bpm, root = LOOP_INFO.unpack_from(query(path, LOOP_FIGURES, 44))
    assert (numerator, denominator, loop_mode, beats, root) == (4, 4, FORWARD, 16, 54)
    assert read_bpm == pytest.approx(bpm, rel=1e-3)
    if name == "WAV":
        assert struct.unpack_from("<I", read_tag_chunks(path)[b"acid"][0]) == (0x02 | 0x04,)


def test_music_that_is_no_loop_has_no_basic_loop(tmp_path):
    path = write_tagged(tmp_path / "a.aiff", "AIFF", replace(TAGS, sections=SECTIONS))
    assert b"basc" not in path.read_bytes()
