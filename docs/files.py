"""Writes docs/files.md from what the code can read and write: `make docs`. A test compares the two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dgx_music.limits import (
    MAX_COVER_BYTES,
    MAX_PUBLICATION_CHARACTERS,
    MAX_QUALITY,
    MAX_SAMPLE_RATE_HZ,
    MAX_SECTIONS,
    MIN_DURATION_SECONDS,
    MIN_SAMPLE_RATE_HZ,
)
from export_service.config import ExportSettings
from export_service.decoding.signatures import SIGNATURES, FileKind
from export_service.decoding.source_file import MAX_AMPLITUDE
from export_service.formats.codecs import CODECS
from export_service.formats.manifest_slot import EMBEDDABLE
from export_service.formats.provenance import MAX_BUFFERED_BYTES
from export_service.tagging.containers import DISCLOSURES
from export_service.tagging.cover import WITHOUT_COVER
from gateway.cli.commands.generation.output_flags import Format
from gateway.cli.session.files.file_extensions import EXTENSION_FORMATS
from service_runtime.audio.output_options import BIT_RATES_KBPS, QUALITY_FORMATS, SAMPLE_RATES_HZ, FileFormat

FILE = Path(__file__).with_suffix(".md")

INTRODUCTION = """\
# Audio files

What can be written and read, and what each file says about itself. Written by `make docs` from the code; do not edit.
"""

NAMES = {
    "WAV": "WAV",
    "FLAC": "FLAC",
    "AIFF": "AIFF",
    "CAF": "Core Audio (CAF)",
    "W64": "Sony Wave64",
    "MP3": "MP3",
    "OGG": "Ogg Vorbis, Opus",
    "M4A": "MPEG-4 (AAC)",
}
"""Container → what the page calls it."""

SIZES = {
    "WAV": "any; written as RF64 from 4 GiB",
    "AIFF": "below 4 GiB",
    "CAF": "any",
    "W64": "any",
}
TEXT_TAGS = {
    "WAV": "LIST/INFO and `id3 ` (ID3v2), `bext` with the loudness, `acid` with the tempo",
    "FLAC": "Vorbis comments",
    "AIFF": "`ID3 ` (ID3v2), ANNO; NAME, AUTH and `(c) ` if they are ASCII",
    "CAF": "`info` chunk",
    "W64": "summary list, as FFmpeg reads it",
    "MP3": "ID3v2 and ID3v1",
    "OGG": "Vorbis comments",
    "M4A": "iTunes metadata (`ilst`)",
}
SECTION_TAGS = {
    "WAV": "`cue ` with labels, `smpl` loops, iXML",
    "FLAC": "CHAPTER comments",
    "AIFF": "MARK, INST loop, ID3 chapters; `basc` of a loop",
    "MP3": "ID3 chapters",
    "OGG": "CHAPTER comments",
    "M4A": "`chpl` chapters",
}
"""Containers that have a place for sections → that place."""

AFTER_FORMATS = f"""\
Names without a number have 24 bits. 16-bit samples get triangular dither; floats may exceed full scale. A rate that a
format does not support becomes the next higher one that it does. `--bitrate` takes the rates in the table, here for
stereo at the highest rate that the format supports up to 48 kHz; those for others are in
`service_runtime/audio/bit_rates.py`. `--quality` is 0 (smallest file) to {MAX_QUALITY}, at a variable bit rate.

Loudness and peaks of MP3, Vorbis, Opus and AAC are those of the decoded file, which is corrected until it is within
0.1 LU of its target and below its ceiling. If that can't be, `Normalization.reason` says by how much and why.

M4A needs the extra `m4a` on the server.
"""

AFTER_TAGS = f"""\
Title, artist and album have at most {MAX_PUBLICATION_CHARACTERS} characters; control characters and direction
overrides are removed. A cover is a PNG or JPEG picture of at most {MAX_COVER_BYTES >> 20} MiB. There are at most
{MAX_SECTIONS} sections. `dgx-music files tag` changes tags and cover of a finished file without touching its samples,
and those of its renders, except for tags that were set for a render alone.

