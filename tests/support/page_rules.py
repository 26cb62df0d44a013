"""Reads the Studio's page as text, and finds what breaks the rules for it."""

from __future__ import annotations

import re
from pathlib import Path

FORBIDDEN_SCRIPT = {
    r"\b(inner|outer)HTML\b": "text reaches the document by textContent",
    r"\binsertAdjacentHTML\b|\bdocument\.write\b|\bDOMParser\b|\bcreateContextualFragment\b": "no text becomes markup",
    r"\beval\(|\bnew Function\b|\bset(Timeout|Interval)\(\s*[\"'`]": "no text becomes code",
    r"\bsetAttribute\(\s*[\"'`](style|on\w+)": "the policy forbids inline styles and handlers",
    r"^\s*(import|export)\b.*\bfrom\s+[\"'](?!\.{1,2}/|/static/)": "modules are imported by paths",
    r"[\"'`]https?://(?!(www\.w3\.org|localhost|127\.0\.0\.1)\b)": "nothing is loaded from elsewhere",
    r"\b(alert|confirm|prompt)\(": "dialogs are the page's own",
    r"\blocalStorage\b.*\b[tT]oken\b": "a token is kept in a cookie that scripts can't read",
}
FORBIDDEN_MARKUP = {
    r"<script(?![^>]*\bsrc=)[^>]*>": "no inline scripts",
    r"<style\b|\sstyle=": "no inline styles",
    r"\son\w+\s*=": "no inline handlers",
    r"(src|href|action)\s*=\s*[\"']?(https?:)?//": "nothing is loaded from elsewhere",
    r"javascript:": "no scripts in links",
}
FORBIDDEN_STYLE = {
    r"url\(\s*[\"']?(https?:)?//|@import": "nothing is loaded from elsewhere",
    # The reset of base.css, which `:focus-visible` follows, may do so.
    r"^(?!:focus \{).*outline\s*:\s*(none|0)\s*[;}]": "focus stays visible",
}
RULES = {".js": FORBIDDEN_SCRIPT, ".html": FORBIDDEN_MARKUP, ".css": FORBIDDEN_STYLE, ".svg": FORBIDDEN_MARKUP}


def violations(page: Path) -> list[str]:
    """Returns FILE:LINE: REASON for each line that breaks a rule."""
    found = []
    for file in sorted(page.rglob("*")):
        for number, line in enumerate(_lines(file), 1):
            for pattern, reason in RULES[file.suffix].items():
                if re.search(pattern, line):
                    found.append(f"{file.relative_to(page)}:{number}: {reason}")
    return found


def long_files(page: Path, limit: int) -> dict[str, int]:
    """Returns file → number of lines of the scripts and style sheets that have more than `limit`."""
    lengths = {str(file.relative_to(page)): len(_lines(file)) for file in sorted(page.rglob("*"))}
    return {name: length for name, length in lengths.items() if length > limit}


def crowded_folders(page: Path, limit: int) -> dict[str, int]:
    """Returns folder → number of files of the folders that have more than `limit`."""
    folders = [folder for folder in (page, *page.rglob("*")) if folder.is_dir()]
    counts = {str(folder.relative_to(page)): sum(file.is_file() for file in folder.iterdir()) for folder in folders}
    return {name: count for name, count in counts.items() if count > limit}


def unused_files(page: Path) -> list[str]:
    """Returns the scripts and style sheets that nothing refers to by their name."""
    texts = {file: file.read_text() for file in page.rglob("*") if file.suffix in RULES}
    return sorted(
        str(file.relative_to(page))
        for file in texts
        if file.suffix in (".js", ".css")
        and not any(re.search(rf"/{re.escape(file.name)}\b", text) for other, text in texts.items() if other != file)
    )


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.suffix in RULES else []
