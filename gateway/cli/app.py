"""The subcommands of `dgx-music`. Each imports what it needs when it runs, so that --help responds at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dgx_music.limits import MAX_SEED
from gateway.cli import db_app, files_app, models_app
from gateway.cli.commands.output_flags import Ceiling, Channels, FormatOption, Loudness, SampleRate, TagPrompt
from gateway.cli.options import (
    AsJson,
    Continue,
    ContinueSeconds,
    Count,
    Detach,
    Duration,
    Force,
    GlobalOptions,
    Guidance,
    Id,
    Limit,
    ModelFilter,
    ModelOption,
    Output,
    Png,
    Priority,
    PromptText,
    Search,
    Seed,
    ServiceArg,
    States,
    Temperature,
    TopK,
    TopP,
    Yes,
    create_console,
    run,
)
from gateway.embedded.service_set import ALL, LIBRARY

app = typer.Typer(
    name="dgx-music",
    help="Generate music from text on your own machine.",
    epilog="No server is needed: unless DGX_MUSIC_GATEWAY_ADDRESS is set, the services run within the command.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models_app.app, name="models")
app.add_typer(files_app.app, name="files")
app.add_typer(db_app.app, name="db")


def _print_version(is_requested: bool) -> None:
    if is_requested:
        from importlib.metadata import version

        print(f"dgx-music {version('dgx-music')}")
        raise typer.Exit


@app.callback()
def _set_global_options(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            metavar="FOLDER",
            help="Folder of the database and the audio files. Default: DGX_MUSIC_DATA_DIR, else the user data folder.",
            show_default=False,
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Log more, and print a traceback on errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    GlobalOptions.data_dir, GlobalOptions.debug = data_dir, debug


@app.command()
def generate(
    prompt: PromptText,
    duration: Duration = 16.0,
    seed: Seed = None,
    model: ModelOption = "",
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    guidance: Guidance = None,
    continue_: Continue = "",
    continue_seconds: ContinueSeconds = None,
    format_: FormatOption = None,
    sample_rate: SampleRate = 0,
    channels: Channels = 0,
    loudness: Loudness = "",
    ceiling: Ceiling = None,
    tag_prompt: TagPrompt = False,
    output: Output = None,
    count: Count = 1,
    priority: Priority = 0,
    force: Force = False,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Generate music from a text prompt. Ctrl-C cancels the generation."""
    from gateway.cli.commands import continuation_source, generate, render
    from gateway.cli.session import output_files

    if detach and output is not None:
        raise typer.BadParameter("--detach exits before the file is finished, so it cannot be combined with --output")
    if seed is not None and seed + count - 1 > MAX_SEED:
        raise typer.BadParameter(f"--seed: must be at most {MAX_SEED - count + 1} with --count {count}")
    output_paths = generate.numbered_output_paths(output, count)
    output_files.require_writable(output_paths, overwrite=force)
    console = create_console(as_json)
    name, folder = generate.resolve_model(model)
    options = generate.GenerateOptions(
        prompt=prompt,
        duration_seconds=duration,
        seed=seed,
        model_name=name,
        model_folder=folder,
        sampling=generate.build_sampling_params(
            temperature=temperature, top_k=top_k, top_p=top_p, guidance_scale=guidance
        ),
        source=continuation_source.parse_continuation_source(continue_, continue_seconds),
        output=render.build_output_options(
            format_, sample_rate, channels, loudness, ceiling, output, tag_prompt=tag_prompt
        ),
        count=count,
        priority=priority,
        output_paths=output_paths,
        detach=detach,
    )
    run(lambda session: generate.generate(session, console, options), console, ALL, model_folder=folder)


@app.command(name="list")
def list_(
    limit: Limit = 20,
    state: States = None,
    model: ModelFilter = "",
    search: Search = "",
    as_json: AsJson = False,
) -> None:
    """List generations, newest first."""
    from gateway.cli.commands import inspect

    console = create_console(as_json)
    states = [f"GENERATION_STATE_{name.upper()}" for name in state or ()]
    run(
        lambda session: inspect.list_generations(
            session, console, limit=limit, states=states, model_name=model, search=search
        ),
        console,
    )


