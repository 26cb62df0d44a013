"""The Python program that makes a request."""

from __future__ import annotations

from pprint import pformat
from typing import Any, cast

from google.protobuf import json_format

from dgx_music.audio.v1.audio_pb2 import LoudnessProfile, OutputOptions
from dgx_music.client.generation_options import FORMATS, GenerationOptions, build_request
from dgx_music.storage.v1.conditioning_pb2 import Conditioning
from dgx_music.storage.v1.storage_pb2 import CreateGenerationRequest
from gateway.studio.repeating.repeat_request import GatewayAccess

WIDTH = 100
_FORMAT_NAMES = {number: name for name, number in FORMATS.items()}


def python_program(request: CreateGenerationRequest, access: GatewayAccess) -> str:
    """Returns the program. It saves the finished file in the current folder. It calls `generate` with the options of
    the request, or if there is no option for something in it, sends the request itself."""
    address = repr(access.address) if access.address else ""
    options = _options(request)
    if _without_id(build_request(request.prompt, options)) != request:
        return _send_message(request, address)
    arguments = [_literal(request.prompt, 8), *(f"{name}={_literal(value, 8)}" for name, value in options.items())]
    return "\n".join(
        (
            "from dgx_music import Client",
            "",
            f"with Client({address}) as client:",
            "    take = client.generate(",
            *(f"        {argument}," for argument in arguments),
            "    )",
            '    print(take.save("."))',
            "",
        )
    )


def _send_message(request: CreateGenerationRequest, address: str) -> str:
    fields = json_format.MessageToDict(request, preserving_proto_field_name=True)
    return "\n".join(
        (
            "from google.protobuf.json_format import ParseDict",
            "",
            "from dgx_music import Client",
            "from dgx_music.storage.v1.storage_pb2 import CreateGenerationRequest",
            "",
            f"REQUEST = {pformat(fields, width=WIDTH, sort_dicts=False)}",
            "",
            f"with Client({address}) as client:",
            "    created = client.music.CreateGeneration(ParseDict(REQUEST, CreateGenerationRequest()))",
            '    print(client.get(created.generation.id).wait().save("."))',
            "",
        )
    )


def _literal(value: object, indent: int) -> str:
    return pformat(value, width=WIDTH - indent, sort_dicts=False).replace("\n", "\n" + " " * indent)


def _options(request: CreateGenerationRequest) -> GenerationOptions:
    """Returns the options that say what the request does, as far as there are any."""
    sampling = request.sampling
    options: dict[str, Any] = {
        "duration": request.duration_seconds or None,
        "model": request.model_name,
        "seed": request.seed,
        "temperature": sampling.temperature if sampling.HasField("temperature") else None,
        "top_k": sampling.top_k if sampling.HasField("top_k") else None,
        "top_p": sampling.top_p if sampling.HasField("top_p") else None,
        "guidance": sampling.guidance_scale if sampling.HasField("guidance_scale") else None,
        "continue_from": request.continuation.source_id or None,
        "continue_seconds": request.continuation.seconds or None,
        **_conditioning(request.conditioning),
        "loop": request.loop.bars or None,
        "tempo": request.loop.bpm or None,
        "beats": request.loop.beats_per_bar or None,
        **_output(request.output),
    }
    return cast(GenerationOptions, {name: value for name, value in options.items() if value is not None})


def _conditioning(conditioning: Conditioning) -> dict[str, Any]:
    melody, style = conditioning.melody, conditioning.style
    return {
        "negative": conditioning.negative_prompt or None,
        "also": {one.prompt: one.weight for one in conditioning.further_prompts} or None,
        "sections": [(one.start_seconds, one.end_seconds, one.prompt) for one in conditioning.sections] or None,
        "melody": melody.source_id or None,
        "melody_start": melody.start_seconds or None,
        "style": style.source_id or None,
        "style_start": style.start_seconds or None,
        "text_guidance": style.text_guidance if style.HasField("text_guidance") else None,
        "adapters": {one.name: one.scale if one.HasField("scale") else 1.0 for one in conditioning.adapters} or None,
        "lyrics": conditioning.lyrics or None,
        "steps": conditioning.steps or None,
    }


def _output(output: OutputOptions) -> dict[str, Any]:
    loudness: object = None
    if output.WhichOneof("loudness") == "target_lufs":
        loudness = output.target_lufs
    elif output.profile:
        loudness = LoudnessProfile.Name(output.profile).removeprefix("LOUDNESS_PROFILE_").lower()
    return {
        "format": _FORMAT_NAMES.get(output.format) if output.format else None,
        "sample_rate": output.sample_rate_hz or None,
        "channels": output.channels or None,
        "bit_rate": output.bit_rate_kbps or None,
        "quality": output.quality if output.HasField("quality") else None,
        "loudness": loudness,
        "ceiling": output.ceiling_dbtp if output.HasField("ceiling_dbtp") else None,
    }


def _without_id(request: CreateGenerationRequest) -> CreateGenerationRequest:
    request.request_id = ""
    return request
