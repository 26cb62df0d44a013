"""The config file: TOML with a key for each setting, at DGX_MUSIC_CONFIG or in the platform's folder for configuration.

A key is the name of the environment variable without its prefix, in lower case: `gateway_address = "dgx:50050"`.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import platformdirs

PREFIX = "DGX_MUSIC_"
"""Of the environment variables."""
CONFIG_VARIABLE = "DGX_MUSIC_CONFIG"
"""Environment variable that names the file; /dev/null is an empty one."""
SECRET_NAMES = frozenset({"token", "service_token", "database_url"})
"""Settings that are a secret or may contain one."""

_POSITION = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")
_WITH_PASSWORD = re.compile(r"://[^/@]*:[^/@]+@|[?&](?:ssl)?password=")


class ConfigFileError(ValueError):
    """The config file can't be used; the message names the file, the key and the way out."""

    def __init__(self, path: Path, problem: str, *, line: int | None = None, key: str | None = None) -> None:
        where = f", line {line}" if line else ""
        super().__init__(f"{path}{where}: {f'{key} ' if key else ''}{problem}")
        self.key = key


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The content of the config file."""

    path: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    """Key → its line, from 1."""

    def error(self, key: str, problem: str) -> ConfigFileError:
        """Returns the error for this key."""
        return ConfigFileError(self.path, problem, line=self.lines.get(key), key=key)

    def require_known(self, known: Collection[str]) -> None:
        """Raises ConfigFileError if a key is not the name of a setting."""
        for key, value in self.values.items():
            if key not in known:
                way_out = "settings must come before any [table]" if isinstance(value, dict) else suggest(key, known)
                raise self.error(key, f"is not a setting; {way_out}")

    def expand_path(self, key: str, path: str) -> str:
        """Returns a path with "~" expanded. Raises ConfigFileError if it is relative: commands run in many folders."""
        expanded = os.path.expanduser(path)
        if not os.path.isabs(expanded):
            raise self.error(key, f"must be an absolute path or begin with ~/, not {path!r}")
        return expanded

    def exposed_secret(self) -> str | None:
        """Returns a key whose value is secret although other users may read the file, or None."""
        secrets = (
            key
            for key, value in self.values.items()
            if key in SECRET_NAMES and (key != "database_url" or _WITH_PASSWORD.search(str(value)))
        )
        if (secret := next(secrets, None)) is None:
            return None
        return secret if stat.S_IMODE(self.path.stat().st_mode) & (stat.S_IRGRP | stat.S_IROTH) else None


def suggest(name: str, known: Collection[str]) -> str:
    """Returns what to do about a name that is not among the known ones."""
    close = get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else "list them with `dgx-music config show`"


def config_path() -> Path:
    """Returns the path of the config file, which need not exist."""
    chosen = os.environ.get(CONFIG_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_config_path("dgx-music", False) / "config.toml"


def read_config_file() -> ConfigFile:
    """Reads the file; one that does not exist at the default place is empty. Raises ConfigFileError."""
    path = config_path()
    if not os.path.exists(path):  # Also where the folder may not be read, as that of another user.
        if not os.environ.get(CONFIG_VARIABLE):
            return ConfigFile(path)
        way_out = f"create it with `dgx-music config set`, or unset {CONFIG_VARIABLE}"
        raise ConfigFileError(path, f"this file does not exist; {way_out}")
    try:
        return parse_config(path, path.read_bytes())
    except OSError as error:
        raise ConfigFileError(path, f"can't be read: {error.strerror}") from error


def parse_config(path: Path, content: bytes) -> ConfigFile:
    """Parses the content of the file at `path`. Raises ConfigFileError."""
    try:
        text = content.decode()
        values = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ConfigFileError(path, "is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        position = _POSITION.search(str(error))
        line = position["line"] if position else None
        problem = _POSITION.sub("", str(error))
        hint = '; text needs quotes, as in key = "text"' if problem == "Invalid value" else ""
        raise ConfigFileError(path, f"is not valid TOML: {problem}{hint}", line=int(line) if line else None) from error
    except (ValueError, RecursionError) as error:  # Of Python itself, for what TOML allows.
        problem = "a number has thousands of digits" if isinstance(error, ValueError) else "it is nested too deeply"
        raise ConfigFileError(path, f"can't be used: {problem}") from error
    return ConfigFile(path, values, {key: line for key in values if (line := _line_of(key, text))})


def _line_of(key: str, text: str) -> int | None:
    match = re.search(rf"""^[ \t]*(?:\[[ \t]*)?["']?{re.escape(key)}["']?[ \t]*[=\].]""", text, re.MULTILINE)
    return text.count("\n", 0, match.start()) + 1 if match else None


def find_variable(name: str) -> str | None:
    """Returns the environment variable that sets the setting; None if it is not set, or empty."""
    wanted = (PREFIX + name).lower()
    return next((variable for variable, value in os.environ.items() if value and variable.lower() == wanted), None)
