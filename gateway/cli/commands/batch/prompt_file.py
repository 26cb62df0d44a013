"""Reads a file of prompts: lines of text, rows of CSV or TSV, or JSON Lines."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.cli.session.command_errors import BAD_INPUT, CommandError

STANDARD_INPUT = "-"
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
EXTENSIONS = ("", ".txt", ".csv", ".tsv", ".jsonl", ".ndjson")
"""Without one, the first line tells."""
PROMPT = "prompt"


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One line of the file: the options that it gives, by their names without dashes; the values are text."""

    line: int
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PromptSource:
    """What was read."""

    name: str
    """For messages: the path as it was given."""
    identity: str
    """Tells this file from others when it is read again: its absolute path, or for a pipe its content."""
    rows: list[PromptRow]


def read_prompt_file(path: str, columns: frozenset[str]) -> PromptSource:
    """Reads the file at `path`, or standard input if that is "-". `columns` are the names that a column may have.

    Raises CommandError, which names the file, the line and the column, for the first thing in it that can't be read.
    """
    name = "standard input" if path == STANDARD_INPUT else path
    _check_extension(path)
    data = _read(path)
    identity = f"pipe:{hashlib.sha256(data).hexdigest()}"
    if path != STANDARD_INPUT and Path(path).is_file():
        identity = str(Path(path).resolve())
    text = _decode(name, data)
    read = _find_format(path, text, columns)
    rows = list(read(name, text, columns))
    if not rows:
        raise CommandError(f"{name}: has no prompts; write one per line", BAD_INPUT)
    return PromptSource(name, identity, rows)


def bad_line(name: str, line: int, problem: str) -> CommandError:
    """Returns the error for a line of the file."""
    return CommandError(f"{name}:{line}: {problem}", BAD_INPUT)


def _extension(path: str) -> str:
    return "" if path == STANDARD_INPUT else Path(path).suffix.lower()


def _check_extension(path: str) -> None:
    extension = _extension(path)
    if extension not in EXTENSIONS:
        hint = (
            "write one JSON object per line and name it .jsonl" if extension == ".json" else "use .txt, .csv or .jsonl"
        )
        raise CommandError(f"--file: {path} has the extension {extension}; {hint}", BAD_INPUT)


def _read(path: str) -> bytes:
    try:
        if path != STANDARD_INPUT:
            return Path(path).expanduser().read_bytes()
        if sys.stdin.isatty():
            raise CommandError("--file -: standard input is a terminal; send it a file: < prompts.txt", BAD_INPUT)
        return sys.stdin.buffer.read()
    except OSError as error:
        raise CommandError(f"--file: failed to read {path}: {error.strerror}", BAD_INPUT) from error


def _decode(name: str, data: bytes) -> str:
    encoding = next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise bad_line(
            name,
            line,
            f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8, or convert it, for example with: "
            "iconv -f latin1 -t utf-8",
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


Reader = Callable[[str, str, frozenset[str]], Iterator[PromptRow]]


def _find_format(path: str, text: str, columns: frozenset[str]) -> Reader:
    """Returns what reads the file: by its extension, or by its first line if it has none.

    A .txt file is a table too if its first line names columns between tabs: such is the "Unicode Text" of Excel.
    """
    match _extension(path):
        case ".csv" | ".tsv":
            return _read_table
        case ".jsonl" | ".ndjson":
            return _read_json_lines
    first = next((line for line in text.split("\n") if line.strip()), "")
    if _extension(path) == ".txt" and "\t" not in first:
        return _read_lines
    if first.lstrip().startswith("{"):
        return _read_json_lines
    header = [_column_name(cell) for cell in _split_header(first)]
    return _read_table if PROMPT in header and columns.issuperset(header) else _read_lines


def _read_lines(name: str, text: str, columns: frozenset[str]) -> Iterator[PromptRow]:
    for number, line in enumerate(text.split("\n"), 1):
        prompt = line.strip()
        if prompt and not prompt.startswith("#"):
            yield PromptRow(number, {PROMPT: prompt})


def _read_json_lines(name: str, text: str, columns: frozenset[str]) -> Iterator[PromptRow]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise bad_line(name, number, f"is not JSON at character {error.colno}: {error.msg}") from error
        except (ValueError, RecursionError) as error:  # Of Python itself, for what JSON allows.
            problem = "a number has thousands of digits" if isinstance(error, ValueError) else "is nested too deeply"
            raise bad_line(name, number, problem) from error
        if not isinstance(values, dict):
            raise bad_line(name, number, 'is not a JSON object; write for example {"prompt": "house at 124 BPM"}')
        given: dict[str, str] = {}
        for key, value in values.items():
            column = _require_column(name, number, key, columns)
            if column in given:
                raise bad_line(name, number, f"{column}: is given twice")
            if value is None:
                continue
            if isinstance(value, dict | list):
                raise bad_line(name, number, f"{column}: must be text, a number, or true or false")
            given[column] = value if isinstance(value, str) else json.dumps(value)
        yield PromptRow(number, given)


def _read_table(name: str, text: str, columns: frozenset[str]) -> Iterator[PromptRow]:
    if "\0" in text:
        raise bad_line(name, text[: text.index("\0")].count("\n") + 1, "contains a NUL character; remove it")
    head = text.lstrip("\n")
    delimiter = _find_delimiter(head.partition("\n")[0])
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True, skipinitialspace=True)
    header: list[str] = []
    last_line = 0
    try:
        for cells in reader:
            line, last_line = last_line + 1, reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [_require_column(name, line, cell, columns) for cell in cells]
                _check_header(name, line, header)
                continue
            if len(cells) > len(header):
                raise bad_line(
                    name,
                    line,
                    f"has {len(cells)} columns instead of {len(header)}; put a text that contains {delimiter!r} in "
                    "double quotes",
                )
            yield PromptRow(line, {column: cell for column, cell in zip(header, cells, strict=False) if cell.strip()})
    except csv.Error as error:
        raise bad_line(name, last_line + 1, f'is not valid CSV ({error}); within quotes, write " as ""') from error


def _check_header(name: str, line: int, header: list[str]) -> None:
    twice = next((column for column in header if header.count(column) > 1), None)
    if twice is not None:
        raise bad_line(name, line, f"the column {twice!r} appears twice")
    if PROMPT not in header:
        raise bad_line(name, line, f"the first row must name the columns, among them {PROMPT!r}")


def _require_column(name: str, line: int, text: str, columns: frozenset[str]) -> str:
    column = _column_name(text)
    if column not in columns:
        what = f"the column {text!r} is not an option" if text.strip() else "a column has no name"
        raise bad_line(name, line, f"{what}; the columns are {', '.join(sorted(columns))}")
    return column


def _column_name(text: str) -> str:
    """Returns the option's name for "Sample Rate", "sample_rate" and "--sample-rate" alike."""
    return re.sub(r"[_ ]+", "-", text.strip().lower()).removeprefix("--")


def _split_header(line: str) -> list[str]:
    return line.replace('"', "").split(_find_delimiter(line))


def _find_delimiter(line: str) -> str:
    return max(",;\t", key=line.count)
