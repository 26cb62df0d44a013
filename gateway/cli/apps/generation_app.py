"""The subcommand that makes music from text: generate."""

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
from gateway.cli.commands.generation.shaping_flags import (
    Adapters,
    Also,
    BeatsPerBar,
    LoopBars,
    LoopTempo,
    Lyrics,
    MelodySource,
    MelodyStart,
    Negative,
    Sections,
    Steps,
    StyleSource,
    StyleStart,
    TextGuidance,
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
from gateway.embedded.service_set import ALL

if TYPE_CHECKING:
    from gateway.cli.commands.generation.generate_options import GenerateOptions

app = typer.Typer()


@app.command()
def generate(
    prompt: PromptText = None,
    duration: Duration = None,
    seed: Seed = None,
    model: ModelOption = "",
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    guidance: Guidance = None,
    continue_: Continue = "",
    continue_seconds: ContinueSeconds = None,
    negative: Negative = "",
    also: Also = None,
    section: Sections = None,
    melody: MelodySource = "",
    melody_start: MelodyStart = 0.0,
    style: StyleSource = "",
    style_start: StyleStart = 0.0,
    text_guidance: TextGuidance = None,
    adapter: Adapters = None,
    lyrics: Lyrics = "",
    steps: Steps = 0,
    loop: LoopBars = "",
    tempo: LoopTempo = None,
    beats: BeatsPerBar = 0,
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
        negative=negative,
        also=also or (),
        sections=section or (),
        melody=melody,
        melody_start=melody_start,
        style=style,
        style_start=style_start,
        text_guidance=text_guidance,
        adapters=adapter or (),
        lyrics=lyrics,
        steps=steps,
        loop=loop,
        tempo=tempo,
        beats=beats,
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
    from gateway.cli.commands.generation import generate
    from gateway.cli.session.standard_streams import STANDARD_OUTPUT

    console = create_console(as_json, STANDARD_OUTPUT if to_stdout else options.output)
    sources = options.parse_sources()
    delivery = generate.prepare_delivery(
        console, options, cover, overwrite=force, play=play, to_stdout=to_stdout, is_raw=raw, opens=opens
    )
    run(
        lambda session: generate.generate(
            session, console, options, sources, delivery, model_folder=model_folder, detach=detach
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
