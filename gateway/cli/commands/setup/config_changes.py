"""`dgx-music config set` and `config unset`: change the config file, and keep its comments and its layout."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import SecretStr, ValidationError

from dgx_music.config_file import (
    PREFIX,
    SECRET_NAMES,
    ConfigFileError,
    config_path,
    find_variable,
    parse_config,
    suggest,
)
from dgx_music.credentials import SYSTEM_CA
from gateway.cli.display.console import Console
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.file_replacement import replacing
from gateway.settings_catalog import CLASSES
from service_runtime.file_modes import open_private

FROM_STANDARD_INPUT = "-"
"""A value that is read from standard input."""


def set_value(console: Console, key: str, text: str) -> int:
    """Sets the key. Raises CommandError if there is no such setting or the value is not valid; the file is then as it
    was."""
    name = _known_name(key)
    if text == FROM_STANDARD_INPUT:
        text = _ask(name) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if not text:
        raise CommandError(f"VALUE: must not be empty; to remove the key: dgx-music config unset {name}", BAD_INPUT)
    value = _parse(name, text)
    path, document = _read()
    document[name] = value
    _write(path, document)
    if console.as_json:
        console.print_object({"path": str(path), "key": name, "is_set": True})
        return 0
    console.print_notice(f"set {name}{'' if name in SECRET_NAMES else f' to {text}'} in {path}")
    if variable := find_variable(name):
        console.print_notice(f"but {variable} is set in the environment and takes precedence")
    return 0


def unset(console: Console, key: str) -> int:
    """Removes the key, also one that is not a setting, unless it isn't there."""
    path, document = _read()
    name = key if key in document else _known_name(key)
    is_there = name in document
    if is_there:
        del document[name]
        _write(path, document)
    if console.as_json:
        console.print_object({"path": str(path), "key": name, "is_set": False})
    else:
        console.print_notice(f"removed {name} from {path}" if is_there else f"{name} is not set in {path}")
    return 0


def print_path(console: Console) -> int:
    """Prints the path of the config file, whether it exists or not."""
    path = config_path().absolute()
    if console.as_json:
        console.print_object({"path": str(path), "exists": path.is_file()})
    else:
        console.print_line(str(path))
    return 0


def _known_name(key: str) -> str:
    """Returns the name of the setting, which may be given as an environment variable or an option."""
    name = key.upper().replace("-", "_").removeprefix(PREFIX).lower()
    if name not in CLASSES:
        raise CommandError(f"KEY: {key} is not a setting; {suggest(name, CLASSES)}", BAD_INPUT)
    return name


def _parse(name: str, text: str) -> Any:
    """Returns the value as TOML has it. Raises CommandError if the setting can't have it."""
    settings_class = CLASSES[name]
    if name == "tls_ca" and text != SYSTEM_CA:
        text = str(Path(text).expanduser().absolute())
    try:
        validator = settings_class.__pydantic_validator__
        value = getattr(validator.validate_assignment(settings_class.model_construct(), name, text), name)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        shown = "the value" if name in SECRET_NAMES else repr(text)
        raise CommandError(f"VALUE: {shown} is not valid for {name}: {problem}", BAD_INPUT) from error
    match value:
        case bool() | int() | float() | str():
            return value
        case SecretStr():
            return value.get_secret_value()
        case tuple():
            return [str(Path(path).expanduser().absolute()) for path in value]
    return str(Path(text).expanduser().absolute()) if isinstance(value, Path) else text


def _read() -> tuple[Path, tomlkit.TOMLDocument]:
    """Returns the real path, which a link may lead to, and the content. Raises ConfigFileError."""
    path = Path(os.path.realpath(config_path()))
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return path, tomlkit.document()
    except OSError as error:
        raise ConfigFileError(path, f"can't be read: {error.strerror}") from error
    parse_config(path, content)
    return path, tomlkit.parse(content)


def _write(path: Path, document: tomlkit.TOMLDocument) -> None:
    """Replaces the file by one that only its owner may read, or leaves it as it was. Raises CommandError."""
    if path.exists() and not path.is_file():
        raise CommandError(f"{path} is not a regular file; set DGX_MUSIC_CONFIG to one, or unset it", BAD_INPUT)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(path) as part, open(part, "xb", opener=open_private) as file:
            file.write(tomlkit.dumps(document).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CommandError(f"failed to write {path}: {error.strerror or error}") from error


def _ask(name: str) -> str:
    try:
        return getpass.getpass(f"{name}: ")
    except BaseException:
        print(file=sys.stderr)  # Ends the line of the question.
        raise
