"""The options of `generate` that describe one generation, and the request that they make."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.limits import MAX_DURATION_SECONDS, MAX_SEED, MIN_DURATION_SECONDS
from dgx_music.storage.v1.storage_pb2 import Continuation, CreateGenerationRequest, SamplingParameters
from gateway.cli.commands.generation.audio_sources import AudioSources, parse_source
from gateway.cli.commands.generation.output_flags import Format
from gateway.cli.commands.generation.render import build_output_options, build_publication
from gateway.cli.commands.generation.shaping_options import ShapingOptions
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.standard_streams import STANDARD_OUTPUT


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions(ShapingOptions):
    """The value of each option of the same name; the default stands for an option that is not given."""

    prompt: str = ""
    duration: float | None = None
    """In seconds; None for what the server chooses."""
    seed: int | None = None
    model: str = ""
    """A name; empty for the server's default model."""
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    guidance: float | None = None
    continue_: str = ""
    continue_seconds: float | None = None
    format: Format | None = None
    bitrate: int = 0
    """In kbit/s."""
    quality: float | None = None
    sample_rate: int = 0
    """In Hz."""
    channels: int = 0
    loudness: str = ""
    ceiling: float | None = None
    """In dBTP."""
    tag_prompt: bool = False
    title: str = ""
    artist: str = ""
    album: str = ""
    output: Path | None = None
    priority: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        """Raises CommandError if the seeds of all `count` generations do not exist, or for a duration of 0, which the
        server would take for none."""
        if self.duration == 0:
            raise CommandError(
                f"--duration: must be {MIN_DURATION_SECONDS:g} to {MAX_DURATION_SECONDS:g} s, not 0", BAD_INPUT
            )
        if self.seed is not None and self.seed + self.count - 1 > MAX_SEED:
            raise CommandError(
                f"--seed: must be at most {MAX_SEED - self.count + 1} with --count {self.count}", BAD_INPUT
            )

    def build_output(self) -> OutputOptions | None:
        """Returns format and loudness of the file; None if none of their options is given. Raises CommandError."""
        return build_output_options(
            self.format,
            self.sample_rate,
            self.channels,
            self.loudness,
            self.ceiling,
            self.output,
            bit_rate_kbps=self.bitrate,
            quality=self.quality,
            tag_prompt=self.tag_prompt,
            publication=build_publication(self.title, self.artist, self.album),
        )

    def parse_sources(self) -> AudioSources:
        """Returns the audio to continue or to follow. Raises CommandError if it is neither a UUID nor an existing
        file, and if the other options don't fit together."""
        sources = dict(ShapingOptions.parse_sources(self))
        if self.continue_:
            sources["--continue"] = parse_source("--continue", self.continue_)
        elif self.continue_seconds is not None:
            raise CommandError("--continue-seconds: can only be used together with --continue", BAD_INPUT)
        self.build_conditioning(dict.fromkeys(sources, ""))
        self.build_loop()
        return sources

    def build_requests(self, source_ids: Mapping[str, str] | None = None) -> Iterator[CreateGenerationRequest]:
        """Yields `count` requests, which differ in their seeds, without request ids. Raises CommandError.

        `source_ids` are those of the sources, by their options.
        """
        ids = source_ids or {}
        continuation = None
        if "--continue" in ids:
            continuation = Continuation(source_id=ids["--continue"], seconds=self.continue_seconds or 0.0)
        conditioning, loop = self.build_conditioning(ids), self.build_loop()
        sampling = build_sampling_params(
            temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, guidance_scale=self.guidance
        )
        output = self.build_output()
        for index in range(self.count):
            yield CreateGenerationRequest(
                prompt=self.prompt,
                model_name=self.model,
                duration_seconds=self.duration or 0.0,
                seed=None if self.seed is None else self.seed + index,
                sampling=sampling,
                continuation=continuation,
                conditioning=conditioning,
                loop=loop,
                output=output,
                priority=self.priority,
            )


def resolve_model(model: str) -> tuple[str, Path | None]:
    """Returns the name and the folder, if any, of the model that --model names or points to.

    Raises CommandError if the folder does not exist.
    """
    folder = Path(model).expanduser()
    if not model or (os.sep not in model and not (folder / "state_dict.bin").is_file()):
        return model, None
    if not folder.is_dir():
        raise CommandError(f"--model: the folder {folder} does not exist", BAD_INPUT)
    return folder.resolve().name, folder.resolve()


def build_sampling_params(**parameters: Any) -> SamplingParameters | None:
    """Returns the parameters that were given, or None if there are none."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return SamplingParameters(**given) if given else None


def numbered_output_paths(output: Path | None, count: int) -> list[Path]:
    """Returns a path for each generation: `output` itself for one, beat-1.wav, beat-2.wav … for several."""
    if output is None:
        return []
    if count == 1 or output == STANDARD_OUTPUT:
        return [output]
    return [output.with_stem(f"{output.stem}-{number}") for number in range(1, count + 1)]
