"""Converts an installed model to this project's own layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.cli.commands.generation.shaping_options import parse_adapter
from gateway.cli.commands.model_download import require_space
from gateway.cli.display.console import Console, escape_text
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.command_settings import load_settings
from generation_service.config import GenerationSettings
from generation_service.models.base import AdapterUse
from generation_service.models.conversion import StoredPrecision, convert_model


def convert(
    name: str,
    new_name: str,
    precision: StoredPrecision | None,
    adapters: Sequence[str],
    data_dir: Path | None,
    console: Console,
) -> None:
    """Writes the model to the data directory, where it takes precedence over one of its name in the cache. `adapters`
    are NAME[:SCALE]."""
    merged = [
        AdapterUse(adapter.name, adapter.scale if adapter.HasField("scale") else 1.0)
        for adapter in map(parse_adapter, adapters)
    ]
    if merged and not new_name:
        raise CommandError("--adapter: with merged adapters it is another model; give it a name with --name", BAD_INPUT)
    settings = load_settings(GenerationSettings, data_dir)
    new_name = new_name or name
    if Path(new_name).name != new_name or new_name.startswith("."):
        raise CommandError(f"--name: {new_name[:100]!r} must be the name of a folder, without slashes", BAD_INPUT)
    target = settings.data_dir.expanduser().absolute() / "models" / new_name
    if target.exists():
        raise CommandError(f"{target} exists; choose another name with --name, or remove the model first")

    def before_writing(folder: Path, size: int) -> None:
        require_space(folder, size)
        console.print_notice(f"converting {name} to {size / 1e9:.2f} GB")

    info = convert_model(name, target, precision, settings, before_writing, merged)
    size = sum(file.stat().st_size for file in target.iterdir())
    if console.as_json:
        fields = {"model": new_name, "version": info.version, "licence": info.licence, "folder": str(target)}
        console.print_object(fields | {"size_bytes": size})
        return
    console.print_fields(
        (
            ("model", escape_text(new_name)),
            ("version", info.version),
            ("licence", escape_text(info.licence)),
            ("size", f"{size / 1e9:.2f} GB"),
            ("folder", escape_text(str(target))),
            ("use it with", f'dgx-music generate "…" --model {escape_text(new_name)}'),
        )
    )
