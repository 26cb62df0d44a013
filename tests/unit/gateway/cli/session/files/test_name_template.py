"""Templates of file names: the fields, their formats, and what is rejected before anything is written."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from dgx_music.storage.v1.storage_pb2 import Generation
from gateway.cli.apps.files_app import DEFAULT_NAME, app
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.files.name_template import FIELDS, NameTemplate

ID = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sets the local time zone."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def generation(metadata: dict[str, Any] | None = None, **fields: Any) -> Generation:
    values = {"id": ID, "prompt": "lo-fi\nbeat", "model_name": "sketch", "seed": 7, "duration_seconds": 16.0, **fields}
    made = Generation(**values)
    made.created_at.FromDatetime(datetime(2026, 11, 29, 23, 5, 9, tzinfo=UTC))
    made.metadata.update(metadata or {})
    return made


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (DEFAULT_NAME, "2026-11-30 lo-fi beat 7"),
        ("{time} {date:%d.%m.%y, %H:%M}", "00-05-09 30.11.26, 00:05"),
        ("{prompt:.5}|{prompt:>12}|{prompt:*^12.2s}", "lo-fi|  lo-fi beat|*****lo*****"),
        ("{seed:05} {seed} {seed:x}", "00007 7 7"),
        ("{duration} {duration:.1f}", "16 16.0"),
        ("{model} {id} {{x}}", f"sketch {ID} {{x}}"),
        ("{bpm}|{bpm:.0f}|{key:>3}|{genre}|{rating:03}", "||   ||"),
        ("", ""),
    ],
)
def test_fields_are_formatted(template: str, expected: str) -> None:
    assert NameTemplate(template, "--name").format(generation()) == expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"bpm": 120.0, "key": "C minor", "measured_bpm": 60.2, "measured_key": "G major"}, "120 C minor"),
        ({"measured_bpm": 127.96, "measured_key": "A minor"}, "127.96 A minor"),
        ({"bpm": "fast", "key": 3.0, "measured_bpm": 90.0}, "90 "),
        ({"bpm": None, "key": None}, " "),
    ],
)
def test_intended_tempo_and_key_come_before_measured(metadata: dict[str, Any], expected: str) -> None:
    assert NameTemplate("{bpm} {key}", "--name").format(generation(metadata)) == expected


def test_precision_cuts_prompt_between_graphemes() -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert NameTemplate("{prompt:.4}", "--name").format(generation(prompt=f"ab{family}")) == "ab"
    assert NameTemplate("{prompt:.7}", "--name").format(generation(prompt=f"ab{family}")) == f"ab{family}"
    assert NameTemplate("{prompt:.3}!", "--name").format(generation(prompt="ab cd")) == "ab!"


def test_rating_is_shown_if_there_is_one() -> None:
    assert NameTemplate("{rating}", "--name").format(generation(rating=4)) == "4"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{titel}", "{titel} is not a field; the fields are date, time, prompt"),
        ("{}", "{} is not a field"),
        ("{0}", "{0} is not a field"),
        ("{prompt.__class__}", "{prompt.__class__} is not a field"),
        ("{prompt[0]}", "{prompt[0]} is not a field"),
        ("{prompt!r}", "{prompt} has a conversion"),
        ("{prompt:{seed}}", "{prompt} has a conversion, a field"),
        ("{prompt:.99999999999}", "a number above 999"),
        ("{seed:0999999999d}", "a number above 999"),
        ("{prompt", "write {{ and }} for braces"),
        ("}", "write {{ and }} for braces"),
        ("{prompt:.0f}", "'.0f' is not a format of text"),
        ("{key:d}", "'d' is not a format of text"),
        ("{bpm:d}", "'d' is not a format of a number"),
        ("{seed:c}", "'c' is not a format of a whole number"),
        ("{rating:s}", "'s' is not a format of a whole number"),
        ("{date}/{prompt}", "must not contain a / or \\"),
        ("a\\{id}", "must not contain a / or \\"),
    ],
)
def test_bad_template_is_rejected(template: str, says: str) -> None:
    with pytest.raises(CommandError, match=re.escape(says)) as raised:
        NameTemplate(template, "--name")
    assert str(raised.value).startswith("--name: ")
    assert raised.value.exit_status == BAD_INPUT


def test_help_lists_all_fields() -> None:
    import typer.main

    command: Any = typer.main.get_command(app)
    [name] = [one for one in command.commands["export"].params if "--name" in one.opts]
    assert f"Fields: {', '.join(FIELDS)}." in name.help
