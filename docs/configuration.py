"""Writes docs/configuration.md from the settings classes: `make docs`. A test compares the two."""

from __future__ import annotations

import ast
import inspect
import textwrap
from pathlib import Path

from pydantic.fields import FieldInfo

from gateway.settings_catalog import SECTIONS, own_fields
from service_runtime.settings import Settings

FILE = Path(__file__).with_suffix(".md")

INTRODUCTION = """\
# Configuration

Every setting is an environment variable, and a key of the config file: the variable's name without `DGX_MUSIC_`, in
lower case. Services and `dgx-music` read the same ones, when they start. What counts is, in this order:

1. the option of a command, such as `--data-dir` or `serve --devices`,
2. the environment variable; an empty one counts as unset,
3. the config file,
4. the default.

The config file is `~/.config/dgx-music/config.toml` on Linux, `~/Library/Application Support/dgx-music/config.toml` on
macOS, or the file that `DGX_MUSIC_CONFIG` names; `DGX_MUSIC_CONFIG=/dev/null` is none. It is [TOML](https://toml.io),
without tables:

```toml
gateway_address = "dgx.local:50050"
tls_ca = "~/.config/dgx-music/ca.pem"
token_file = "~/.config/dgx-music/token"
devices = "0,1"
max_waiting = 64
reflection = false
model_folders = ["/models/mine", "/models/theirs"]
```

Paths are absolute or begin with `~/`. A key that is no setting, or a value that is not valid, is an error that names
the file and the line. `dgx-music config show` lists every setting with its value and where it came from, `config path`
prints the path of the file, and `config set KEY VALUE` and `config unset KEY` change it: they check the value first,
keep the comments, and let only the owner read the file, as it may contain a token. `config set token -` reads the token
from standard input, so that it is not in the shell's history.

Written by `make docs` from the settings classes; do not edit.
"""

DYNAMIC_DEFAULTS = {"data_dir": "the platform's folder for user data, e.g. `~/.local/share/dgx-music`"}
"""Defaults that depend on the machine this is written on."""


def render() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for title, settings in SECTIONS.items():
        rows = [
            f"| `DGX_MUSIC_{name.upper()}` | {describe_default(name, field)} | {documentation(settings, name)} |"
            for name, field in own_fields(settings).items()
        ]
        if rows:
            table = [f"## {title}\n", "| Variable | Default | Meaning |", "| --- | --- | --- |", *rows]
            parts.append("\n".join(table) + "\n")
    return "\n".join(parts)


def describe_default(name: str, field: FieldInfo) -> str:
    """The default as one would type it."""
    if name in DYNAMIC_DEFAULTS:
        return DYNAMIC_DEFAULTS[name]
    if field.default in (None, (), ""):
        return "unset"
    value = str(field.default).lower() if isinstance(field.default, bool) else f"{field.default}"
    return f"`{value.removesuffix('.0')}`"


def documentation(settings: type[Settings], name: str) -> str:
    """The docstring that stands below the field, on one line."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(settings))).body[0]
    assert isinstance(tree, ast.ClassDef)
    for field, below in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id == name:
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                return " ".join(str(below.value.value).split()).replace("|", "\\|")
            raise ValueError(f"{settings.__name__}.{name} has no docstring")
    raise ValueError(f"{settings.__name__} has no field {name}")


if __name__ == "__main__":
    FILE.write_text(render())
