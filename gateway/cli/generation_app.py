"""The subcommands that make music: generate, watch, cancel, retry and render."""

from __future__ import annotations

import typer

from dgx_music.limits import MAX_SEED
from gateway.cli.commands.output_flags import (
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

app = typer.Typer()


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
    as_json: AsJson = False,
) -> None:
    """Generate music from a text prompt. Ctrl-C cancels the generation."""
    from gateway.cli.commands import continuation_source, generate, render
    from gateway.cli.session import cover_file, output_files

    if detach and output is not None:
        raise typer.BadParameter("--detach exits before the file is finished, so it cannot be combined with --output")
    if detach and cover is not None:
        raise typer.BadParameter(
            "--detach exits before the file is finished, so it cannot be combined with --cover; add the cover later "
            "with: dgx-music files tag ID --cover IMAGE"
        )
    if seed is not None and seed + count - 1 > MAX_SEED:
        raise typer.BadParameter(f"--seed: must be at most {MAX_SEED - count + 1} with --count {count}")
    output_paths = generate.numbered_output_paths(output, count)
    for path in output_paths:
        output_files.check_output(path, overwrite=force, as_json=as_json, count=count)
    console = create_console(as_json, output)
    name, folder = generate.resolve_model(model)
    output_options = render.build_output_options(
        format_,
        sample_rate,
        channels,
        loudness,
        ceiling,
        output,
        bit_rate_kbps=bit_rate,
        quality=quality,
        tag_prompt=tag_prompt,
        publication=render.build_publication(title, artist, album),
    )
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
        output=output_options,
        cover=cover_file.read_cover(cover, output_options.format if output_options else None),
        count=count,
        priority=priority,
        output_paths=output_paths,
        detach=detach,
    )
    run(lambda session: generate.generate(session, console, options), console, ALL, model_folder=folder)


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
    """Retry a failed generation; if its audio was complete, only the file is made again. Ctrl-C cancels it."""
    from gateway.cli.commands import generate

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
    from gateway.cli.commands import render
    from gateway.cli.session import cover_file, output_files

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
