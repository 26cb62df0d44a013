"""Every container with texts of every kind, as readers that are not ours show them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import imageio_ffmpeg
import mutagen
import numpy as np
import pytest
import soundfile

from export_service.tagging.containers import (
    DISCLOSURES,
    SampleLayout,
    encode_tags,
    overwrite_tags,
    read_comment,
    read_tags,
)
from export_service.tagging.cover import parse_cover
from export_service.tagging.sections import Section
from export_service.tagging.tags import FileTags, clean_publication
from service_runtime.audio.output_options import PublicationTags
from tests.support.ffmpeg_decoder import decode
from tests.support.foreign_files import ffmpeg
from tests.support.pictures import png
from tests.support.tag_readers import (
    CONTAINERS,
    EXIFTOOL_READS,
    FORMATS,
    FRAMES,
    LAYOUT,
    MUTAGEN_READS,
    RATE,
    read_with_exiftool,
    read_with_ffmpeg,
    read_with_ffprobe,
    read_with_mutagen,
    write_plain,
    write_tagged,
)

ID = "12345678-9abc-def0-1234-56789abcdef0"
TAGS = FileTags(ID, 3, "dgx-music 0.1", "sketch 1", "Hôuse 夜", 124.5, "F# minor", "CC-BY-4.0", "ein Lied; für A一")
SECTIONS = (Section("Intro", 0, 4001), Section("Vers 夜 🌙", 4001, 8000), Section("Outro & <end>", 8000, FRAMES))
COVER = parse_cover(png(), "cover")
TEXTS = {
    "plain": ("Night drive", "Night drive"),
    "accents": ("Café Zoë", "Café Zoë"),
    "japanese": ("夜の音楽", "夜の音楽"),
    "zeros": ("Neu ☀ A一 abĀb 一A",) * 2,  # Two bytes of zeros within a character each, in UTF-16.
    "emoji": ("🎵 night 🌙", "🎵 night 🌙"),
    "family": ("family \U0001f468‍\U0001f469‍\U0001f467‍\U0001f466",) * 2,
    "arabic": ("موسيقى می‌خواهم",) * 2,
    "combining": ("e\u0301 a\u0308 q\u0323\u0307",) * 2,
    "flags": ("🇩🇪 \U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",) * 2,
    "nul": ("A\0B", "A B"),
    "lines": ("A\r\nB\u2028C\x85D", "A B C D"),
    "bidi": ("\u202eabc\u202c \u2066x\u2069\ufeff", "abc x"),
    "long": ("夜" * 10_000, "夜" * 200),
    "mixed": ("עברית and English ١٢٣",) * 2,
    "markup": ("<b>&amp; \"q\" 'x' \\ = ; # %s {}</b>; y",) * 2,
    "separators": ("a; prompt=x; artist=y", "a; prompt=x; artist=y"),
}
"""Case → what the publisher sends, and what readers show."""
SHOWN = ("title", "artist", "album", "genre", "comment")


def published(case: str) -> FileTags:
    text, _ = TEXTS[case]
    publication = PublicationTags(text, f"{text} (artist)", f"{text} (album)")
    return replace(TAGS, publication=clean_publication(publication))


def expected(tags: FileTags) -> dict[str, str]:
    return {name: getattr(tags, name) for name in SHOWN}


@pytest.fixture
def tagged(request, tmp_path):
    """One file per case."""
    kind = request.param
    extension = FORMATS[kind][2]
    return kind, {case: write_tagged(tmp_path / f"{case}{extension}", kind, published(case)) for case in TEXTS}


@pytest.mark.parametrize("tagged", FORMATS, indirect=True)
def test_every_reader_shows_every_text(tagged):
    kind, paths = tagged
    for case in TEXTS:
        title, shown = published(case).title, TEXTS[case][1]
        assert title == shown
    shown_by_ffmpeg = read_with_ffmpeg(list(paths.values()))
    for (case, path), shown in zip(paths.items(), shown_by_ffmpeg, strict=True):
        tags = published(case)
        comment = shown.pop("comment")
        # Newer versions of ffmpeg show a WAV file's broadcast description instead, and AIFF's annotation is ASCII.
        assert comment == tags.comment or comment.startswith(f"AI-generated music; generation={ID}")
        assert {name: shown[name] for name in SHOWN if name != "comment"}.items() <= expected(tags).items(), case
        assert read_comment(path) == tags.comment
        assert read_tags(path, ID) == tags
    if kind in MUTAGEN_READS:
        for case, path in paths.items():
            shown = read_with_mutagen(path)
            assert {name: shown[name] for name in SHOWN} == expected(published(case)), case
            assert (shown["key"], shown["license"]) == ("F#m", "CC-BY-4.0")
            assert shown["bpm"] in ("124", "124.5")
    if kind in EXIFTOOL_READS and shutil.which("exiftool"):
        for case, shown in zip(paths, read_with_exiftool(list(paths.values())), strict=True):
            texts = {name: {text} for name, text in expected(published(case)).items()}
            if kind in ("WAV", "RF64"):
                del shown["album"], texts["album"]  # INFO has a "product" instead.
            assert {name: shown[name] for name in texts} == texts, case


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
@pytest.mark.parametrize("kind", FORMATS)
def test_ffprobe_shows_all_tags(tmp_path, kind):
    tags = published("family")
    shown = read_with_ffprobe(write_tagged(tmp_path / f"a{FORMATS[kind][2]}", kind, tags))
    assert {name: shown[name] for name in SHOWN if name != "comment"}.items() <= expected(tags).items()
    assert shown["comment"] == tags.comment or kind == "AIFF"
    assert shown["license"] == "CC-BY-4.0"


@pytest.mark.parametrize("kind", FORMATS)
def test_samples_do_not_change_and_bytes_are_reproducible(tmp_path, kind):
    extension = FORMATS[kind][2]
    tags = replace(TAGS, sections=SECTIONS, cover=COVER)
    plain = write_plain(tmp_path / f"plain{extension}", kind)
    tagged, again = (write_tagged(tmp_path / f"{name}{extension}", kind, tags) for name in ("a", "b"))
    assert tagged.read_bytes() == again.read_bytes()
    assert b"~~" not in tagged.read_bytes()
    assert np.array_equal(decode(tagged)[0], decode(plain)[0])
    if kind != "M4A":
        with soundfile.SoundFile(tagged) as file:
            assert file.frames == FRAMES
            assert np.array_equal(file.read(), soundfile.read(plain)[0])


@pytest.mark.parametrize("kind", FORMATS)
def test_sections_and_cover_are_restored(tmp_path, kind):
    tags = replace(TAGS, sections=SECTIONS, cover=COVER)
    restored = read_tags(write_tagged(tmp_path / f"a{FORMATS[kind][2]}", kind, tags), ID)
    # A new Ogg file gets no cover: libsndfile can't reserve the space for it. Others have no place for it.
    assert restored.cover == (None if kind in ("CAF", "W64", "VORBIS", "OPUS") else COVER)
    if kind in ("CAF", "W64"):
        assert restored.sections == ()
    elif kind in ("WAV", "RF64"):
        assert restored.sections == SECTIONS
    else:
        assert [section.name for section in restored.sections] == [section.name for section in SECTIONS]
        starts = [
            (section.start_frame, wanted.start_frame)
            for section, wanted in zip(restored.sections, SECTIONS, strict=True)
        ]
        assert all(abs(start - wanted) <= RATE / 2000 for start, wanted in starts)
    assert replace(restored, sections=(), cover=None) == TAGS


@pytest.mark.parametrize("kind", ["WAV", "RF64", "AIFF", "FLAC", "MP3", "VORBIS", "OPUS", "M4A"])
def test_ffmpeg_lists_the_sections_as_chapters(tmp_path, kind):
    path = write_tagged(tmp_path / f"a{FORMATS[kind][2]}", kind, replace(TAGS, sections=SECTIONS))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-f", "ffmetadata", "-"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = [line.removeprefix("title=") for line in shown.partition("[CHAPTER]")[2].splitlines() if "title=" in line]
    assert names == ["Intro", "Vers 夜 🌙", "Outro & <end>"]


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "FLAC", "MP3", "M4A"])
def test_mutagen_reads_the_cover(tmp_path, kind):
    read = mutagen.File(write_tagged(tmp_path / f"a{FORMATS[kind][2]}", kind, replace(TAGS, cover=COVER)))
    pictures = {"FLAC": lambda: read.pictures[0].data, "M4A": lambda: bytes(read.tags["covr"][0])}
    assert pictures.get(kind, lambda: read.tags["APIC:"].data)() == COVER.data


@pytest.mark.parametrize("kind", FORMATS)
def test_tags_of_any_size(tmp_path, kind):
    """A cover of 3 MiB and a thousand sections with long names are more than libsndfile reserves in a WAV file."""
    sections = tuple(Section(f"{number} " + "夜" * 198, number * 4, number * 4 + 4) for number in range(1000))
    cover = replace(COVER, data=png(1020, 1020))
    assert 3_000_000 < len(cover.data) < 3 * 2**20
    path = write_tagged(tmp_path / f"a{FORMATS[kind][2]}", kind, replace(TAGS, sections=sections, cover=cover))
    restored = read_tags(path, ID)
    assert replace(restored, sections=(), cover=None) == TAGS
    plain = write_plain(tmp_path / f"plain{FORMATS[kind][2]}", kind)
    assert np.array_equal(decode(path)[0], decode(plain)[0])
    if kind in ("WAV", "RF64"):
        assert restored.sections == sections
    elif kind not in ("CAF", "W64"):
        assert 20 < len(restored.sections) <= 999
        assert restored.sections[5].name == sections[5].name[: 86 if kind == "M4A" else 200].rstrip()


@pytest.mark.parametrize("kind", ["WAV", "RF64", "AIFF", "CAF", "W64"])
@pytest.mark.parametrize("frames", [1, 3, 10])
def test_odd_sizes_of_mono_files(tmp_path, kind, frames):
    path = tmp_path / "a"
    container = CONTAINERS.get(kind, kind)
    tags = replace(TAGS, sections=(Section("A", 0, frames),))
    encoded = encode_tags(container, tags, SampleLayout(RATE, 1, 24, frames), None)
    samples = np.arange(1, frames + 1, dtype=np.float64) / 2**15
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_24", format=FORMATS[kind][0]) as file:
        if container == "WAV":
            file.title = "~" * len(encoded)
        file.write(samples)
    overwrite_tags(path, container, tags, encoded, 7)
    assert soundfile.read(path)[0].tolist() == samples.tolist()
    restored = read_tags(path, ID)
    assert replace(restored, sections=()) == TAGS
    assert len(restored.sections) == (0 if kind in ("CAF", "W64") else 1)
    assert len(decode(path)[0]) == frames


def test_mpeg_4_file_for_streaming_keeps_its_samples(tmp_path):
    """Its `moov` box precedes the samples, whose offsets must remain right."""
    plain, path = write_plain(tmp_path / "plain.m4a", "M4A"), tmp_path / "a.m4a"
    path.write_bytes(ffmpeg("-i", str(plain), "-c", "copy", "-movflags", "faststart", output="a.m4a"))
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    for title in ("first", "second"):
        tags = replace(TAGS, publication=PublicationTags(title=title))
        overwrite_tags(path, "M4A", tags, encode_tags("M4A", tags, LAYOUT, None), 7)
        assert read_tags(path, ID) == tags
        assert np.array_equal(decode(path)[0], decode(plain)[0])


@pytest.mark.parametrize("kind", FORMATS)
def test_file_without_tags_has_no_comment(tmp_path, kind):
    path = write_plain(tmp_path / f"a{FORMATS[kind][2]}", kind)
    assert read_comment(path) == ""
    assert read_tags(path, ID) == FileTags(ID, 0, "", "unknown model")


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_tags_raise_nothing(tmp_path, kind):
    path = write_tagged(tmp_path / f"a{FORMATS[kind][2]}", kind, replace(TAGS, sections=SECTIONS, cover=COVER))
    content = path.read_bytes()
    random = np.random.default_rng(1)
    for size in (0, 3, 11, 40, 200, 1000, len(content) // 2):
        path.write_bytes(content[:size])
        assert "AI" in read_comment(path) or not read_comment(path)
        read_tags(path, ID)
    for _ in range(20):
        damaged = np.frombuffer(content, dtype=np.uint8).copy()
        damaged[random.integers(4, min(len(damaged), 3000), 50)] = random.integers(0, 256, 50)
        path.write_bytes(damaged.tobytes())
        read_comment(path)
        read_tags(path, ID)


def test_disclosures_are_where_they_are_said_to_be(tmp_path):
    assert set(DISCLOSURES) == {CONTAINERS.get(kind, kind) for kind in FORMATS}
    for kind, (_, _, extension) in FORMATS.items():
        artist = replace(TAGS, publication=PublicationTags("A", "A human", "B"))
        path = write_tagged(tmp_path / f"{kind}{extension}", kind, artist)
        assert read_comment(path).startswith(f"AI-generated music; generation={ID}; attempt=3;")


@pytest.mark.parametrize("kind", MUTAGEN_READS)
def test_tags_are_read_back_after_another_program_saved_the_file(tmp_path, kind):
    tags = replace(TAGS, sections=SECTIONS)
    path = write_tagged(tmp_path / f"a{FORMATS[kind][2]}", kind, tags)
    before = read_tags(path, ID)
    file = mutagen.File(path)
    if kind == "FLAC":
        file.clear_pictures()
    file.save()
    assert read_tags(path, ID) == before
    assert replace(before, sections=()) == TAGS


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_finds_no_fault(tmp_path):
    tags = replace(published("family"), sections=SECTIONS, cover=COVER)
    paths = [write_tagged(tmp_path / f"{kind}{FORMATS[kind][2]}", kind, tags) for kind in EXIFTOOL_READS]
    done = subprocess.run(["exiftool", "-validate", "-warning", "-error", "-a", "-S", *paths], capture_output=True)
    faults = {line for line in done.stdout.decode().splitlines() if line.startswith(("Warning", "Error"))}
    known = {"Warning: Unsupported character set (65001)"}  # It then leaves UTF-8 as it is.
    assert {fault for fault in faults - known if "Incorrect RIFF chunk size" not in fault} == set()