Every file discloses that it is AI-generated, with model, generator and generation id. With a certificate it is also
signed (C2PA). A sidecar is a file of the same name and the extension `.c2pa` beside it, which a copy made by
`dgx-music` brings along.
"""


def render() -> str:
    """The whole page."""
    return "\n".join(
        [
            INTRODUCTION,
            "## Written\n",
            _table(
                (
                    "Format",
                    "`--format`",
                    "Extensions of `--output`",
                    "Sample rates in Hz",
                    "Bit rates in kbit/s",
                    "Size",
                ),
                map(_format_row, NAMES),
            ),
            AFTER_FORMATS,
            "## Tags\n",
            _table(("Format", "Texts", "Cover", "Sections", "AI disclosure", "C2PA"), map(_tag_row, NAMES)),
            AFTER_TAGS,
            "## Read\n",
            _describe_reading(),
        ]
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _formats(container: str) -> list[FileFormat]:
    return [file_format for file_format, codec in CODECS.items() if codec.container == container]


def _format_row(container: str) -> Sequence[str]:
    formats = _formats(container)
    extensions = [
        extension for extension, names in EXTENSION_FORMATS.items() if {form.name for form in formats} & set(names)
    ]
    return (
        NAMES[container],
        _code(Format[file_format.name] for file_format in formats),
        _code(extensions),
        "; ".join(dict.fromkeys(map(_sample_rates, formats))),
        "; ".join(dict.fromkeys(map(_bit_rates, formats))),
        SIZES.get(container, ""),
    )


def _sample_rates(file_format: FileFormat) -> str:
    rates = SAMPLE_RATES_HZ.get(file_format)
    return ", ".join(map(str, rates)) if rates else f"{MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ}"


def _bit_rates(file_format: FileFormat) -> str:
    if file_format not in BIT_RATES_KBPS:
        return "lossless"
    rates = BIT_RATES_KBPS[file_format](48_000, 2)
    listed = f"{rates[0]} to {rates[-1]}" if isinstance(rates, range) else ", ".join(map(str, rates))
    return (
        f"{listed} (or quality {CODECS[file_format].default_quality:g})" if file_format in QUALITY_FORMATS else listed
    )


def _tag_row(container: str) -> Sequence[str]:
    marks = ", ".join(mark.name.replace("_", " ") for mark in DISCLOSURES[container])
    return (
        NAMES[container],
        TEXT_TAGS[container],
        "no" if container in WITHOUT_COVER else "yes",
        SECTION_TAGS.get(container, "no"),
        marks,
        _signature(container),
    )


def _signature(container: str) -> str:
    match container:
        case "WAV":
            return "embedded; RF64: sidecar"
        case "M4A":
            return f"embedded up to {MAX_BUFFERED_BYTES >> 20} MiB, else a sidecar"
    return "embedded" if container in EMBEDDABLE else "sidecar"


def _describe_reading() -> str:
    settings = ExportSettings.model_fields
    max_seconds, max_bytes = settings["max_clip_seconds"].default, settings["max_clip_bytes"].default
    with_extra = _kinds(kind for _, kind in SIGNATURES if kind.demuxer and not kind.container)
    return f"""\
`ImportClip`, `dgx-music files import FILE` and `generate --continue FILE` recognize a file by its content.

- Always: {_kinds(kind for _, kind in SIGNATURES if kind.container)}, and MP1, MP2 and MP3.
- With the extra `m4a` on the server: {with_extra}. Also encodings within WAV, CAF and Ogg that libsndfile lacks.
- ID3v2 tags in front are skipped. Files whose header gives no length, as when written into a pipe, are read to their
  end.
- {MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ} Hz; {MIN_DURATION_SECONDS:g} to {max_seconds:g} s, counted while decoding
  (`DGX_MUSIC_MAX_CLIP_SECONDS`); at most {max_bytes >> 20} MiB (`DGX_MUSIC_MAX_CLIP_BYTES`).
- Surround sound of a known layout is mixed down to stereo by ITU-R BS.775: centre and surrounds at -3 dB, without the
  low-frequency channel, the level unchanged. Other channel counts are refused.
- Samples must be finite and at most {MAX_AMPLITUDE:g} times full scale (+60 dBFS).
- Refused as damaged: a file that is shorter than its header says, a wrong checksum in FLAC or Ogg, and Ogg streams one
  after the other. Damage within an MP3 file can't be detected.
"""


def _kinds(kinds: Iterable[FileKind]) -> str:
    names = (
        kind.name.removeprefix("an ").removeprefix("a ").replace(" files", "").replace(" file", "") for kind in kinds
    )
    return ", ".join(dict.fromkeys(names))


def _code(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    FILE.write_text(render())
