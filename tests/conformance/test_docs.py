"""The documentation: generated pages are current, and links and paths in it lead somewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])

LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
PATH = re.compile(
    r"`((?:dgx_music|service_runtime|storage_service|export_service|generation_service|gateway|tests|protos|deploy"
    r"|migrations|benchmarks|docs)/[^` ]*\.[a-z]+)`"
)


@pytest.mark.parametrize("name", ["configuration", "files"])
def test_generated_page_is_current(name: str) -> None:
    render = runpy.run_path(str(ROOT / f"docs/{name}.py"))["render"]
    assert (ROOT / f"docs/{name}.md").read_text() == render(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_exist(page: Path) -> None:
    text = page.read_text()
    missing = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    missing += [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    assert missing == []
