"""The contract's messages ↔ the domain's types."""

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
from storage_service.domain.continuation import Continuation
from storage_service.domain.creation import NewGeneration
from storage_service.domain.leases import Completion
from storage_service.domain.listing import GenerationFilter, PromptOrder
from storage_service.domain.statistics import Figures, Statistics
from storage_service.states import DELETABLE, GenerationStage, GenerationStatus

STATE_NAMES = {status: f"GENERATION_STATE_{status.name}" for status in GenerationStatus}
STATUS_OF = {storage_pb2.GenerationState.Value(name): status for status, name in STATE_NAMES.items()}

STAGE_NAMES = {stage.value: f"GENERATION_STAGE_{stage.name}" for stage in GenerationStage}
STAGE_OF = {storage_pb2.GenerationStage.Value(name): GenerationStage(stage) for stage, name in STAGE_NAMES.items()}

ORDER_OF = {
    storage_pb2.PROMPT_ORDER_UNSPECIFIED: PromptOrder.MOST_USED,
    storage_pb2.PROMPT_ORDER_MOST_USED: PromptOrder.MOST_USED,
    storage_pb2.PROMPT_ORDER_MOST_RECENT: PromptOrder.MOST_RECENT,
}


def generation_message(generation: Generation) -> storage_pb2.Generation:
    """All of a row that the contract shows."""
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
        output=_output_message(generation.output),
        file_path=generation.file_path or "",
        file_size_bytes=generation.file_size_bytes or 0,
        created_at=timestamp(generation.created_at),
        started_at=timestamp(generation.started_at),
        completed_at=timestamp(generation.completed_at),
        generation_time_seconds=generation.generation_time_seconds or 0.0,
        error_message=generation.error_message or "",
        metadata=_struct(generation.metadata_),
        request_id=generation.request_id or "",
        attempt=generation.attempt,
        max_attempts=generation.max_attempts,
        not_before=timestamp(generation.not_before),
        worker_id=generation.worker_id or "",
        stage=STAGE_NAMES.get(generation.stage or ""),
        progress=generation.progress,
        sampling=_sampling_message(generation.sampling),
        continuation=_continuation_message(generation.continuation),
        priority=generation.priority,
    )


def prompt_message(prompt: Prompt) -> storage_pb2.Prompt:
    """A row of prompts."""
    return storage_pb2.Prompt(
        id=prompt.id,
        text=prompt.text,
        used_count=prompt.used_count,
        first_used_at=timestamp(prompt.first_used_at),
        last_used_at=timestamp(prompt.last_used_at),
    )


def statistics_message(got: Statistics) -> storage_pb2.GetStatisticsResponse:
    """The figures of all, of each model and of each day."""
    return storage_pb2.GetStatisticsResponse(
        total_generations=got.overall.total_generations,
        total_prompts=got.total_prompts,
        oldest_pending_seconds=got.oldest_pending_seconds,
        models=[
            storage_pb2.ModelStatistics(model_name=name, **_figures(figures)) for name, figures in got.by_model.items()
        ],
        days=[
            storage_pb2.DayStatistics(
                date=day.date.isoformat(),
                **{f"{status.value}_generations": count for status, count in day.finished.items()},
                completed_audio_seconds=day.audio_seconds,
                completed_file_bytes=day.file_bytes,
            )
            for day in got.days
        ],
        **_figures(got.overall),
    )


def new_generation(request: storage_pb2.CreateGenerationRequest) -> NewGeneration:
    """What is asked for; its ranges are the domain's to check."""
    return NewGeneration(
        prompt=request.prompt,
        model_name=request.model_name,
        duration_seconds=request.duration_seconds,
        sample_rate=request.sample_rate_hz,
        channels=request.channels,
        seed=request.seed if request.HasField("seed") else None,
        output=output_options_from_proto(request.output, "output"),
        sampling={field.name: value for field, value in request.sampling.ListFields()},
        continuation=_continuation(request),
        metadata=mapping("metadata", request.metadata),
        priority=request.priority,
        max_attempts=request.max_attempts or None,
        request_id=request.request_id or None,
    )


def new_generations(request: storage_pb2.BatchCreateGenerationsRequest) -> list[NewGeneration]:
    """What is asked for one by one; errors name the request."""
    news = []
    for index, one in enumerate(request.requests):
        try:
            news.append(new_generation(one))
        except InvalidArgument as error:
            raise InvalidArgument(f"requests[{index}].{error.field}", error.problem) from error
    return news


