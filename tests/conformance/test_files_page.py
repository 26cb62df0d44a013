"""docs/files.md against the files that are written: what it says about tags, covers, sections and signatures."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from export_service.formats.codecs import CODECS
from export_service.formats.writer import AudioFile
from export_service.tagging.containers import read_tags
from export_service.tagging.cover import parse_cover
from export_service.tagging.sections import Section
from export_service.tagging.tags import FileTags
from service_runtime.audio.output_options import FileFormat
from tests.support.pictures import png

PAGE = runpy.run_path(str(Path(__file__).parents[2] / "docs/files.py"))
GENERATION_ID = "8a3c6f0e-58c4-4a86-9c39-4d6f0e1b2a77"


def read_table(section: str) -> Mapping[str, Mapping[str, str]]:
    """The first table of a section of the page: format → column → text."""
    text = PAGE["FILE"].read_text().partition(f"## {section}\n")[2]
    head, _, *rows = (
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.strip().partition("\n\n")[0].splitlines()
    )
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def test_every_format_is_on_the_page() -> None:
    names = [name.strip("`") for row in read_table("Written").values() for name in row["`--format`"].split()]
    assert len(names) == len(set(names)) == len(FileFormat)
    assert {codec.container for codec in CODECS.values()} == set(PAGE["NAMES"])


@pytest.mark.parametrize("file_format", FileFormat)
def test_page_says_which_tags_a_file_keeps(file_format: FileFormat, tmp_path: Path) -> None:
    codec = CODECS[file_format]
    row = read_table("Tags")[PAGE["NAMES"][codec.container]]
    cover = parse_cover(png(80, 60), "cover")
    sections = (Section("intro", 0, 24_000), Section("A", 24_000, 48_000))
    tags = FileTags(GENERATION_ID, 1, "dgx-music 0", "model 1", cover=cover, sections=sections)
    audio = AudioFile(file_format, 48_000, 2, 48_000, tags, seed=1)
    path = tmp_path / f"file{codec.extension}"
    audio.write(path, [np.full((48_000, 2), 0.1, dtype=np.float32)], gain_db=0.0)
    kept = read_tags(path, GENERATION_ID)
    assert kept.comment == tags.comment
    assert row["Cover"] == ("yes" if kept.cover == cover else "no")
    assert (row["Sections"] != "no") == ([section.name for section in kept.sections] == ["intro", "A"])
    assert row["AI disclosure"] == ", ".join(mark.name.replace("_", " ") for mark in audio.disclosures)
