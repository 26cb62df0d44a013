"""The engines of a service and the requests in them, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from dgx_music.generation.v1.generation_pb2 import Engine, EngineRequest, EngineState, GetEngineStatusResponse
from dgx_music.storage.v1.storage_pb2 import GenerationStage
from gateway.cli.display.console import truncate
from service_runtime.printable_text import make_printable

BAR_CHARACTERS = 14
FULL, EMPTY = "\u2588", "\u2591"
"""They differ without colours, too."""
GIB = 2**30
STATE_STYLES = {"serving": "green", "starting": "yellow", "failed": "red"}
ID_CHARACTERS = 8
"""Of a generation's id on a narrow terminal; enough to tell the requests apart."""
WIDE = 110
"""Characters per line from which on ids are shown in full."""
MODEL_CHARACTERS = 21


def status_lines(
    status: GetEngineStatusResponse, width: int, max_lines: int | None = None, *, problem: str = ""
) -> list[Text]:
    """Returns the lines of the view, each at most `width` characters; at most `max_lines`, at the cost of requests.

    `problem` comes first: why this is no longer the state of the server.
    """
    lines = [Text(problem, style=STATE_STYLES["failed"])] if problem else []
    lines.append(_total(status))
    for engine in status.engines:
        lines += [Text(), *_engine(engine)]
    lines += [Text(), *_requests(status, width, None if max_lines is None else max_lines - len(lines) - 1)]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines if max_lines is None else lines[:max_lines]


def state_name(engine: Engine) -> str:
    """Returns "serving", "starting" or "failed"."""
    return EngineState.Name(engine.state).removeprefix("ENGINE_STATE_").lower()


def _total(status: GetEngineStatusResponse) -> Text:
    serving = sum(state_name(engine) == "serving" for engine in status.engines)
    return Text.assemble(
        (f"{serving}/{len(status.engines)} engines serving", "bold"),
        f"   {status.running} running   {status.waiting} waiting"
        f"   {status.steps_per_second:.1f} steps/s   {status.audio_seconds_per_second:.1f} audio-s/s",
    )


def _engine(engine: Engine) -> Iterator[Text]:
    name = "" if engine.device_name in engine.device else f"  {make_printable(engine.device_name)}"
    state = state_name(engine)
    models = ", ".join(make_printable(model) for model in engine.loaded_models)
    yield Text.assemble(
        (engine.device, "bold"),
        f"{name}  ",
        (state, STATE_STYLES.get(state, "")),
        f"   restarts {engine.restarts}" if engine.restarts else "",
        (f"   {models}" if models else "", "dim"),
    )
    if engine.problem:
        yield Text(f"  {make_printable(engine.problem)}", style=STATE_STYLES["failed"])
    yield Text.assemble(
        "  batch   ",
        _bar(engine.running, engine.max_batch_size),
        f" {engine.running}/{engine.max_batch_size}   waiting {engine.waiting}"
        f"   {engine.steps_per_second:.1f} steps/s   {engine.audio_seconds_per_second:.1f} audio-s/s",
    )
    if engine.kv_limit_bytes:
        yield Text.assemble(
            "  KV      ",
            _bar(engine.kv_reserved_bytes, engine.kv_limit_bytes),
            f" {engine.kv_reserved_bytes / GIB:.2f}/{engine.kv_limit_bytes / GIB:.1f} GiB",
        )
    readings = "".join(
        f"   {getattr(engine, field):.0f} {unit}"
        for field, unit in (("temperature_celsius", "°C"), ("power_watts", "W"))
        if engine.HasField(field)
    )
    if engine.HasField("memory_total_bytes"):
        yield Text.assemble(
            "  memory  ",
            _bar(engine.memory_used_bytes, engine.memory_total_bytes),
            f" {engine.memory_used_bytes / GIB:.1f}/{engine.memory_total_bytes / GIB:.1f} GiB{readings}",
        )
        readings = ""
    if engine.HasField("utilization_percent"):
        yield Text.assemble(
            "  busy    ", _bar(engine.utilization_percent, 100.0), f" {engine.utilization_percent:.0f} %{readings}"
        )


def _requests(status: GetEngineStatusResponse, width: int, max_lines: int | None) -> Iterator[Text]:
    if not status.requests:
        yield Text("no requests", style="dim")
        return
    id_characters = 36 if width >= WIDE else ID_CHARACTERS
    yield Text(
        f"{'request':{id_characters}} {'engine':7}{'model':{MODEL_CHARACTERS}} {'stage':10} {'progress':26}age",
        style="bold",
    )
    shown = list(status.requests)
    if max_lines is not None and len(shown) > max(max_lines - 1, 0):
        shown = shown[: max(max_lines - 2, 0)]
    for request in shown:
        yield _request(request, id_characters)
    if len(shown) < len(status.requests):
        yield Text(f"and {len(status.requests) - len(shown)} more", style="dim")


def _request(request: EngineRequest, id_characters: int) -> Text:
    rate = request.sample_rate_hz or 1
    stage = GenerationStage.Name(request.stage).removeprefix("GENERATION_STAGE_").lower().partition("_")[0]
    seconds = f"{request.frames / rate:.1f}/{request.expected_frames / rate:g} s"
    minutes, rest = divmod(int(request.age_seconds), 60)
    model = make_printable(request.model_name)
    return Text.assemble(
        f"{request.generation_id[:id_characters] or '(direct)':{id_characters}} {request.device:7}",
        f"{truncate(model, MODEL_CHARACTERS):{MODEL_CHARACTERS}} ",
        f"{stage:10} ",
        _bar(request.progress, 1.0, 12),
        f" {seconds:12} {minutes}:{rest:02}",
    )


def _bar(value: float, limit: float, characters: int = BAR_CHARACTERS) -> Text:
    filled = round(characters * min(1.0, value / limit)) if limit else 0
    return Text.assemble((FULL * filled, "cyan"), (EMPTY * (characters - filled), "dim"))
