"""What can be typed after `dgx-music`. What a command needs is imported when it runs: --help answers at once."""

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
    Detach,
    Everywhere,
    Force,
    Guidance,
    Id,
    Limit,
    Output,
    Priority,
    Search,
    ServedName,
    State,
    Temperature,
    TopK,
    TopP,
    Yes,
    run,
    screen_of,
)
from gateway.embedded.service_set import ALL, LIBRARY

app = typer.Typer(
    name="dgx-music",
    help="Text in, a finished WAV out, on your own machine.",
    epilog="Without DGX_MUSIC_GATEWAY_ADDRESS, all runs in this process: no server is needed.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models_app.app, name="models")
app.add_typer(files_app.app, name="files")
app.add_typer(db_app.app, name="db")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"dgx-music {version('dgx-music')}")
        raise typer.Exit


@app.callback()
def _everywhere(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            help="Where everything is kept. Default: DGX_MUSIC_DATA_DIR, else the platform's user data folder.",
            show_default=False,
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Log more, and show where an error came from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    Everywhere.data_dir, Everywhere.debug = data_dir, debug


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help='What to make, e.g. "lo-fi hip hop at 84 BPM in A minor".')],
    duration: Annotated[float, typer.Option("--duration", "-d", help="Seconds.")] = 16.0,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=MAX_SEED, help="The same seed makes the same again. Default: drawn.", show_default=False
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|FOLDER", help="A model's name or folder. Default: the server's.", show_default=False
        ),
    ] = "",
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
    count: Annotated[int, typer.Option(min=1, max=100, help="Takes, with seeds one after another.")] = 1,
    priority: Priority = 0,
    force: Force = False,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Make music from a text. Ctrl-C cancels it."""
    from gateway.cli.commands import continuation_source, generate, render
    from gateway.cli.session import output_files

    if detach and output is not None:
        raise typer.BadParameter("--detach does not wait for the file that --output would save")
    if seed is not None and seed + count - 1 > MAX_SEED:
        raise typer.BadParameter(f"--seed: with --count {count} at most {MAX_SEED - count + 1}")
    outputs = generate.output_names(output, count)
    output_files.require_writable(outputs, overwrite=force)
    screen = screen_of(as_json)
    name, folder = generate.which_model(model)
    sampling = generate.sampling_of(temperature=temperature, top_k=top_k, top_p=top_p, guidance_scale=guidance)
    source = continuation_source.which_source(continue_, continue_seconds)
    options = render.options_of(format_, sample_rate, channels, loudness, ceiling, output, tag_prompt=tag_prompt)
    wish = generate.Wish(
        prompt, duration, seed, name, folder, sampling, source, options, count, priority, outputs, detach
    )
    run(lambda session: generate.generate(session, screen, wish), screen, ALL, model_folder=folder)


@app.command(name="list")
def list_(
    limit: Limit = 20,
    state: Annotated[list[State] | None, typer.Option("--state", help="Only these.", show_default=False)] = None,
    model: Annotated[str, typer.Option(help="Only of this model.", show_default=False)] = "",
    search: Search = "",
    as_json: AsJson = False,
) -> None:
    """List generations, newest first."""
    from gateway.cli.commands import inspect

    screen = screen_of(as_json)
    states = [f"GENERATION_STATE_{one.name}" for one in state or ()]
    run(
        lambda session: inspect.list_generations(
            session, screen, limit=limit, states=states, model_name=model, search=search
        ),
        screen,
    )


@app.command()
def show(
    generation_id: Id,
    png: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a picture here: waveform, short-term loudness, spectrogram. Needs matplotlib.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file given by --png.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show all that is known of a generation, and its waveform."""
    from gateway.cli.commands import inspect

    if png is not None:
        from gateway.cli.display import picture

        picture.require_drawable(png, overwrite=force)
    screen = screen_of(as_json)
    run(lambda session: inspect.show(session, screen, generation_id, png=png), screen, LIBRARY)


@app.command()
def watch(generation_id: Id, as_json: AsJson = False) -> None:
    """Watch a generation until it is finished. Ctrl-C stops the watching only."""
    from gateway.cli.commands import generate

    screen = screen_of(as_json)
    run(lambda session: generate.watch(session, screen, generation_id), screen, ALL)


@app.command()
def cancel(generation_id: Id, as_json: AsJson = False) -> None:
    """Stop a generation that waits or is being made."""
    from gateway.cli.commands import inspect

    screen = screen_of(as_json)
    run(lambda session: inspect.cancel(session, screen, generation_id), screen)


@app.command()
def retry(generation_id: Id, detach: Detach = False, as_json: AsJson = False) -> None:
    """Try a failed generation again. Ctrl-C cancels it."""
    from gateway.cli.commands import generate

    screen = screen_of(as_json)
    run(lambda session: generate.retry(session, screen, generation_id, detach=detach), screen, ALL)


@app.command()
def delete(generation_id: Id, yes: Yes = False, as_json: AsJson = False) -> None:
    """Delete a generation and its file."""
    from gateway.cli.commands import inspect

    if not yes:
        typer.confirm(f"Delete generation {generation_id} and its file?", abort=True, err=True)
    screen = screen_of(as_json)
    run(lambda session: inspect.delete(session, screen, generation_id), screen, LIBRARY)


@app.command()
def download(generation_id: Id, output: Output = None, force: Force = False) -> None:
    """Save a finished generation's file, under its own name in this folder without -o."""
    from gateway.cli.commands import inspect
    from gateway.cli.session import output_files

    if output is not None:
        output_files.require_writable([output], overwrite=force)
    screen = screen_of()
    run(lambda session: inspect.save(session, screen, generation_id, output, overwrite=force), screen, LIBRARY)


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
    """Make a finished generation's file once more in another form. Without --loudness it is as loud as the first."""
    from gateway.cli.commands import render
    from gateway.cli.session import output_files

    if output is not None:
        output_files.require_writable([output], overwrite=force)
    screen = screen_of(as_json)
    options = render.options_of(format_, sample_rate, channels, loudness, ceiling, output)
    run(lambda session: render.render(session, screen, generation_id, options, output), screen, LIBRARY)


@app.command()
def stats(
    days: Annotated[int, typer.Option(min=1, max=366, help="Days to show one by one.")] = 7, as_json: AsJson = False
) -> None:
    """Show figures over all generations, by model and by day."""
    from gateway.cli.commands import stats

    screen = screen_of(as_json)
    run(lambda session: stats.statistics(session, screen, days), screen)


@app.command()
def prompts(
    limit: Limit = 20,
    recent: Annotated[bool, typer.Option("--recent", help="Last used first, in place of most used.")] = False,
    search: Search = "",
    as_json: AsJson = False,
) -> None:
    """List prompts, most used first."""
    from gateway.cli.commands import inspect

    screen = screen_of(as_json)
    run(lambda session: inspect.prompts(session, screen, limit=limit, recent=recent, search=search), screen)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Look at what there is to make music with, and say what to do where something is missing."""
    from gateway.cli.commands import doctor as examination

    raise typer.Exit(examination.doctor(Everywhere.data_dir, screen_of(as_json)))


@app.command()
def serve(
    service: Annotated[
        ServedName | None, typer.Argument(help="One service alone; without it, all.", show_default=False)
    ] = None,
) -> None:
    """Keep the services up until Ctrl-C."""
    from gateway.cli.commands import serve

    serve.serve(None if service is None else service.value, Everywhere.data_dir)
