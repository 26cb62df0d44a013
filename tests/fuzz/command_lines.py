"""Runs commands with hostile arguments, config files, environment variables and files of prompts:

    python -m pytest -m '' tests/fuzz/test_command_lines.py

Each ends with one line that says what is wrong and an exit status for it: no traceback, no unexpected error, and no
character that a terminal would obey.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz import hostile_values as hostile

STATUSES = frozenset({0, 1, 2, 75})
COMMANDS = (
    ("history",),
    ("history", "--search", "TEXT"),
    ("history", "--limit", "NUMBER"),
    ("history", "--state", "TEXT"),
    ("show", "TEXT"),
    ("watch", "TEXT"),
    ("cancel", "TEXT"),
    ("rate", "TEXT", "NUMBER"),
    ("prompts", "--search", "TEXT"),
    ("generate", "TEXT", "--duration", "NUMBER", "--model", "TEXT"),
    ("generate", "TEXT", "--duration", "0.1", "--seed", "NUMBER"),
    ("generate", "house", "--duration", "0.1", "--output", "TEXT"),
    ("generate", "house", "--duration", "NUMBER", "--loudness", "NUMBER"),
    ("generate", "house", "--duration", "0.1", "--title", "TEXT"),
    ("generate", "house", "--cover", "TEXT"),
    ("generate", "house", "--continue", "TEXT"),
    ("generate", "house", "--section", "TEXT"),
    ("generate", "house", "--also", "TEXT"),
    ("generate", "--file", "PROMPTS", "--output-dir", "FOLDER", "--duration", "0.1"),
    ("generate", "--file", "PROMPTS", "--output-dir", "FOLDER", "--name", "TEXT", "--duration", "0.1"),
    ("render", "TEXT", "--format", "TEXT"),
    ("files", "list", "--limit", "NUMBER"),
    ("files", "cleanup", "--older-than", "TEXT"),
    ("files", "cleanup", "--keep", "TEXT"),
    ("files", "import", "TEXT"),
    ("files", "url", "TEXT", "--expires", "TEXT"),
    ("files", "tag", "TEXT", "--title", "TEXT"),
    ("config", "set", "TEXT", "TEXT"),
    ("config", "set", "log_level", "TEXT"),
    ("config", "get", "TEXT"),
    (
        "config",
        "show",
    ),
    ("doctor",),
    ("models", "list"),
    ("models", "info", "TEXT"),
    ("token", "create", "TEXT"),
    ("token", "revoke", "TEXT"),
    ("db", "restore", "TEXT"),
    ("db", "prune", "--older-than", "TEXT"),
    ("stats", "--days", "NUMBER"),
    ("TEXT",),
    ("history", "TEXT"),
)
NUMBERS = (
    "nan",
    "inf",
    "-1",
    "0",
    "1e999",
    "9" * 400,
    "9" * 5000,
    "0x10",
    "1_000",
    "\u0663",
    "",
    " 1",
    "2147483648",
    "-0.0",
)
VARIABLES = (
    "GATEWAY_ADDRESS",
    "DATABASE_URL",
    "MAX_BATCH_SIZE",
    "LOG_LEVEL",
    "TOKEN_FILE",
    "TLS_CA",
    "DEVICES",
    "LEASE_SECONDS",
    "METRICS_PORT",
    "CLIENT_NAME",
    "CONFIG",
    "MODEL_FOLDERS",
)
VALUES = (
    "~nosuchuser/x",
    "~",
    "unix:",
    "unix:" + "x" * 300,
    "127.0.0.1:99999",
    "127.0.0.1:",
    "[::1",
    "http://x",
    "host:-1",
    "sqlite://",
    "sqlite:////nonexistent/x.db",
    "postgresql://u:p@h:x/d",
    "postgresql://[::1/d",
    "://",
    ":" * 1000,
    "{",
    "[1, 2",
    "'",
)
CONFIGS: tuple[bytes, ...] = (
    b"\xff\xfe",
    b"\x00",
    b"a = " + b"[" * 50_000,
    b"lease_seconds = " + b"9" * 5000,
    b"lease_seconds = nan",
    b"max_batch_size = 1e999",
    b"gateway_address = 1979-05-27T07:32:00Z",
    b"gateway_address = ['x']",
    b'gateway_address = "\\u001b[31m"',
    b"[gateway_address]\nx = 1",
    b"x" * 1_000_000,
    b'"\\u001b[31m" = 1',
    b"log_level = true\n" * 3,
    b'data_dir = "relative"',
    b'data_dir = "~nosuchuser/x"',
    b'token = "' + b"x" * 100_000 + b'"',
    b'client_name = "\\u0000"',
    b"\xef\xbb\xbfx = 1",
)
PROMPTS: tuple[tuple[str, bytes], ...] = (
    (".txt", b"\xff\xfe"),
    (".txt", b"\x00\n\x1b[31m\n"),
    (".txt", b"x" * 20_000),
    (".csv", b"prompt\n" + b"x" * 200_000),
    (".csv", b'prompt\n"unclosed'),
    (".csv", b"prompt,duration\nhouse,1e999\n"),
    (".csv", b"prompt,prompt\na,b\n"),
    (".csv", b"\n\n\n"),
    (".csv", b"," * 100_000),
    (".jsonl", b"[" * 100_000),
    (".jsonl", b'{"prompt": ' + b'{"a":' * 50_000),
    (".jsonl", b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}"),
    (".jsonl", b'{"prompt": "\\ud800"}'),
    (".jsonl", b'{"prompt": "\\u0000"}'),
    (".jsonl", b'{"prompt": NaN}'),
    (".jsonl", b'{"prompt": "x", "duration": Infinity}'),
    (".jsonl", b'{"prompt": "x", "seed": 1e400}'),
    (".jsonl", b'{"prompt": "x", "output": "../../x.wav"}'),
    (".jsonl", b'{"\\u001b[31m": 1}'),
    (".jsonl", b'{"prompt": ["x"]}'),
    ("", b'{"prompt": "x"}\nnot json'),
    (".tsv", b"prompt\tx\ta\n"),
)


@dataclass(frozen=True)
class CommandLine:
    """A command, with what it finds around it."""

    arguments: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)

    def judge(self, status: int, output: str, error: str) -> list[str]:
        """Returns what is wrong with how the command ended."""
        problems = []
        if status not in STATUSES:
            problems.append(f"exit status {status}")
        for sign in ("Traceback", "unexpected_error", "UNEXPECTED_ERROR", "error: unexpected ", "site-packages"):
            if sign in error + output:
                problems.append(f"{sign!r} in the output")
        if status and not (error + output).strip():
            problems.append("failed without a word")
        shown = {character for character in output + error if unicodedata.category(character) in ("Cc", "Cf", "Cs")}
        if not shown <= {"\n", "\t", "\u200d", "\u200c"}:
            problems.append(f"control characters {shown}")
        if len(error) > 20_000:
            problems.append(f"an error of {len(error)} characters")
        return [
            f"{problem}: {self.arguments} {dict(self.variables)} -> {status} {error[:500]!r}" for problem in problems
        ]


def draw(seed: int, number: int, folder: Path) -> CommandLine:
    """Draws a command. Its files are in the folder."""
    rng = Random(f"{seed}:{number}")
    variables = {}
    match rng.randrange(4):
        case 0:
            name = rng.choice(VARIABLES)
            variables[f"DGX_MUSIC_{name}"] = _text(rng) if rng.random() < 0.3 else rng.choice((*VALUES, *NUMBERS))
        case 1:
            config = folder / f"{number}.toml"
            config.write_bytes(rng.choice(CONFIGS))
            variables["DGX_MUSIC_CONFIG"] = str(config)
    words = [_word(rng, word, number, folder) for word in rng.choice(COMMANDS)]
    if rng.random() < 0.2:
        words.append("--json")
    return CommandLine(tuple(words), variables)


def _text(rng: Random) -> str:
    """What the operating system lets through as an argument or a variable."""
    return hostile.string(rng)[:100_000].replace("\0", "")


def _word(rng: Random, word: str, number: int, folder: Path) -> str:
    match word:
        case "TEXT":
            return _text(rng)
        case "NUMBER":
            return rng.choice(NUMBERS)
        case "FOLDER":
            return str(folder / "copies")
        case "PROMPTS":
            extension, content = rng.choice(PROMPTS)
            file = folder / f"{number}{extension}"
            file.write_bytes(content)
            return str(file)
    return word
