"""Conversion between protobuf messages and the domain's types."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from dgx_music.audio.v1 import audio_pb2
from dgx_music.errors import InvalidArgument
from dgx_music.storage.v1 import storage_pb2
from service_runtime.audio.output_options import OutputOptions
from service_runtime.rpc.output_converters import output_options_from_proto, output_options_to_proto
from storage_service.db.models import Generation, Prompt
from storage_service.domain.creation import NewGeneration
from storage_service.domain.leases import Completion
from storage_service.domain.listing import GenerationFilter, PromptOrder
from storage_service.domain.statistics import GenerationTotals, Statistics
from storage_service.rpc.shaping_converters import shaping_from_proto, shaping_to_proto
from storage_service.states import DELETABLE_STATES, GenerationStage, GenerationStatus

STATE_NAMES = {status: f"GENERATION_STATE_{status.name}" for status in GenerationStatus}
STATUS_BY_STATE = {storage_pb2.GenerationState.Value(name): status for status, name in STATE_NAMES.items()}

STAGE_NAMES = {stage.value: f"GENERATION_STAGE_{stage.name}" for stage in GenerationStage}
STAGE_BY_NUMBER = {
    storage_pb2.GenerationStage.Value(name): GenerationStage(stage) for stage, name in STAGE_NAMES.items()
}

ORDER_BY_NUMBER = {
    storage_pb2.PROMPT_ORDER_UNSPECIFIED: PromptOrder.MOST_USED,
    storage_pb2.PROMPT_ORDER_MOST_USED: PromptOrder.MOST_USED,
    storage_pb2.PROMPT_ORDER_MOST_RECENT: PromptOrder.MOST_RECENT,
}


def generation_to_proto(generation: Generation) -> storage_pb2.Generation:
    """Converts a row of generations, without its private columns."""
    return storage_pb2.Generation(
        id=generation.id,
        state=STATE_NAMES[generation.status],
        prompt=generation.prompt,
        model_name=generation.model_name,
        model_version=generation.model_version or "",
        duration_seconds=generation.duration_seconds,
        sample_rate_hz=generation.sample_rate,
        channels=generation.channels,
        seed=generation.seed,
        output=_output_to_proto(generation.output),
        file_path=generation.file_path or "",
        file_size_bytes=generation.file_size_bytes or 0,
        created_at=timestamp_to_proto(generation.created_at),
        started_at=timestamp_to_proto(generation.started_at),
        completed_at=timestamp_to_proto(generation.completed_at),
        generation_time_seconds=generation.generation_time_seconds or 0.0,
        error_message=generation.error_message or "",
        metadata=_struct_to_proto(generation.metadata_),
        request_id=generation.request_id or "",
        attempt=generation.attempt,
        max_attempts=generation.max_attempts,
        not_before=timestamp_to_proto(generation.not_before),
        worker_id=generation.worker_id or "",
        stage=STAGE_NAMES.get(generation.stage or ""),
        progress=generation.progress,
        sampling=_sampling_to_proto(generation.sampling),
        **shaping_to_proto(generation),
        priority=generation.priority,
        rating=generation.rating or 0,
        client=generation.client or "",
        export_address=generation.export_address or "",
    )


def prompt_to_proto(prompt: Prompt) -> storage_pb2.Prompt:
    """Converts a row of prompts."""
    return storage_pb2.Prompt(
        id=prompt.id,
        text=prompt.text,
        used_count=prompt.used_count,
        first_used_at=timestamp_to_proto(prompt.first_used_at),
        last_used_at=timestamp_to_proto(prompt.last_used_at),
    )


def statistics_to_proto(statistics: Statistics) -> storage_pb2.GetStatisticsResponse:
    """Converts the totals of all models, of each model and of each day."""
    return storage_pb2.GetStatisticsResponse(
        total_generations=statistics.overall.total_generations,
        total_prompts=statistics.total_prompts,
        oldest_pending_seconds=statistics.oldest_pending_seconds,
        models=[
            storage_pb2.ModelStatistics(model_name=name, **_totals_fields(totals))
            for name, totals in statistics.by_model.items()
        ],
        days=[
            storage_pb2.DayStatistics(
                date=day.date.isoformat(),
                **{f"{status.value}_generations": count for status, count in day.finished.items()},
                completed_audio_seconds=day.audio_seconds,
                completed_file_bytes=day.file_bytes,
            )
            for day in statistics.days
        ],
        **_totals_fields(statistics.overall),
    )


def new_generation_from_proto(request: storage_pb2.CreateGenerationRequest) -> NewGeneration:
    """Converts a request. The domain checks the ranges."""
    return NewGeneration(
        prompt=request.prompt,
        model_name=request.model_name,
        duration_seconds=request.duration_seconds,
        sample_rate=request.sample_rate_hz,
        channels=request.channels,
        seed=request.seed if request.HasField("seed") else None,
        output=output_options_from_proto(request.output, "output"),
        sampling={field.name: value for field, value in request.sampling.ListFields()},
        **shaping_from_proto(request),
        metadata=dict_from_proto("metadata", request.metadata),
        priority=request.priority,
        max_attempts=request.max_attempts or None,
        request_id=request.request_id or None,
    )


def new_generations_from_proto(request: storage_pb2.BatchCreateGenerationsRequest) -> list[NewGeneration]:
    """Converts a batch of requests. Errors name the request as "requests[2]"."""
    generations = []
    for index, one in enumerate(request.requests):
        try:
            generations.append(new_generation_from_proto(one))
        except InvalidArgument as error:
            raise InvalidArgument(f"requests[{index}].{error.field}", error.problem) from error
    return generations


def completion_from_proto(request: storage_pb2.CompleteGenerationRequest) -> Completion:
    """Converts what the worker reports about the file."""
    return Completion(
        file_path=request.file_path,
        file_size_bytes=request.file_size_bytes,
        generation_time_seconds=request.generation_time_seconds,
        model_version=request.model_version,
        metadata=dict_from_proto("metadata", request.metadata),
    )


def generation_filter_from_proto(request: storage_pb2.ListGenerationsRequest) -> GenerationFilter:
    """Converts the filters of a list. Raises InvalidArgument for an unknown state or an invalid timestamp."""
    statuses = []
    for index, state in enumerate(request.states):
        if state not in STATUS_BY_STATE:
            raise InvalidArgument(f"states[{index}]", f"{state} is not a state of a generation")
        statuses.append(STATUS_BY_STATE[state])
    return GenerationFilter(
        statuses=statuses,
        model_name=request.model_name,
        prompt_contains=request.prompt_contains,
        created_after=_timestamp_from_proto("created_after", request) if request.HasField("created_after") else None,
        created_before=_timestamp_from_proto("created_before", request) if request.HasField("created_before") else None,
        min_rating=request.min_rating,
        client=request.client,
        min_bpm=request.min_bpm,
        max_bpm=request.max_bpm,
        key=request.key,
    )


def deletable_states_from_proto(request: storage_pb2.DeleteGenerationRequest) -> frozenset[GenerationStatus]:
    """Returns the states in which to delete. Raises InvalidArgument if deletion is not allowed in the given state."""
    if request.state == storage_pb2.GENERATION_STATE_UNSPECIFIED:
        return DELETABLE_STATES
    status = STATUS_BY_STATE.get(request.state)
    if status not in DELETABLE_STATES:
        raise InvalidArgument("state", f"{request.state} is not a state in which a generation can be deleted")
    return frozenset({status})


def stage_from_proto(request: storage_pb2.RenewLeaseRequest) -> GenerationStage | None:
    """Returns the stage, or None if none was sent."""
    if request.stage == storage_pb2.GENERATION_STAGE_UNSPECIFIED:
        return None
    if request.stage not in STAGE_BY_NUMBER:
        raise InvalidArgument("stage", f"{request.stage} is not a stage of a generation")
    return STAGE_BY_NUMBER[request.stage]


def prompt_order_from_proto(request: storage_pb2.ListPromptsRequest) -> PromptOrder:
    """Returns the order, by default most used first."""
    if request.order not in ORDER_BY_NUMBER:
        raise InvalidArgument("order", f"{request.order} is not an order of prompts")
    return ORDER_BY_NUMBER[request.order]


def dict_from_proto(field: str, message: Struct) -> dict[str, Any]:
    """Converts a Struct. Raises InvalidArgument if it contains what JSON can't represent, such as infinity."""
    try:
        return json_format.MessageToDict(message)
    except (ValueError, json_format.Error) as error:
        raise InvalidArgument(field, f"can't be represented as JSON: {error}") from error