@app.command()
def show(
    generation_id: Id,
    png: Png = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file given by --png if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the details and the waveform of a generation."""
    from gateway.cli.commands import inspect

    if png is not None:
        from gateway.cli.display import picture

        picture.require_drawable(png, overwrite=force)
    console = create_console(as_json)
    run(lambda session: inspect.show(session, console, generation_id, png=png), console, LIBRARY)


@app.command()
def watch(generation_id: Id, as_json: AsJson = False) -> None:
    """Follow a generation until it finishes. Ctrl-C stops following; the generation continues."""
    from gateway.cli.commands import generate

    console = create_console(as_json)
    run(lambda session: generate.watch(session, console, generation_id), console, ALL)


@app.command()
def cancel(generation_id: Id, as_json: AsJson = False) -> None:
    """Cancel a queued or running generation."""
    from gateway.cli.commands import inspect

    console = create_console(as_json)
    run(lambda session: inspect.cancel(session, console, generation_id), console)


@app.command()
def retry(generation_id: Id, detach: Detach = False, as_json: AsJson = False) -> None:
    """Retry a failed generation. Ctrl-C cancels it."""
    from gateway.cli.commands import generate

    console = create_console(as_json)
    run(lambda session: generate.retry(session, console, generation_id, detach=detach), console, ALL)


@app.command()
def delete(generation_id: Id, yes: Yes = False, as_json: AsJson = False) -> None:
    """Delete a generation and its audio file."""
    from gateway.cli.commands import inspect

    if not yes:
        typer.confirm(f"Delete generation {generation_id} and its audio file?", abort=True, err=True)
    console = create_console(as_json)
    run(lambda session: inspect.delete(session, console, generation_id), console, LIBRARY)


@app.command()
def download(generation_id: Id, output: Output = None, force: Force = False) -> None:
    """Save the audio file of a finished generation, in the current folder unless --output is given."""
    from gateway.cli.commands import inspect
    from gateway.cli.session import output_files

    if output is not None:
        output_files.require_writable([output], overwrite=force)
    console = create_console()
    run(lambda session: inspect.save(session, console, generation_id, output, overwrite=force), console, LIBRARY)


@app.command()
def render(
    generation_id: Id,
    format_: FormatOption = None,
    sample_rate: SampleRate = 0,
    channels: Channels = 0,
    loudness: Loudness = "",
    ceiling: Ceiling = None,
    output: Output = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Convert a finished generation to another format, sample rate or loudness. The loudness is kept by default."""
    from gateway.cli.commands import render
    from gateway.cli.session import output_files

    if output is not None:
        output_files.require_writable([output], overwrite=force)
    console = create_console(as_json)
    options = render.build_output_options(format_, sample_rate, channels, loudness, ceiling, output)
    run(lambda session: render.render(session, console, generation_id, options, output), console, LIBRARY)


@app.command()
def stats(
    days: Annotated[int, typer.Option(metavar="N", min=1, max=366, help="Number of days to list, up to today.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Show statistics of all generations, by model and by day."""
    from gateway.cli.commands import stats

    console = create_console(as_json)
    run(lambda session: stats.statistics(session, console, days), console)


@app.command()
def prompts(
    limit: Limit = 20,
    recent: Annotated[bool, typer.Option("--recent", help="Sort by last use instead of by number of uses.")] = False,
    search: Search = "",
    as_json: AsJson = False,
) -> None:
    """List the prompts used so far, most used first."""
    from gateway.cli.commands import inspect

    console = create_console(as_json)
    run(lambda session: inspect.prompts(session, console, limit=limit, recent=recent, search=search), console)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check Python, GPU, libraries, models, disk and services, and suggest how to fix problems.

    The exit status is 1 if something that is configured does not work.
    """
    from gateway.cli.commands import doctor

    raise typer.Exit(doctor.doctor(GlobalOptions.data_dir, create_console(as_json)))


@app.command()
def serve(
    service: Annotated[
        ServiceArg | None,
        typer.Argument(help="Run only this service. Default: all of them in one process.", show_default=False),
    ] = None,
) -> None:
    """Run the services until Ctrl-C or SIGTERM."""
    from gateway.cli.commands import serve

    serve.serve(None if service is None else service.value, GlobalOptions.data_dir)
