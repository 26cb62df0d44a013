"""The subcommands that make music from earlier music: extend, repaint and variations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from gateway.cli.commands.generation.listening_flags import Open, PlayOption
from gateway.cli.commands.generation.output_flags import EditLoudness, FormatOption
from gateway.cli.commands.generation.shaping_flags import Adapters, Negative
from gateway.cli.options import (
    AsJson,
    Count,
    Detach,
    Force,
    Id,
    Output,
    Priority,
    Seed,
    create_console,
    run,
    sampling_option,
)
from gateway.embedded.service_set import ALL

if TYPE_CHECKING:
    from gateway.cli.commands.generation.edits import Derive
    from gateway.cli.commands.generation.generate_options import GenerateOptions

app = typer.Typer()

_OF_SOURCE = "that of the source"
Temperature = Annotated[float | None, sampling_option("temperature", _OF_SOURCE)]
TopK = Annotated[int | None, sampling_option("top_k", _OF_SOURCE)]
TopP = Annotated[float | None, sampling_option("top_p", _OF_SOURCE)]
Guidance = Annotated[float | None, sampling_option("guidance", _OF_SOURCE)]

Source = Annotated[
    str, typer.Argument(metavar="ID|FILE", help="A generation, a clip, or an audio file.", show_default=False)
]
NewPrompt = Annotated[
    str,
    typer.Argument(metavar="PROMPT", help=f"Description of the new part. Default: {_OF_SOURCE}.", show_default=False),
]
SourceModel = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME|FOLDER",
        help=f"Name or folder of the model. Default: {_OF_SOURCE}.",
        show_default=False,
    ),
]


@app.command()
def extend(
    source: Source,
    prompt: NewPrompt = "",
    left: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How much to add before the start.", show_default=False)
    ] = None,
    right: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How much to add after the end.", show_default=False)
    ] = None,
    seed: Seed = None,
    model: SourceModel = "",
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    guidance: Guidance = None,
    negative: Negative = "",
    adapter: Adapters = None,
    format_: FormatOption = None,
    loudness: EditLoudness = "",
    output: Output = None,
    count: Count = 1,
    priority: Priority = 0,
    force: Force = False,
    detach: Detach = False,
    play: PlayOption = False,
    open_: Open = False,
    as_json: AsJson = False,
) -> None:
    """Make music longer: new music leads into it (--left) or continues it (--right). The source is kept as it is.

    The negative text and the adapters, too, are those of the source unless others are given.
    """
    from functools import partial

    from dgx_music.client.shaping.derived_requests import extend_left, extend_right
    from gateway.cli.session.command_errors import BAD_INPUT, CommandError

    if (left is None) == (right is None):
        raise CommandError("give either --left SECONDS or --right SECONDS", BAD_INPUT)
    extend, seconds = (extend_left, left) if right is None else (extend_right, right)
    assert seconds is not None
    derive = partial(extend, seconds=seconds)
    options = _build_options(
        prompt=prompt,
        seed=seed,
        model=model,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        guidance=guidance,
        negative=negative,
        adapters=adapter or (),
        format=format_,
        loudness=loudness,
        output=output,
        count=count,
        priority=priority,
    )
    _edit(source, derive, *options, force=force, detach=detach, play=play, opens=open_, as_json=as_json)


@app.command()
def repaint(
    source: Source,
    start: Annotated[
        float, typer.Option("--from", metavar="SECONDS", min=0, help="Where the new part starts.", show_default=False)
    ],
    end: Annotated[
        float, typer.Option("--to", metavar="SECONDS", min=0, help="Where the new part ends.", show_default=False)
    ],
    prompt: NewPrompt = "",
    seed: Seed = None,
    model: SourceModel = "",
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    guidance: Guidance = None,
    negative: Negative = "",
    adapter: Adapters = None,
    format_: FormatOption = None,
    loudness: EditLoudness = "",
    output: Output = None,
    count: Count = 1,
    priority: Priority = 0,
    force: Force = False,
    detach: Detach = False,
    play: PlayOption = False,
    open_: Open = False,
    as_json: AsJson = False,
) -> None:
    """Replace a part of the music by new music that fits what is before and after it. The rest is kept as it is.

    The negative text and the adapters, too, are those of the source unless others are given.
    """
    from functools import partial

    from dgx_music.client.shaping.derived_requests import repaint

    options = _build_options(
        prompt=prompt,
        seed=seed,
        model=model,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        guidance=guidance,
        negative=negative,
        adapters=adapter or (),
        format=format_,
        loudness=loudness,
        output=output,
        count=count,
        priority=priority,
    )
    derive = partial(repaint, start_seconds=start, end_seconds=end)
    _edit(source, derive, *options, force=force, detach=detach, play=play, opens=open_, as_json=as_json)


@app.command()
def variations(
    generation_id: Id,
    count: Count = 4,
    seed: Seed = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    guidance: Guidance = None,
    format_: FormatOption = None,
    output: Output = None,
    priority: Priority = 0,
    force: Force = False,
    detach: Detach = False,
    play: PlayOption = False,
    open_: Open = False,
    as_json: AsJson = False,
) -> None:
    """Generate a piece again with other seeds. What is not given is as in the piece, the format of the file too."""
    from gateway.cli.commands.generation import edits, generate

    options, _ = _build_options(
        seed=seed,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        guidance=guidance,
        format=format_,
        output=output,
        count=count,
        priority=priority,
    )
    console = create_console(as_json, output)
    _check_detach(output, detach=detach, play=play, opens=open_)
    delivery = generate.prepare_delivery(console, options, overwrite=force, play=play, opens=open_)
    run(
        lambda session: edits.vary_generation(session, console, generation_id, options, delivery, detach=detach),
        console,
        ALL,
    )


def _build_options(model: str = "", **values: Any) -> tuple[GenerateOptions, Path | None]:
    """Returns the options, and the folder of the model if it was given as one."""
    from gateway.cli.commands.generation.generate_options import GenerateOptions, resolve_model

    model_name, model_folder = resolve_model(model)
    return GenerateOptions(model=model_name, **values), model_folder


def _edit(
    source: str,
    derive: Derive,
    options: GenerateOptions,
    model_folder: Path | None,
    *,
    force: bool,
    detach: bool,
    play: bool,
    opens: bool,
    as_json: bool,
) -> NoReturn:
    """Runs `extend` and `repaint`."""
    from gateway.cli.commands.generation import audio_sources, edits, generate

    found = audio_sources.parse_source("ID", source)
    console = create_console(as_json, options.output)
    _check_detach(options.output, detach=detach, play=play, opens=opens)
    delivery = generate.prepare_delivery(console, options, overwrite=force, play=play, opens=opens)
    run(
        lambda session: edits.edit(session, console, found, derive, options, delivery, detach=detach),
        console,
        ALL,
        model_folder=model_folder,
    )


def _check_detach(output: Path | None, *, detach: bool, play: bool, opens: bool) -> None:
    from gateway.cli.commands.generation.option_combinations import check_combinations

    check_combinations({"--detach": detach, "--output": output is not None, "--play": play, "--open": opens})
