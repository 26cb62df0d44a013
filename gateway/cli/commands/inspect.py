"""The commands that list, show, rate, download, cancel and delete generations, and list prompts and models."""

from __future__ import annotations

from pathlib import Path

from dgx_music.generation.v1.generation_pb2 import ListModelsRequest, Model
from dgx_music.limits import MAX_RATING
from dgx_music.storage.v1.storage_pb2 import (
    GENERATION_STATE_COMPLETED,
    PROMPT_ORDER_MOST_RECENT,
    PROMPT_ORDER_MOST_USED,
    CancelGenerationRequest,
    DeleteGenerationRequest,
    GetGenerationRequest,
    GetLineageRequest,
    ListPromptsRequest,
    RateGenerationRequest,
)
from gateway.cli.display import adapter_table
from gateway.cli.display.braille_waveform import print_waveform
from gateway.cli.display.console import (
    Console,
    escape_text,
    format_local_time,
    format_rating,
    format_state,
)
from gateway.cli.display.lineage_tree import draw_lineage
from gateway.cli.display.summary import licence_fields, metadata_fields, status_fields, summary_fields
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.files.output_files import download
from gateway.cli.session.pagination import fetch_first
from gateway.cli.session.runner import Session
from gateway.timeouts import CALL_TIMEOUT_SECONDS
from generation_service.models.published import PUBLISHED


async def show(session: Session, console: Console, generation_id: str, *, png: Path | None) -> int:
    """Prints the details and the waveform of a generation, and writes a picture of it to `png` if given."""
    response = await session.music.GetGeneration(GetGenerationRequest(id=generation_id), timeout=CALL_TIMEOUT_SECONDS)
    generation = response.generation
    is_completed = generation.state == GENERATION_STATE_COMPLETED
    picture_path = ""
    if png is not None:
        if not is_completed:
            raise CommandError(f"--png: generation {generation.id} is {format_state(generation)} and has no audio yet")
        from gateway.cli.display import picture  # Only this needs NumPy.

        picture_path = str(await picture.write_picture(session, generation, png))
    if console.as_json:
        console.print_message(generation)
        return 0
    file = session.locate(generation.file_path) if generation.file_path else ""
    fields = (
        *status_fields(generation),
        *summary_fields(generation, file),
        *licence_fields(generation),
        *metadata_fields(generation),
        ("picture", escape_text(picture_path)),
    )
    console.print_fields(fields)
    if is_completed:
        await print_waveform(session, console, generation.id)
    return 0


async def show_lineage(session: Session, console: Console, generation_id: str) -> int:
    """Prints what a generation was made from and what was made from it, as a tree."""
    response = await session.music.GetLineage(GetLineageRequest(id=generation_id), timeout=CALL_TIMEOUT_SECONDS)
    if console.as_json:
        console.print_message(response)
        return 0
    for line in draw_lineage(response.nodes, generation_id.lower()):
        console.print_line(line)
    if response.is_truncated:
        console.print_notice(f"there are more than these {len(response.nodes)}")
    return 0


def parse_rating(text: str) -> int:
    """Returns the rating, 0 for none. Raises CommandError if the text is not a rating."""
    ratings = {"none": 0} | {str(rating): rating for rating in range(MAX_RATING + 1)}
    if text not in ratings:
        raise CommandError(f"RATING: must be 1 to {MAX_RATING}, or none to remove it, not {text!r}", BAD_INPUT)
    return ratings[text]


async def rate(session: Session, console: Console, generation_id: str, rating: int) -> int:
    """Sets the rating of a generation, or removes it (0)."""
    response = await session.music.RateGeneration(
        RateGenerationRequest(id=generation_id, rating=rating), timeout=CALL_TIMEOUT_SECONDS
    )
    generation = response.generation
    if console.as_json:
        console.print_message(generation)
    elif generation.rating:
        console.print_notice(f"rated generation {generation.id} {format_rating(generation)}")
    else:
        console.print_notice(f"removed the rating of generation {generation.id}")
    return 0


async def cancel(session: Session, console: Console, generation_id: str) -> int:
    """Cancels a queued or running generation."""
    response = await session.music.CancelGeneration(
        CancelGenerationRequest(id=generation_id), timeout=CALL_TIMEOUT_SECONDS
    )
    if console.as_json:
        console.print_message(response.generation)
    else:
        console.print_notice(f"cancelled generation {response.generation.id}")
    return 0


async def delete(session: Session, console: Console, generation_id: str) -> int:
    """Deletes a generation and its audio file."""
    response = await session.music.DeleteGeneration(
        DeleteGenerationRequest(id=generation_id), timeout=CALL_TIMEOUT_SECONDS
    )
    if console.as_json:
        console.print_message(response)
    else:
        console.print_notice(f"deleted generation {generation_id} and its file")
    return 0


async def save(session: Session, console: Console, generation_id: str, output: Path | None, *, overwrite: bool) -> int:
    """Downloads the audio file of a finished generation and prints its path."""
    path = await download(session, generation_id, output, overwrite=overwrite)
    if path is not None and console.as_json:
        console.print_object({"generation_id": generation_id, "path": str(path)})
    elif path is not None:
        console.print_line(str(path))
    return 0


async def prompts(session: Session, console: Console, *, limit: int, recent: bool, search: str) -> int:
    """Prints the first `limit` prompts, sorted by number of uses or by last use."""
    request = ListPromptsRequest(
        order=PROMPT_ORDER_MOST_RECENT if recent else PROMPT_ORDER_MOST_USED, text_contains=search
    )
    found = await fetch_first(session.music.ListPrompts, request, lambda page: page.prompts, limit)
    if console.as_json:
        for prompt in found:
            console.print_message(prompt)
        return 0
    console.print_table(
        (("uses", False), ("last used", False), ("prompt", True)),
        (
            (str(prompt.used_count), format_local_time(prompt.last_used_at), escape_text(prompt.text))
            for prompt in found
        ),
        none="there are no such prompts",
    )
    return 0


async def models(session: Session, console: Console) -> int:
    """Prints the installed models and adapters, and on standard error the models available for download."""
    response = await session.music.ListModels(ListModelsRequest(), timeout=CALL_TIMEOUT_SECONDS)
    if console.as_json:
        for model in response.models:
            console.print_message(model)
        return 0
    console.print_table(
        (
            ("model", False),
            ("audio", False),
            ("max length", False),
            ("licence", False),
            ("loaded", False),
            ("version", False),
            ("", True),
        ),
        map(_model_row, response.models),
    )
    if rows := adapter_table.adapter_rows(response.models):
        console.print_table(adapter_table.COLUMNS, rows)
    installed = {model.name for model in response.models}
    by_licence: dict[str, list[str]] = {}
    for name, published in PUBLISHED.items():
        if name not in installed:
            by_licence.setdefault(published.licence, []).append(name)
    for licence, names in by_licence.items():
        console.print_notice(f"available with `dgx-music models pull NAME` (licence {licence}): {', '.join(names)}")
    return 0


def _model_row(model: Model) -> tuple[str, ...]:
    name = escape_text(model.name) + (" (default)" if model.is_default else "")
    if model.problem:
        return name, "", "", "", "", "", escape_text(model.problem)
    return (
        name,
        f"{model.sample_rate_hz / 1000:g} kHz \u00d7 {model.channels}",
        f"{model.max_duration_seconds:g} s",
        escape_text(model.license),
        "yes" if model.is_loaded else "no",
        escape_text(model.version),
        escape_text(model.description),
    )
