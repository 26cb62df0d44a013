"""The `dgx-music` command that makes a request."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dgx_music.audio.v1.audio_pb2 import LoudnessProfile, OutputOptions
from dgx_music.client.generation_options import FORMATS
from dgx_music.client.shaping.derived_requests import extend_left, extend_right, override, repaint
from dgx_music.storage.v1.conditioning_pb2 import EDIT_KIND_EXTEND_LEFT, EDIT_KIND_REPAINT, Conditioning
from dgx_music.storage.v1.storage_pb2 import CreateGenerationRequest, Generation, SamplingParameters
from gateway.studio.repeating.repeat_request import GatewayAccess

FORMAT_NAMES = {number: name for name, number in FORMATS.items()}
SAMPLING = {"temperature": "--temperature", "top_k": "--top-k", "top_p": "--top-p", "guidance_scale": "--guidance"}


class Inexpressible(Exception):
    """The command line has no option for something in the request; the text says what."""


def shell_line(request: CreateGenerationRequest, access: GatewayAccess, source: Generation | None) -> str:
    """Returns the line for a POSIX shell. `source` is the generation that an edit changes, from which the command takes
    what it is not told; an empty one if that is a clip. Raises Inexpressible."""
    words = ["dgx-music"]
    if access.data_dir is not None:
        words += ["--data-dir", str(access.data_dir)]
    if request.HasField("edit"):
        words += _edit(request, source or Generation(id=request.edit.source_id))
    else:
        words += _generate(request)
    setting = f"DGX_MUSIC_GATEWAY_ADDRESS={shlex.quote(access.address)} " if _needs_address(access) else ""
    # Behind two dashes, also a prompt that begins with one is a prompt.
    return setting + shlex.join([*words, "--", *_arguments(request)])


def _needs_address(access: GatewayAccess) -> bool:
    return bool(access.address) and access.data_dir is None


def _arguments(request: CreateGenerationRequest) -> list[str]:
    return [*([request.edit.source_id] if request.HasField("edit") else []), request.prompt]


def _generate(request: CreateGenerationRequest) -> Iterator[str]:
    yield "generate"
    if request.duration_seconds:
        yield f"--duration={request.duration_seconds!r}"
    yield f"--seed={request.seed}"
    yield f"--model={request.model_name}"
    yield from _sampling(request.sampling)
    if request.HasField("continuation"):
        yield f"--continue={request.continuation.source_id}"
        if request.continuation.seconds:
            yield f"--continue-seconds={request.continuation.seconds!r}"
    yield from _conditioning(request.conditioning)
    if request.HasField("loop"):
        yield f"--loop={request.loop.bars}bars"
        if request.loop.bpm:
            yield f"--tempo={request.loop.bpm!r}"
        if request.loop.beats_per_bar:
            yield f"--beats={request.loop.beats_per_bar}"
    yield from _output(request.output)


def _sampling(sampling: SamplingParameters) -> Iterator[str]:
    for name, option in SAMPLING.items():
        if sampling.HasField(name):
            yield f"{option}={getattr(sampling, name)!r}"


def _conditioning(conditioning: Conditioning) -> Iterator[str]:
    if conditioning.HasField("prompt_weight") and conditioning.prompt_weight != 1:
        raise Inexpressible("a weight of the prompt itself")
    if conditioning.negative_prompt:
        yield f"--negative={conditioning.negative_prompt}"
    for further in conditioning.further_prompts:
        yield f"--also={further.prompt}:{further.weight!r}"
    for section in conditioning.sections:
        if section.prompt != section.prompt.strip():
            raise Inexpressible("a section whose text begins or ends with a space")
        yield f"--section={section.start_seconds!r}:{section.end_seconds!r} {section.prompt}"
    if conditioning.HasField("melody"):
        yield f"--melody={conditioning.melody.source_id}"
        if conditioning.melody.start_seconds:
            yield f"--melody-start={conditioning.melody.start_seconds!r}"
    if conditioning.HasField("style"):
        yield from _style(conditioning)
    for adapter in conditioning.adapters:
        if ":" in adapter.name:
            raise Inexpressible("an adapter with a colon in its name")
        yield f"--adapter={adapter.name}" + (f":{adapter.scale!r}" if adapter.HasField("scale") else "")
    if conditioning.lyrics.startswith("@"):
        raise Inexpressible("lyrics that begin with @")
    if conditioning.lyrics:
        yield f"--lyrics={conditioning.lyrics}"
    if conditioning.steps:
        yield f"--steps={conditioning.steps}"


def _style(conditioning: Conditioning) -> Iterator[str]:
    style = conditioning.style
    if style.seconds or style.quantizers:
        raise Inexpressible("the length or the quantizers of a style")
    yield f"--style={style.source_id}"
    if style.start_seconds:
        yield f"--style-start={style.start_seconds!r}"
    if style.HasField("text_guidance"):
        yield f"--text-guidance={style.text_guidance!r}"


def _output(output: OutputOptions) -> Iterator[str]:
    if output.format:
        yield f"--format={FORMAT_NAMES[output.format]}"
    if output.sample_rate_hz:
        yield f"--sample-rate={output.sample_rate_hz}"
    if output.channels:
        yield f"--channels={output.channels}"
    yield from _loudness(output)
    if output.HasField("ceiling_dbtp"):
        yield f"--ceiling={output.ceiling_dbtp!r}"
    if output.bit_rate_kbps:
        yield f"--bitrate={output.bit_rate_kbps}"
    if output.HasField("quality"):
        yield f"--quality={output.quality!r}"
    if output.tag_prompt:
        yield "--tag-prompt"
    for name in ("title", "artist", "album"):
        if text := getattr(output.publication, name):
            yield f"--{name}={text}"


def _loudness(output: OutputOptions) -> Iterator[str]:
    match output.WhichOneof("loudness"):
        case "profile":
            yield f"--loudness={LoudnessProfile.Name(output.profile).removeprefix('LOUDNESS_PROFILE_').lower()}"
        case "target_lufs":
            yield f"--loudness={output.target_lufs!r}"


def _edit(request: CreateGenerationRequest, source: Generation) -> list[str]:
    edit = request.edit
    if edit.kind == EDIT_KIND_REPAINT:
        words = ["repaint", f"--from={edit.start_seconds!r}", f"--to={edit.end_seconds!r}"]
        taken = repaint(source, edit.start_seconds, edit.end_seconds)
    elif edit.kind == EDIT_KIND_EXTEND_LEFT:
        words, taken = ["extend", f"--left={edit.added_seconds!r}"], extend_left(source, edit.added_seconds)
    else:
        words, taken = ["extend", f"--right={edit.added_seconds!r}"], extend_right(source, edit.added_seconds)
    told = CreateGenerationRequest(
        prompt=request.prompt, model_name=request.model_name, seed=request.seed, sampling=request.sampling
    )
    told.conditioning.negative_prompt = request.conditioning.negative_prompt
    told.conditioning.adapters.extend(request.conditioning.adapters)
    if request.output.format:
        told.output.format = request.output.format
    if request.output.WhichOneof("loudness") == "profile":
        told.output.profile = request.output.profile
    elif request.output.HasField("target_lufs"):
        told.output.target_lufs = request.output.target_lufs
    made = override(taken, told)
    made.request_id = ""
    if _without_empty(made) != _without_empty(request):
        raise Inexpressible("what this edit leaves out of its source, or adds to it")
    return [
        *words,
        f"--seed={request.seed}",
        f"--model={request.model_name}",
        *_sampling(request.sampling),
        *_conditioning(told.conditioning),
        *([f"--format={FORMAT_NAMES[request.output.format]}"] if request.output.format else []),
        *_loudness(request.output),
    ]


def _without_empty(request: CreateGenerationRequest) -> CreateGenerationRequest:
    """Returns the request without messages that say nothing: they mean the same as none."""
    plain = CreateGenerationRequest()
    plain.CopyFrom(request)
    for name in ("sampling", "conditioning", "output"):
        if plain.HasField(name) and not getattr(plain, name).ListFields():
            plain.ClearField(name)
    return plain
