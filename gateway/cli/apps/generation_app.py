"""The subcommands that make music: generate, watch, cancel, retry and render."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from gateway.cli.commands.generation.listening_flags import (
    FileName,
    Open,
    OutputDir,
    PlayOption,
    PromptFile,
    Raw,
    RunName,
    ToStdout,
)
from gateway.cli.commands.generation.output_flags import (
    Album,
    Artist,
    BitRate,
    Ceiling,
    Channels,
    Cover,
    FormatOption,
    Loudness,
    Quality,
    SampleRate,
    TagPrompt,
    Title,
)
from gateway.cli.options import (
    DEFAULT_NAME,
    AsJson,
    Continue,
    ContinueSeconds,
    Count,
    Detach,
    Duration,
    Force,
    Guidance,
    Id,
    ModelOption,
    Output,
    Priority,
    PromptText,
    Seed,
    Temperature,
    TopK,
    TopP,
    create_console,
    run,
)
from gateway.embedded.service_set import ALL, LIBRARY

if TYPE_CHECKING:
    from gateway.cli.commands.generation.generate_options import GenerateOptions

app = typer.Typer()


@app.command()
def generate(
    prompt: PromptText = None,
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
    bit_rate: BitRate = 0,
    quality: Quality = None,
    sample_rate: SampleRate = 0,
    channels: Channels = 0,
    loudness: Loudness = "",
    ceiling: Ceiling = None,
    tag_prompt: TagPrompt = False,
    title: Title = "",
    artist: Artist = "",
    album: Album = "",
    cover: Cover = None,
    output: Output = None,
    count: Count = 1,
    priority: Priority = 0,
    force: Force = False,
    detach: Detach = False,
    play: PlayOption = False,
    to_stdout: ToStdout = False,
    raw: Raw = False,
    open_: Open = False,
    file: PromptFile = "",
    output_dir: OutputDir = None,
    name: FileName = "",
    run_name: RunName = "",
    as_json: AsJson = False,
) -> None:
    """Generate music from a text prompt, or many pieces with --file. Ctrl-C cancels the generation."""
    from gateway.cli.commands.generation.generate_options import GenerateOptions, resolve_model
    from gateway.cli.commands.generation.option_combinations import check_combinations
    from gateway.cli.session.standard_streams import STANDARD_OUTPUT

    check_combinations(
        {
            "PROMPT": prompt is not None,
            "--output": output is not None,
            "--output -": output == STANDARD_OUTPUT,
            "--cover": cover is not None,
            "--count": count > 1,
            "--detach": detach,
            "--play": play,
            "--stdout": to_stdout,
            "--raw": raw,
            "--open": open_,
            "--file": bool(file),
            "--output-dir": output_dir is not None,
            "--name": bool(name),
            "--run": bool(run_name),
            "--json": as_json,
        }
    )
    model_name, model_folder = resolve_model(model)
    options = GenerateOptions(
        prompt=prompt or "",
        duration=duration,
        seed=seed,
        model=model_name,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        guidance=guidance,
        continue_=continue_,
        continue_seconds=continue_seconds,
        format=format_,
        bitrate=bit_rate,
        quality=quality,
        sample_rate=sample_rate,
        channels=channels,
        loudness=loudness,
        ceiling=ceiling,
        tag_prompt=tag_prompt,
        title=title,
        artist=artist,
        album=album,
        output=output,
        count=count,
        priority=priority,
    )
    if file:
        _generate_batch(
            options, file, output_dir, name, run_name, model_folder=model_folder, force=force, as_json=as_json
        )
    else:
        _generate_one(
            options,
            cover,
            model_folder=model_folder,
            force=force,
            detach=detach,
            play=play,
            to_stdout=to_stdout,
            raw=raw,
            opens=open_,
            as_json=as_json,
        )


def _generate_one(
    options: GenerateOptions,
    cover: Path | None,
    *,
    model_folder: Path | None,
    force: bool,
    detach: bool,
    play: bool,
    to_stdout: bool,
    raw: bool,
    opens: bool,
    as_json: bool,
) -> NoReturn:
    """Runs `generate` for one prompt."""
    from gateway.cli.commands.generation import continuation_source, generate, generate_options
    from gateway.cli.commands.generation.play import create_sink
    from gateway.cli.session.files import cover_file, output_files
    from gateway.cli.session.standard_streams import STANDARD_OUTPUT

    output_paths = generate_options.numbered_output_paths(options.output, options.count)
    for path in output_paths:
        output_files.check_output(path, overwrite=force, as_json=as_json, count=options.count)
    console = create_console(as_json, STANDARD_OUTPUT if to_stdout else options.output)
    output_options = options.build_output()
    delivery = generate.Delivery(
        output_paths=output_paths,
        cover=cover_file.read_cover(cover, output_options.format if output_options else None),
        sink=create_sink(console, to_stdout=to_stdout, is_raw=raw) if play or to_stdout else None,
        opens=opens,
    )
    source = continuation_source.parse_continuation_source(options.continue_, options.continue_seconds)
    run(
        lambda session: generate.generate(
            session, console, options, source, delivery, model_folder=model_folder, detach=detach
        ),
        console,
        ALL,
        model_folder=model_folder,
    )


def _generate_batch(
    options: GenerateOptions,
    file: str,
    output_dir: Path | None,
    name: str,
    run_name: str,
    *,
    model_folder: Path | None,
    force: bool,
    as_json: bool,
) -> NoReturn:
    """Runs `generate --file`."""
    from gateway.cli.commands.batch import batch_jobs, generate_batch
    from gateway.cli.commands.files_export import create_folder
    from gateway.cli.session.files.name_template import NameTemplate

    console = create_console(as_json)
    template = NameTemplate(name or DEFAULT_NAME, "--name")
    source, jobs = batch_jobs.read_jobs(console, options, file, output_dir)
    batch = generate_batch.BatchOptions(
        folder=None if output_dir is None else create_folder(output_dir, "--output-dir"),
        template=template,
        run_name=run_name,
        overwrite=force,
        model_folder=model_folder,
    )
    run(
        lambda session: generate_batch.generate_batch(session, console, source, jobs, batch),
        console,
        ALL,
        model_folder=model_folder,
    )


@app.command()
def retry(generation_id: Id, detach: Detach = False, as_json: AsJson = False) -> None:
    """Retry a failed generation; if its audio was complete, only the file is made again. Ctrl-C cancels it."""
    from gateway.cli.commands.generation import generate

    console = create_console(as_json)
    run(lambda session: generate.retry(session, console, generation_id, detach=detach), console, ALL)


@app.command()
def render(
    generation_id: Id,
    format_: FormatOption = None,
    bit_rate: BitRate = 0,
    quality: Quality = None,
    sample_rate: SampleRate = 0,
    channels: Channels = 0,
    loudness: Loudness = "",
    ceiling: Ceiling = None,
    title: Title = "",
    artist: Artist = "",
    album: Album = "",
    cover: Cover = None,
    output: Output = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Convert a finished generation to another format, sample rate or loudness. The loudness is kept by default."""
    from gateway.cli.commands.generation import render
    from gateway.cli.session.files import cover_file, output_files

    output_files.check_output(output, overwrite=force, as_json=as_json)
    console = create_console(as_json, output)
    options = render.build_output_options(
        format_,
        sample_rate,
        channels,
        loudness,
        ceiling,
        output,
        bit_rate_kbps=bit_rate,
        quality=quality,
        publication=render.build_publication(title, artist, album),
    )
    picture = cover_file.read_cover(cover, options.format if options else None)
    run(lambda session: render.render(session, console, generation_id, options, output, picture), console, LIBRARY)
