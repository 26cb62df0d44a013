"""What can be asked for with a prompt, as keyword arguments, and the request that it becomes."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Required, TypedDict, cast

from google.protobuf.struct_pb2 import Struct

from dgx_music.audio.v1.audio_pb2 import FileFormat, LoudnessProfile, OutputOptions
from dgx_music.client.option_signature import suggest
from dgx_music.client.shaping.conditioning_options import ConditioningOptions, build_conditioning, build_loop, id_of
from dgx_music.errors import InvalidArgument
from dgx_music.limits import MAX_DURATION_SECONDS, MIN_DURATION_SECONDS
from dgx_music.storage.v1.storage_pb2 import Continuation, CreateGenerationRequest, SamplingParameters

LoudnessTarget = float | Literal["streaming", "default", "broadcast", "none"]
"""LUFS, or a profile: streaming (-14 LUFS), default (-16), broadcast (-23), or none to keep the level."""


class FileOptions(TypedDict, total=False):
    """The audio file. What is left out is chosen by the server."""

    format: str | None
    """One of FORMATS, e.g. "wav" (24 bits), "wav-16", "flac", "mp3", "ogg", "opus" or "m4a"."""
    sample_rate: int | None
    """Hz, 8000 to 192000. Default: the model's, or the next one that the format supports."""
    channels: int | None
    """1 or 2. Default: the model's."""
    bit_depth: int | None
    """16, 24 or 32, of a lossless format."""
    bit_rate: int | None
    """kbit/s for all channels together, of a lossy format. Excludes `quality`."""
    quality: float | None
    """0 (smallest file) to 10, of a lossy format with a variable bit rate."""
    loudness: LoudnessTarget | None
    """Integrated loudness in LUFS, -70 to 0, or the name of a profile. Default: -16 LUFS."""
    ceiling: float | None
    """Maximum true peak in dBTP, -20 to 0. Default: -1 dBTP."""


class MusicOptions(TypedDict, total=False):
    """The music. What is left out is chosen by the server or by the model."""

    duration: float | None
    """Seconds, 0.1 to 3600. Default: 16, or what the model can if that is less; the length of `loop`."""
    model: str | None
    """Name of a model, see `models()`. Default: the server's default model."""
    seed: int | None
    """0 to 2^63-1. The same seed, model, prompt and options give the same samples. Default: random."""
    temperature: float | None
    """Sampling temperature, above 0 and at most 10."""
    top_k: int | None
    """Sample from this many most likely tokens, 0 to 2048; 0 for all."""
    top_p: float | None
    """Nucleus sampling threshold, 0 to 1; 0 disables it."""
    guidance: float | None
    """Classifier-free guidance scale, 0 to 20; 1 disables it."""
    continue_from: object
    """A finished generation or a clip, or the id of one: the music goes on where that ends."""
    continue_seconds: float | None
    """How much of its end the model hears, 0.5 to 25 s. Default: 10 s."""
    priority: int
    """-10 to 10; higher ones are generated first."""
    metadata: Mapping[str, Any] | None
    """Your own data to store with the generation, at most 16 KiB as JSON."""
    request_id: str | None
    """UUID that makes the creation safe to repeat; the same id returns the same generation. Default: random."""


class GenerationOptions(MusicOptions, ConditioningOptions, FileOptions, total=False):
    """The keyword arguments of `submit`, `generate` and `stream`: those of `MusicOptions`, `ConditioningOptions` and
    `FileOptions`."""


class GenerationRequest(GenerationOptions, total=False):
    """One of the requests of `submit_many`."""

    prompt: Required[str]
    """1 to 10000 characters."""


OPTIONS = tuple(GenerationOptions.__annotations__)
"""The names of all options."""


