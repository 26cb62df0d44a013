"""The Studio's page keeps the rules for its code: small modules, nothing inline, no text that becomes markup or code,
nothing from elsewhere. Each rule is seen to fail on a page that breaks it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dgx_music.client.generation_options import FORMATS
from tests.support import page_rules

PAGE = Path(__file__).parents[2] / "gateway/studio/page"
MAX_FILES, MAX_LINES = 15, 300


def test_page_keeps_the_rules() -> None:
    assert (PAGE / "index.html").is_file()
    assert page_rules.violations(PAGE) == []


def test_files_are_short_and_folders_small() -> None:
    assert page_rules.long_files(PAGE, MAX_LINES) == {}
    assert page_rules.crowded_folders(PAGE, MAX_FILES) == {}


def test_offered_formats_are_those_of_the_server() -> None:
    text = (PAGE / "js/details/downloads.js").read_text()
    offered = re.findall(r'^  \["([\w-]+)", "', text, re.MULTILINE)
    assert len(offered) > 5
    assert set(offered) <= set(FORMATS)


def test_no_file_is_unused() -> None:
    assert page_rules.unused_files(PAGE) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.js", "list.innerHTML = prompt;"),
        ("a.js", "list.insertAdjacentHTML('beforeend', prompt);"),
        ("a.js", "setTimeout('run()', 1);"),
        ("a.js", "eval(text);"),
        ("a.js", "element.setAttribute('style', 'color: red');"),
        ("a.js", 'import { x } from "lit";'),
        ("a.js", 'import { x } from "https://cdn.example/x.js";'),
        ("a.js", 'fetch("http://metrics.example/");'),
        ("a.js", "if (confirm('Delete?')) remove();"),
        ("a.js", "localStorage.setItem('token', value);"),
        ("index.html", "<script>run()</script>"),
        ("index.html", '<p style="color: red">'),
        ("index.html", '<button onclick="run()">'),
        ("index.html", '<script src="//cdn.example/x.js"></script>'),
        ("index.html", '<a href="javascript:run()">'),
        ("a.css", "a { background: url(https://cdn.example/x.png); }"),
        ("a.css", "button:focus { outline: none; }"),
    ],
)
def test_each_rule_can_fail(tmp_path: Path, name: str, line: str) -> None:
    (tmp_path / name).write_text(f"\n{line}\n")
    assert {found.split(": ")[0] for found in page_rules.violations(tmp_path)} == {f"{name}:2"}


def test_sizes_and_use_can_fail(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text('<script type="module" src="/static/main.js"></script>\n')
    (tmp_path / "main.js").write_text("1;\n" * 3)
    (tmp_path / "other.js").write_text("")
    assert page_rules.violations(tmp_path) == []
    assert page_rules.long_files(tmp_path, 2) == {"main.js": 3}
    assert page_rules.crowded_folders(tmp_path, 2) == {".": 3}
    assert page_rules.unused_files(tmp_path) == ["other.js"]