def completion(request: storage_pb2.CompleteGenerationRequest) -> Completion:
    """What the worker says of the file."""
    return Completion(
        file_path=request.file_path,
        file_size_bytes=request.file_size_bytes,
        generation_time_seconds=request.generation_time_seconds,
        model_version=request.model_version,
        metadata=mapping("metadata", request.metadata),
    )


def generation_filter(request: storage_pb2.ListGenerationsRequest) -> GenerationFilter:
    """What a list is narrowed to."""
    statuses = []
    for index, state in enumerate(request.states):
        if state not in STATUS_OF:
            raise InvalidArgument(f"states[{index}]", f"is {state}, which is no state of a generation")
        statuses.append(STATUS_OF[state])
    return GenerationFilter(
        statuses=statuses,
        model_name=request.model_name,
        prompt_contains=request.prompt_contains,
        created_after=_moment("created_after", request) if request.HasField("created_after") else None,
        created_before=_moment("created_before", request) if request.HasField("created_before") else None,
    )


def deletable(request: storage_pb2.DeleteGenerationRequest) -> frozenset[GenerationStatus]:
    """The states in which it is to be deleted. InvalidArgument where that is none."""
    if request.state == storage_pb2.GENERATION_STATE_UNSPECIFIED:
        return DELETABLE
    status = STATUS_OF.get(request.state)
    if status not in DELETABLE:
        raise InvalidArgument("state", f"is {request.state}, which is no state that a generation can be deleted in")
    return frozenset({status})


def stage(request: storage_pb2.RenewLeaseRequest) -> GenerationStage | None:
    """The stage; None where none was sent."""
    if request.stage == storage_pb2.GENERATION_STAGE_UNSPECIFIED:
        return None
    if request.stage not in STAGE_OF:
        raise InvalidArgument("stage", f"is {request.stage}, which is no stage of a generation")
    return STAGE_OF[request.stage]


def prompt_order(request: storage_pb2.ListPromptsRequest) -> PromptOrder:
    """The order; most used first where none was sent."""
    if request.order not in ORDER_OF:
        raise InvalidArgument("order", f"is {request.order}, which is no order of prompts")
    return ORDER_OF[request.order]


def mapping(field: str, message: Struct) -> dict[str, Any]:
    """What JSON has in the message's place."""
    try:
        return json_format.MessageToDict(message)
    except (ValueError, json_format.Error) as error:
        raise InvalidArgument(field, f"is not what JSON can hold: {error}") from error


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment as protobuf has it."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def _moment(field: str, request: storage_pb2.ListGenerationsRequest) -> datetime:
    try:
        moment: datetime = getattr(request, field).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(field, f"is not a moment from year 1 to 9999: {error}") from error
    return moment


def _figures(figures: Figures) -> dict[str, Any]:
    """The fields that the figures of all and those of one model have in common."""
    p50, p90, p99 = figures.percentiles
    return {
        **{f"{status.value}_generations": count for status, count in figures.by_status.items()},
        "completed_audio_seconds": figures.completed_audio_seconds,
        "completed_file_bytes": figures.completed_file_bytes,
        "mean_generation_time_seconds": figures.mean_generation_time_seconds,
        "generation_time_percentiles": storage_pb2.GenerationTimePercentiles(
            p50_seconds=p50, p90_seconds=p90, p99_seconds=p99
        ),
    }


def _output_message(kept: Mapping[str, Any] | None) -> audio_pb2.OutputOptions | None:
    return output_options_to_proto(OutputOptions.from_dict(dict(kept))) if kept else None


def _sampling_message(sampling: Mapping[str, Any] | None) -> storage_pb2.SamplingParameters | None:
    return storage_pb2.SamplingParameters(**sampling) if sampling else None


def _continuation_message(kept: Mapping[str, Any] | None) -> storage_pb2.Continuation | None:
    return storage_pb2.Continuation(**kept) if kept else None


def _continuation(request: storage_pb2.CreateGenerationRequest) -> Continuation | None:
    if not request.HasField("continuation"):
        return None
    return Continuation(request.continuation.source_id, request.continuation.seconds)


def _struct(values: Mapping[str, Any]) -> Struct:
    message = Struct()
    json_format.ParseDict(dict(values), message)
    return message