def _format_name(name: str) -> str:
    match name.removeprefix("FILE_FORMAT_").lower().split("_"):
        case ["ogg", codec]:
            return "ogg" if codec == "vorbis" else codec
        case ["m4a", _] | ["mp3"] as words:
            return words[0]
        case [container, *_, depth]:
            return container if depth == "24" else f"{container}-{depth}"
    raise AssertionError(name)


FORMATS: dict[str, FileFormat] = {_format_name(name): getattr(FileFormat, name) for name in FileFormat.keys()[1:]}
"""The name of a format here → the contract's. wav, flac, aiff, caf and w64 have 24 bits; see docs/files.md."""

EXTENSIONS = {
    ".wav": "wav",
    ".wave": "wav",
    ".bwf": "wav",
    ".flac": "flac",
    ".mp3": "mp3",
    ".ogg": "ogg",
    ".oga": "ogg",
    ".opus": "opus",
    ".aiff": "aiff",
    ".aif": "aiff",
    ".aifc": "aiff-float",
    ".caf": "caf",
    ".w64": "w64",
    ".m4a": "m4a",
    ".mp4": "m4a",
}
"""Extension of a file's name, in lower case → the format that it has unless another one is asked for."""

ARGUMENTS = {
    "duration_seconds": "duration",
    "model_name": "model",
    "sampling.guidance_scale": "guidance",
    "continuation": "continue_from",
    "continuation.source_id": "continue_from",
    "continuation.seconds": "continue_seconds",
    "conditioning.negative_prompt": "negative",
    "conditioning.further_prompts": "also",
    "conditioning.melody.source_id": "melody",
    "conditioning.melody.start_seconds": "melody_start",
    "conditioning.style.source_id": "style",
    "conditioning.style.start_seconds": "style_start",
    "conditioning.style.text_guidance": "text_guidance",
    "loop.bars": "loop",
    "loop.bpm": "tempo",
    "loop.beats_per_bar": "beats",
    "edit": "model",
    "edit.source_id": "id",
    "edit.start_seconds": "start",
    "edit.end_seconds": "end",
    "edit.added_seconds": "left or right",
    "variation_of": "id",
    "output.sample_rate_hz": "sample_rate",
    "output.bit_rate_kbps": "bit_rate",
    "output.target_lufs": "loudness",
    "output.ceiling_dbtp": "ceiling",
    "generation_id": "id",
    "prompt_contains": "search",
    "page_size": "limit",
    "data": "path",
}
"""Field of a request → the argument that sets it, where that has another name."""


_REQUEST = re.compile(r"(requests\[\d+\]\.|)(.*)", re.DOTALL)
_CONDITION_ITEM = re.compile(r"(conditioning\.\w+)\[\d+\]")


def name_argument(error: InvalidArgument) -> InvalidArgument:
    """Returns the server's error with the name of the argument at fault, e.g. "requests[2].duration"."""
    request, name = _REQUEST.match(error.field or "").groups()  # type: ignore[union-attr]  # It matches any text.
    item = _CONDITION_ITEM.match(name)
    name = item[1] if item else name
    argument = request + ARGUMENTS.get(name, re.sub(r"^(output|sampling|conditioning)\.", "", name))
    return InvalidArgument(argument, error.problem, reason=error.reason)


def build_request(prompt: str, options: GenerationOptions) -> CreateGenerationRequest:
    """Returns the request, always with a request_id. Raises InvalidArgument for what has the wrong form; the server
    checks the values."""
    source = options.get("continue_from")
    seconds = options.get("continue_seconds")
    if source is None and seconds is not None:
        raise InvalidArgument("continue_seconds", "is only used with continue_from, which names what to continue")
    duration = options.get("duration")
    if duration == 0:  # The server would take it for none.
        raise InvalidArgument("duration", f"must be {MIN_DURATION_SECONDS:g} to {MAX_DURATION_SECONDS:g} s, not 0")
    try:
        sampling = SamplingParameters(
            temperature=options.get("temperature"),
            top_k=options.get("top_k"),
            top_p=options.get("top_p"),
            guidance_scale=options.get("guidance"),
        )
        return CreateGenerationRequest(
            request_id=options.get("request_id") or str(uuid.uuid4()),
            prompt=prompt,
            model_name=options.get("model") or "",
            duration_seconds=duration or 0.0,
            seed=options.get("seed"),
            sampling=sampling if sampling.ListFields() else None,
            continuation=None
            if source is None
            else Continuation(source_id=id_of(source, "continue_from"), seconds=seconds or 0.0),
            conditioning=build_conditioning(options),
            loop=build_loop(options),
            output=build_output(options),
            priority=options.get("priority", 0),
            metadata=_to_struct(options.get("metadata")),
        )
    except (AttributeError, TypeError, ValueError) as error:  # For example a text for a number.
        raise InvalidArgument("options", f"have a value of a wrong type: {error}") from error


