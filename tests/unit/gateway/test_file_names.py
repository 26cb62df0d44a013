"""Names of files are legal on Linux, macOS and Windows, whatever the text."""

from __future__ import annotations

import ntpath
import os
import sys
import unicodedata
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.file_names import collision_key, cut, file_name

ID = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
CLUSTERS = (
    "a",
    " ",
    "e\N{COMBINING ACUTE ACCENT}",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # a family
    "\U0001f44d\U0001f3fd",  # a thumb with a skin tone
    "\U0001f1e9\U0001f1ea",  # a flag
    "1\ufe0f\u20e3",  # a keycap
    "\u0928\u093f",  # Devanagari, with a vowel sign
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England
    "\u1100\u1161\u11a8",  # Hangul in parts
)

hostile = st.sampled_from(
    [
        "/",
        "\\",
        "..",
        ".",
        " ",
        "-",
        "~",
        "CON",
        "nul",
        "Com1",
        "LPT\u00b9",
        "conin$",
        ":",
        "\0",
        "\n",
        "\u202e",
        "\ufeff",
    ]
)
texts = st.lists(st.one_of(st.text(max_size=12), hostile, st.sampled_from(CLUSTERS)), max_size=60).map("".join)
suffixes = st.sampled_from([".wav", ".mp3", ".FLAC", ""])


def is_reserved_on_windows(name: str) -> bool:
    return ntpath.isreserved(name) if sys.version_info >= (3, 13) else PureWindowsPath(name).is_reserved()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names")


@settings(max_examples=400)
@given(text=texts, suffix=suffixes, number=st.sampled_from([1, 2, 99999]))
@example(text="CON" + "\u0301" * 300, suffix=".wav", number=1)
@example(text="x" * 300, suffix=".wav", number=2)
@example(text="\U0001f1e9\U0001f1ea" * 50, suffix="", number=1)
def test_every_name_is_legal_on_three_systems(folder: Path, text: str, suffix: str, number: int) -> None:
    name = file_name(text, suffix, ID, number)
    assert name.endswith(suffix if number == 1 else f" ({number}){suffix}")
    # Linux and macOS
    assert 0 < len(name.encode()) <= 255
    assert len((name.removesuffix(suffix) + ".c2pa").encode()) <= 255, "no room for the name of its manifest"
    assert name == unicodedata.normalize("NFC", name)
    assert name[0] not in ".- "
    # Windows
    assert len(name.encode("utf-16-le")) // 2 <= 255
    assert not set('<>:"/\\|?*') & set(name)
    assert name[-1] not in ". "
    assert not is_reserved_on_windows(name)
    # All: what neither shows nor changes the direction of the text
    kept = "\u200c\u200d" + "".join(map(chr, range(0xE0020, 0xE0080)))
    assert not [one for one in name if unicodedata.category(one)[0] == "C" and one not in kept]
    (folder / name).touch(exist_ok=False)
    assert os.listdir(folder) == [name]
    (folder / name).unlink()


@settings(max_examples=200)
@given(text=texts, suffix=suffixes)
def test_numbered_names_never_collide(text: str, suffix: str) -> None:
    assert len({collision_key(file_name(text, suffix, ID, number)) for number in range(1, 12)}) == 11


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-29 lo-fi, 84 BPM in C# minor (take 2) 7", "2026-11-29 lo-fi, 84 BPM in C# minor (take 2) 7.wav"),
        ('AC/DC: "rock" <fast>?', "AC_DC_ _rock_ _fast__.wav"),
        ("..\\..\\etc", "_.._etc.wav"),
        ("-rf ~", "rf ~.wav"),
        (".hidden. ", "hidden.wav"),
        ("two\n\tlines\u2028and\u00a0more", "two lines and more.wav"),
        ("e\u0301te\u0301 \U0001f1e9\U0001f1ea", "\u00e9t\u00e9 \U0001f1e9\U0001f1ea.wav"),
        ("con", "_con.wav"),
        ("CON.take 1", "_CON.take 1.wav"),
        ("Aux .x", "_Aux .x.wav"),
        ("com1", "_com1.wav"),
        ("lpt\u00b2", "_lpt\u00b2.wav"),
        ("CONOUT$", "_CONOUT$.wav"),
        ("console", "console.wav"),
        ("com10", "com10.wav"),
        ("beat.WAV", "beat.wav"),
        ("beat.mp3", "beat.mp3.wav"),
        ("x\u202egpj.exe", "xgpj.exe.wav"),
        ("\ue000\uffff", "__.wav"),
        ("", f"{ID}.wav"),
        (" .-. ", f"{ID}.wav"),
        ("\u0301" * 200, f"{ID}.wav"),
    ],
)
def test_text_becomes_name(text: str, expected: str) -> None:
    assert file_name(text, ".wav", ID) == expected


def test_long_text_is_cut_before_number_and_suffix() -> None:
    assert file_name("x" * 300, ".wav", ID) == "x" * 249 + ".wav"
    assert file_name("x" * 300, ".wav", ID, 12) == "x" * 244 + " (12).wav"
    assert file_name("\u00e4" * 300, ".wav", ID) == "\u00e4" * 124 + ".wav"
    assert file_name("x" * 248 + " y", ".wav", ID) == "x" * 248 + ".wav"


@settings(max_examples=300)
@given(clusters=st.lists(st.sampled_from(CLUSTERS), max_size=20), limit=st.integers(0, 60))
def test_cut_keeps_whole_graphemes(clusters: list[str], limit: int) -> None:
    prefixes = ["".join(clusters[:count]) for count in range(len(clusters) + 1)]
    assert cut("".join(clusters), limit) == max((one for one in prefixes if len(one) <= limit), key=len)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Beat.wav", "bEAT.WAV"),
        ("\u00e9.wav", "e\u0301.wav"),
        ("\u00c9.wav", "e\u0301.wav"),
        ("Stra\u00dfe.wav", "STRASSE.wav"),
    ],
)
def test_names_that_ignoring_case_are_equal_collide(one: str, other: str) -> None:
    assert collision_key(one) == collision_key(other)
    assert collision_key(one) != collision_key("x" + other)