def timestamp_to_proto(value: datetime | None) -> Timestamp | None:
    """Converts a timestamp; None stays None."""
    if value is None:
        return None
    message = Timestamp()
    message.FromDatetime(value)
    return message


def _timestamp_from_proto(field: str, request: storage_pb2.ListGenerationsRequest) -> datetime:
    try:
        value: datetime = getattr(request, field).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(field, f"is not a timestamp from year 1 to 9999: {error}") from error
    return value


def _totals_fields(totals: GenerationTotals) -> dict[str, Any]:
    """Returns the fields that the totals of all models and those of one model share."""
    p50, p90, p99 = totals.percentiles
    return {
        **{f"{status.value}_generations": count for status, count in totals.by_status.items()},
        "completed_audio_seconds": totals.completed_audio_seconds,
        "completed_file_bytes": totals.completed_file_bytes,
        "mean_generation_time_seconds": totals.mean_generation_time_seconds,
        "generation_time_percentiles": storage_pb2.GenerationTimePercentiles(
            p50_seconds=p50, p90_seconds=p90, p99_seconds=p99
        ),
    }


def _output_to_proto(stored: Mapping[str, Any] | None) -> audio_pb2.OutputOptions | None:
    return output_options_to_proto(OutputOptions.from_dict(dict(stored))) if stored else None


def _sampling_to_proto(sampling: Mapping[str, Any] | None) -> storage_pb2.SamplingParameters | None:
    return storage_pb2.SamplingParameters(**sampling) if sampling else None


def _struct_to_proto(values: Mapping[str, Any]) -> Struct:
    message = Struct()
    json_format.ParseDict(dict(values), message)
    return message
