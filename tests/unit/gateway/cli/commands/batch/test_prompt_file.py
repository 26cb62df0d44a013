"""Reading files of prompts as people have them: from editors, spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import pytest

from gateway.cli.commands.batch.prompt_file import PromptSource, read_prompt_file
from gateway.cli.session.command_errors import BAD_INPUT, CommandError

COLUMNS = frozenset({"prompt", "duration", "seed", "sample-rate", "output", "tag-prompt"})


def read(tmp_path: Path, name: str, content: str | bytes) -> PromptSource:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_prompt_file(str(file), COLUMNS)


def rows(source: PromptSource) -> list[tuple[int, dict[str, str]]]:
    return [(row.line, dict(row.values)) for row in source.rows]


def test_text_has_a_prompt_a_line(tmp_path: Path) -> None:
    source = read(tmp_path, "p.txt", "# mine\n\nhouse, loud \n\t lo-fi\u2028beat\n#no\nhouse, loud")
    assert rows(source) == [
        (3, {"prompt": "house, loud"}),
        (4, {"prompt": "lo-fi\u2028beat"}),
        (6, {"prompt": "house, loud"}),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_byte_order_mark_and_line_ends_are_no_part_of_a_prompt(tmp_path: Path, encoding: str, newline: str) -> None:
    text = newline.join(["café jazz", "", "house"])
    assert rows(read(tmp_path, "p.txt", text.encode(encoding))) == [
        (1, {"prompt": "café jazz"}),
        (3, {"prompt": "house"}),
    ]


def test_other_encoding_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"p\.txt:2: byte 0xe9 is not UTF-8; .*iconv -f latin1 -t utf-8") as caught:
        read(tmp_path, "p.txt", "house\ncafé".encode("latin-1"))
    assert caught.value.exit_status == BAD_INPUT


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_table_of_a_spreadsheet(tmp_path: Path, delimiter: str) -> None:
    text = io.StringIO()
    table = [
        ["Prompt", "Sample Rate", "tag_prompt"],
        ['say "hi", now; or\tlater', "48000", "yes"],
        ["", "", ""],
        ["two\nlines", "", ""],
        ["last", "44100", ""],
    ]
    csv.writer(text, delimiter=delimiter).writerows(table)
    assert rows(read(tmp_path, "p.csv", "\ufeff" + text.getvalue())) == [
        (2, {"prompt": 'say "hi", now; or\tlater', "sample-rate": "48000", "tag-prompt": "yes"}),
        (4, {"prompt": "two\nlines"}),
        (6, {"prompt": "last", "sample-rate": "44100"}),
    ]


def test_unicode_text_of_excel_is_a_table_though_it_ends_in_txt(tmp_path: Path) -> None:
    text = "Prompt\tDuration\r\nhouse\t2\r\n"
    assert rows(read(tmp_path, "p.txt", text.encode("utf-16"))) == [(2, {"prompt": "house", "duration": "2"})]
    assert rows(read(tmp_path, "q.txt", "a prompt\twith a tab\n")) == [(1, {"prompt": "a prompt\twith a tab"})]


def test_json_lines(tmp_path: Path) -> None:
    text = '{"prompt": "house", "duration": 2.5, "seed": null}\n\n{"tag_prompt": true, "prompt": "a\\nb"}'
    assert rows(read(tmp_path, "p.jsonl", text)) == [
        (1, {"prompt": "house", "duration": "2.5"}),
        (3, {"prompt": "a\nb", "tag-prompt": "true"}),
    ]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("p.csv", "prompt,tempo\na,1", "1: the column 'tempo' is not an option; the columns are duration, output, pr"),
        ("p.csv", "house\nlofi", "1: the column 'house' is not an option"),
        ("p.csv", "seed\n1", "1: the first row must name the columns, among them 'prompt'"),
        ("p.csv", "prompt,Prompt\na,b", "1: the column 'prompt' appears twice"),
        ("p.csv", "prompt,\na,b", "1: a column has no name"),
        (
            "p.csv",
            "\nprompt,seed\na,1\nb, c,2",
            "4: has 3 columns instead of 2; put a text that contains ',' in double",
        ),
        ("p.csv", 'prompt\na\n"b', '3: is not valid CSV (unexpected end of data); within quotes, write " as ""'),
        ("p.csv", "prompt\na\0", "2: contains a NUL character"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt" "b"}', "2: is not JSON at character 11: Expecting ':' delimiter"),
        ("p.jsonl", '["a"]', "1: is not a JSON object; write for example"),
        ("p.jsonl", '{"prompt": "a", "tempo": 1}', "1: the column 'tempo' is not an option"),
        ("p.jsonl", '{"prompt": ["a"]}', "1: prompt: must be text, a number, or true or false"),
        ("p.jsonl", '{"tag_prompt": 1, "tag-prompt": 2}', "1: tag-prompt: is given twice"),
        ("p.txt", "# nothing\n\n", " has no prompts; write one per line"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, name: str, text: str, problem: str) -> None:
    with pytest.raises(CommandError) as caught:
        read(tmp_path, name, text)
    assert f"{name}:{problem}" in str(caught.value)
    assert caught.value.exit_status == BAD_INPUT


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("house\n", {"prompt": "house"}),
        ("prompt, and more\n", {"prompt": "prompt, and more"}),
        ("prompt\nhouse\n", {"prompt": "house"}),
        ("seed;prompt\n1;house\n", {"prompt": "house", "seed": "1"}),
        ('\n{"prompt": "house"}\n', {"prompt": "house"}),
    ],
)
def test_first_line_tells_the_format_of_a_pipe(
    monkeypatch: pytest.MonkeyPatch, text: str, first: dict[str, str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    source = read_prompt_file("-", COLUMNS)
    assert dict(source.rows[0].values) == first
    assert source.name == "standard input"


def test_pipe_is_known_by_its_content_and_a_file_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identities = []
    for text in ("house", "house", "techno"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        identities.append(read_prompt_file("-", COLUMNS).identity)
    assert identities[0] == identities[1] != identities[2]
    first = read(tmp_path, "p.txt", "house").identity
    assert read(tmp_path, "p.txt", "techno").identity == first != read(tmp_path, "q.txt", "house").identity
    monkeypatch.chdir(tmp_path)
    assert read_prompt_file("p.txt", COLUMNS).identity == first


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("p.doc", "has the extension .doc; use .txt, .csv or .jsonl"),
        ("p.json", "has the extension .json; write one JSON object per line and name it .jsonl"),
        ("missing.txt", "failed to read missing.txt: No such file or directory"),
        (".", "failed to read .: Is a directory"),
    ],
)
def test_what_is_no_file_of_prompts_is_refused(path: str, problem: str) -> None:
    with pytest.raises(CommandError, match=f"--file: .*{problem}"):
        read_prompt_file(path, COLUMNS)
