"""Shows one model: what it is, what it can do, under which licence, and where its files are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from dgx_music.generation.v1.generation_pb2 import Capability, ListModelsRequest, Model
from gateway.cli.display.adapter_table import adapter_rows
from gateway.cli.display.console import Console, escape_text
from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.command_settings import load_settings
from gateway.cli.session.runner import Session
from gateway.timeouts import CALL_TIMEOUT_SECONDS
from generation_service.config import GenerationSettings
from generation_service.models.model_folders import find_layout, installed_folders
from generation_service.models.published import PUBLISHED

CONVERTED = "dgx-music"


async def show_model(session: Session, console: Console, name: str) -> int:
    """Prints the details of an installed model."""
    response = await session.music.ListModels(ListModelsRequest(), timeout=CALL_TIMEOUT_SECONDS)
    model = next((model for model in response.models if model.name == name), None)
    if model is None and (row := dict(_adapters(response.models)).get(escape_text(name))):
        if console.as_json:
            console.print_object({"adapter": name, "models": row[0], "problem": row[1]})
        else:
            console.print_fields((("adapter", escape_text(name)), ("models", row[0]), ("problem", row[1])))
        return 0
    if model is None:
        hint = f"run `dgx-music models pull {name}`" if name in PUBLISHED else "list the models with `dgx-music models`"
        raise CommandError(f"model {name[:100]!r} is not installed; {hint}")
    if console.as_json:
        console.print_message(model)
        return 0
    console.print_fields((*_model_fields(model), *_file_fields(name, session.data_dir)))
    return 0


def _adapters(models: Iterable[Model]) -> Iterator[tuple[str, tuple[str, str]]]:
    """The name of each adapter, and the models that take it and why not."""
    return ((adapter, (fitting, problem)) for adapter, fitting, problem in adapter_rows(models))


def _model_fields(model: Model) -> tuple[tuple[str, str], ...]:
    name = ("model", escape_text(model.name) + (" (default)" if model.is_default else ""))
    if model.problem:
        return name, ("problem", escape_text(model.problem))
    return (
        name,
        ("description", escape_text(model.description)),
        ("licence", escape_text(model.license)),
        ("version", escape_text(model.version)),
        ("audio", f"{model.sample_rate_hz / 1000:g} kHz \u00d7 {model.channels}"),
        ("max length", f"{model.max_duration_seconds:g} s"),
        ("can", ", ".join(map(_capability, model.capabilities))),
        ("loaded", _execution(model) if model.is_loaded else "no"),
    )


def _capability(value: Capability) -> str:
    return Capability.Name(value).removeprefix("CAPABILITY_").replace("_", " ").lower()


def _execution(model: Model) -> str:
    if not model.HasField("execution"):
        return "yes"
    execution = model.execution
    return f"on {execution.device} in {execution.precision}, loaded in {execution.load_seconds:.1f} s"


def _file_fields(name: str, data_dir: Path) -> tuple[tuple[str, str], ...]:
    """Where the files are, if they are on this machine and not on the server's alone."""
    folder = dict(reversed(list(installed_folders(load_settings(GenerationSettings, data_dir))))).get(name)
    if folder is None:
        return ()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return ("layout", _layout(folder)), ("size", f"{size / 1e9:.2f} GB"), ("folder", escape_text(str(folder)))


def _layout(folder: Path) -> str:
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return find_layout(folder)
    if isinstance(config, dict) and config.get("format") == CONVERTED:
        source = config.get("source")
        origin = source.get("model") if isinstance(source, dict) else None
        adapters = source.get("adapters") if isinstance(source, dict) else None
        merged = f" with {escape_text(str(adapters)[:100])}" if adapters else ""
        return f"converted by dgx-music from {escape_text(str(origin)[:100])}{merged}"
    return find_layout(folder)