def build_requests(
    requests: Iterable[str | GenerationRequest], common: GenerationOptions
) -> list[CreateGenerationRequest]:
    """Returns a request for each prompt, or dictionary with a prompt and options, which precede the common ones.

    Raises InvalidArgument, which names the request, e.g. "requests[2].format".
    """
    messages = []
    for number, one in enumerate(requests):
        own = GenerationRequest(prompt=one) if isinstance(one, str) else one
        if unknown := [name for name in own if name not in GenerationRequest.__annotations__]:
            raise InvalidArgument(f"requests[{number}].{unknown[0]}", f"is not an option{suggest(unknown[0], OPTIONS)}")
        options = cast(GenerationOptions, {**common, **own})
        try:
            messages.append(build_request(own["prompt"], options))
        except InvalidArgument as error:
            raise InvalidArgument(f"requests[{number}].{error.field}", error.problem) from error
    return messages


def build_output(options: FileOptions) -> OutputOptions | None:
    """Returns the options of the file, or None if there are none. Raises InvalidArgument."""
    output = OutputOptions(
        format=_find_format(options.get("format"), options.get("bit_depth")),
        sample_rate_hz=options.get("sample_rate") or 0,
        channels=options.get("channels") or 0,
        bit_rate_kbps=options.get("bit_rate") or 0,
        quality=options.get("quality"),
        ceiling_dbtp=options.get("ceiling"),
    )
    match options.get("loudness"):
        case None:
            pass
        case str(profile):
            name = f"LOUDNESS_PROFILE_{profile.upper()}"
            if name not in LoudnessProfile.keys()[1:]:
                names = ", ".join(key.removeprefix("LOUDNESS_PROFILE_").lower() for key in LoudnessProfile.keys()[1:])
                raise InvalidArgument("loudness", f"must be a number of LUFS or one of {names}, not {profile!r}")
            output.profile = getattr(LoudnessProfile, name)
        case target:
            output.target_lufs = float(target)
    return output if output.ListFields() else None


def _find_format(name: str | None, bit_depth: int | None) -> FileFormat | None:
    if name is None and bit_depth is None:
        return None
    wanted = (name or "wav").lower()
    if wanted not in FORMATS:
        raise InvalidArgument("format", f"{name!r} is not a format; use one of {', '.join(FORMATS)}")
    if bit_depth is None:
        return FORMATS[wanted]
    for other, number in FORMATS.items():
        if other.partition("-")[0] == wanted.partition("-")[0] and FileFormat.Name(number).endswith(f"_{bit_depth}"):
            return number
    raise InvalidArgument("bit_depth", f"{bit_depth} is not a bit depth of the format {wanted!r}")


def is_id(text: str) -> bool:
    """Returns whether the text is a UUID, as ids are and prompts are not."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _to_struct(metadata: Mapping[str, Any] | None) -> Struct | None:
    if metadata is None:
        return None
    struct = Struct()
    try:
        struct.update(metadata)
    except (TypeError, ValueError) as error:
        raise InvalidArgument("metadata", f"must be what JSON can express: {error}") from error
    return struct
