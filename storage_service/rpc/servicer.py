"""The gRPC servicer: converts each request, calls the domain and converts the result."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session
from structlog.contextvars import bind_contextvars

from dgx_music.access.v1 import access_pb2
from dgx_music.errors import NotFound
from dgx_music.storage.v1 import storage_pb2, storage_pb2_grpc
from service_runtime.access.caller import current_caller
from service_runtime.observability.logging import get_logger
from service_runtime.observability.tracing import find_trace_parent
from service_runtime.rpc.paging import Page
from service_runtime.validation import check_prompt
from storage_service.async_store import Store
from storage_service.domain import creation, leases, lifecycle, lineage, listing, prompts, queue_metrics, token_registry
from storage_service.domain.comparisons.comparison_creation import create_comparison
from storage_service.domain.comparisons.comparison_listing import list_comparisons
from storage_service.domain.queue_limits import QueueLimits
from storage_service.domain.request_validation import check_model_names
from storage_service.domain.row_insertion import Origin
from storage_service.domain.sharing import job_checkpoints
from storage_service.domain.sharing.hand_back import hand_back
from storage_service.domain.sharing.preemption import Preemption
from storage_service.domain.statistics import compute_statistics
from storage_service.rpc import comparison_converters, converters, token_converters
from storage_service.rpc.generation_watch import watch_generation
from storage_service.rpc.shaping_converters import node_to_proto

if TYPE_CHECKING:
    import grpc.aio

    Context = grpc.aio.ServicerContext[Any, Any]

log = get_logger(__name__)

_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class StorageServicer(storage_pb2_grpc.StorageServiceServicer):
    """Implements dgx_music.storage.v1.StorageService on a store."""

    def __init__(self, store: Store, max_attempts: int, limits: QueueLimits, preemption: Preemption) -> None:
        self._store, self._preemption = store, preemption
        self._max_attempts, self._limits = max_attempts, limits

    async def CreateGeneration(
        self, request: storage_pb2.CreateGenerationRequest, context: Context
    ) -> storage_pb2.CreateGenerationResponse:
        new, origin = converters.new_generation_from_proto(request), _origin_of(context)
        row = await self._store.write(
            lambda s: creation.create(s, new, max_attempts=self._max_attempts, origin=origin, limits=self._limits)
        )
        bind_contextvars(generation_id=row.id)
        log.info("created", generation_id=row.id, model=row.model_name, seconds=row.duration_seconds)
        return storage_pb2.CreateGenerationResponse(generation=converters.generation_to_proto(row))

    async def BatchCreateGenerations(
        self, request: storage_pb2.BatchCreateGenerationsRequest, context: Context
    ) -> storage_pb2.BatchCreateGenerationsResponse:
        requests, origin = converters.new_generations_from_proto(request), _origin_of(context)
        rows = await self._store.write(
            lambda s: creation.create_all(
                s, requests, max_attempts=self._max_attempts, origin=origin, limits=self._limits
            )
        )
        log.info("created", generations=len(rows))
        return storage_pb2.BatchCreateGenerationsResponse(generations=map(converters.generation_to_proto, rows))

    async def GetGeneration(
        self, request: storage_pb2.GetGenerationRequest, context: Context
    ) -> storage_pb2.GetGenerationResponse:
        row = await self._store.read(lambda s: lifecycle.get(s, request.id))
        return storage_pb2.GetGenerationResponse(generation=converters.generation_to_proto(row))

    async def GetLineage(
        self, request: storage_pb2.GetLineageRequest, context: Context
    ) -> storage_pb2.GetLineageResponse:
        nodes, is_truncated = await self._store.read(lambda s: lineage.read_lineage(s, request.id))
        return storage_pb2.GetLineageResponse(nodes=map(node_to_proto, nodes), is_truncated=is_truncated)

    async def ListGenerations(
        self, request: storage_pb2.ListGenerationsRequest, context: Context
    ) -> storage_pb2.ListGenerationsResponse:
        filters, page = converters.generation_filter_from_proto(request), Page(request.page_size, request.page_token)
        rows, token = await self._store.read(lambda s: listing.list_generations(s, filters, page))
        return storage_pb2.ListGenerationsResponse(
            generations=map(converters.generation_to_proto, rows), next_page_token=token
        )

    async def ClaimGeneration(
        self, request: storage_pb2.ClaimGenerationRequest, context: Context
    ) -> storage_pb2.ClaimGenerationResponse:
        row = await self._store.claim(
            request.worker_id, list(request.model_names), request.lease_seconds, request.wait_seconds
        )
        if row is None:
            return storage_pb2.ClaimGenerationResponse()
        queue_metrics.CLAIMS.inc()
        if row.attempt == 1 and row.started_at is not None:
            queue_metrics.QUEUE_SECONDS.observe(max(0.0, (row.started_at - row.created_at).total_seconds()))
        bind_contextvars(generation_id=row.id)
        try:
            checkpoint = b"" if row.attempt == 1 else await self._store.read(lambda s: job_checkpoints.read(s, row.id))
        except BaseException:
            self._store.hand_back_unanswered(row)
            raise
        log.info("claimed", generation_id=row.id, worker_id=row.worker_id, attempt=row.attempt)
        return storage_pb2.ClaimGenerationResponse(
            generation=converters.generation_to_proto(row),
            lease_token=row.lease_token or "",
            lease_expires_at=converters.timestamp_to_proto(row.lease_expires_at),
            trace_parent=row.trace_parent or "",
            checkpoint=checkpoint,
            weight=row.weight or 1.0,
        )

    async def RenewLease(
        self, request: storage_pb2.RenewLeaseRequest, context: Context
    ) -> storage_pb2.RenewLeaseResponse:
        stage = converters.stage_from_proto(request)
        lease = request.id, request.lease_token, request.lease_seconds
        if request.model_names:
            check_model_names("model_names", request.model_names)

        def renew(session: Session) -> tuple[datetime | None, str]:
            row = leases.renew(session, *lease, stage, request.progress, request.export_address)
            if row is None:
                return None, ""
            return row.lease_expires_at, self._preemption.find(session, row, request.model_names)

        expires_at, preempted_by = await self._store.write(renew)
        return storage_pb2.RenewLeaseResponse(
            cancelled=expires_at is None,
            lease_expires_at=converters.timestamp_to_proto(expires_at),
            preempted_by=preempted_by,
        )

    async def CompleteGeneration(
        self, request: storage_pb2.CompleteGenerationRequest, context: Context
    ) -> storage_pb2.CompleteGenerationResponse:
        completion = converters.completion_from_proto(request)
        row = await self._store.write(lambda s: leases.complete(s, request.id, request.lease_token, completion))
        queue_metrics.ATTEMPTS_ENDED.inc("completed")
        log.info("completed", generation_id=row.id, seconds=row.generation_time_seconds)
        return storage_pb2.CompleteGenerationResponse(generation=converters.generation_to_proto(row))

    async def FailGeneration(
        self, request: storage_pb2.FailGenerationRequest, context: Context
    ) -> storage_pb2.FailGenerationResponse:
        report, delay_seconds = (request.id, request.lease_token, request.error_message), request.retry_after_seconds
        if request.handed_back:
            checkpoint, preempted_by = request.checkpoint, request.preempted_by
            row = await self._store.write(
                lambda s: hand_back(
                    s, *report, checkpoint=checkpoint, preempted_by=preempted_by, retry_after_seconds=delay_seconds
                )
            )
            queue_metrics.ATTEMPTS_ENDED.inc("preempted" if preempted_by else "handed_back")
            log.info("handed_back", generation_id=row.id, reason=row.error_message, checkpoint_bytes=len(checkpoint))
        else:
            retryable = request.retryable
            row = await self._store.write(
                lambda s: leases.fail(s, *report, retryable=retryable, retry_after_seconds=delay_seconds)
            )
            queue_metrics.ATTEMPTS_ENDED.inc("failed" if row.is_finished else "retried")
            log.warning("attempt_failed", generation_id=row.id, state=row.status.value, error=row.error_message)
        return storage_pb2.FailGenerationResponse(generation=converters.generation_to_proto(row))

    async def CancelGeneration(
        self, request: storage_pb2.CancelGenerationRequest, context: Context
    ) -> storage_pb2.CancelGenerationResponse:
        row = await self._store.write(lambda s: lifecycle.cancel(s, request.id))
        log.info("cancelled", generation_id=row.id)
        return storage_pb2.CancelGenerationResponse(generation=converters.generation_to_proto(row))

    async def RetryGeneration(
        self, request: storage_pb2.RetryGenerationRequest, context: Context
    ) -> storage_pb2.RetryGenerationResponse:
        row = await self._store.write(lambda s: lifecycle.retry(s, request.id, self._max_attempts, limits=self._limits))
        log.info("retried", generation_id=row.id)
        return storage_pb2.RetryGenerationResponse(generation=converters.generation_to_proto(row))

    async def DeleteGeneration(
        self, request: storage_pb2.DeleteGenerationRequest, context: Context
    ) -> storage_pb2.DeleteGenerationResponse:
        states = converters.deletable_states_from_proto(request)
        await self._store.write(lambda s: lifecycle.remove(s, request.id, states))
        log.info("deleted", generation_id=request.id)
        return storage_pb2.DeleteGenerationResponse()

    async def UpdateMetadata(
        self, request: storage_pb2.UpdateMetadataRequest, context: Context
    ) -> storage_pb2.UpdateMetadataResponse:
        patch = converters.dict_from_proto("metadata", request.metadata)
        row = await self._store.write(lambda s: lifecycle.update_metadata(s, request.id, patch))
        return storage_pb2.UpdateMetadataResponse(generation=converters.generation_to_proto(row))

    async def RateGeneration(
        self, request: storage_pb2.RateGenerationRequest, context: Context
    ) -> storage_pb2.RateGenerationResponse:
        row = await self._store.write(lambda s: lifecycle.rate(s, request.id, request.rating))
        return storage_pb2.RateGenerationResponse(generation=converters.generation_to_proto(row))

    async def CreateComparison(
        self, request: storage_pb2.CreateComparisonRequest, context: Context
    ) -> storage_pb2.CreateComparisonResponse:
        new = comparison_converters.new_comparison_from_proto(request)
        row = await self._store.write(lambda s: create_comparison(s, new))
        return storage_pb2.CreateComparisonResponse(comparison=comparison_converters.comparison_to_proto(row))

    async def ListComparisons(
        self, request: storage_pb2.ListComparisonsRequest, context: Context
    ) -> storage_pb2.ListComparisonsResponse:
        page = Page(request.page_size, request.page_token)
        found = await self._store.read(lambda s: list_comparisons(s, request.generation_id, page))
        return comparison_converters.page_to_proto(*found)

    async def UpdateFile(
        self, request: storage_pb2.UpdateFileRequest, context: Context
    ) -> storage_pb2.UpdateFileResponse:
        changed = request.id, request.file_size_bytes, request.file_sha256
        previous = request.previous_file_sha256 if request.HasField("previous_file_sha256") else None
        patch = converters.dict_from_proto("metadata", request.metadata)
        row = await self._store.write(
            lambda s: lifecycle.update_file(s, *changed, previous_sha256=previous, patch=patch)
        )
        log.info("file_updated", generation_id=row.id, bytes=row.file_size_bytes)
        return storage_pb2.UpdateFileResponse(generation=converters.generation_to_proto(row))

    async def WatchGeneration(
        self, request: storage_pb2.WatchGenerationRequest, context: Context
    ) -> AsyncIterator[storage_pb2.WatchGenerationResponse]:
        async with aclosing(watch_generation(self._store, request)) as responses:
            async for response in responses:
                yield response

    async def GetPrompt(self, request: storage_pb2.GetPromptRequest, context: Context) -> storage_pb2.GetPromptResponse:
        check_prompt("text", request.text)
        prompt = await self._store.read(lambda s: prompts.find(s, request.text))
        if prompt is None:
            # Not quoted: errors are logged, and logs show no prompts.
            raise NotFound.received("there is no prompt with this text", reason="PROMPT_NOT_FOUND")
        return storage_pb2.GetPromptResponse(prompt=converters.prompt_to_proto(prompt))

    async def ListPrompts(
        self, request: storage_pb2.ListPromptsRequest, context: Context
    ) -> storage_pb2.ListPromptsResponse:
        order, page = converters.prompt_order_from_proto(request), Page(request.page_size, request.page_token)
        rows, token = await self._store.read(lambda s: listing.list_prompts(s, order, request.text_contains, page))
        return storage_pb2.ListPromptsResponse(prompts=map(converters.prompt_to_proto, rows), next_page_token=token)

    async def GetStatistics(
        self, request: storage_pb2.GetStatisticsRequest, context: Context
    ) -> storage_pb2.GetStatisticsResponse:
        return converters.statistics_to_proto(await self._store.read(lambda s: compute_statistics(s, request.days)))

    async def CreateToken(
        self, request: access_pb2.CreateTokenRequest, context: Context
    ) -> access_pb2.CreateTokenResponse:
        new = token_converters.new_token_from_proto(request)
        token, secret = await self._store.write(lambda s: token_registry.create_token(s, new))
        log.info("token_created", token_id=token.id, name=token.name, scope=token.granted_scope.name)
        return access_pb2.CreateTokenResponse(token=token_converters.token_to_proto(token), secret=secret)

    async def ListTokens(
        self, request: access_pb2.ListTokensRequest, context: Context
    ) -> access_pb2.ListTokensResponse:
        page = Page(request.page_size, request.page_token)
        rows, next_page = await self._store.read(lambda s: token_registry.list_tokens(s, page))
        return access_pb2.ListTokensResponse(
            tokens=map(token_converters.token_to_proto, rows), next_page_token=next_page
        )

    async def RevokeToken(
        self, request: access_pb2.RevokeTokenRequest, context: Context
    ) -> access_pb2.RevokeTokenResponse:
        token = await self._store.write(lambda s: token_registry.revoke_token(s, request.id))
        log.info("token_revoked", token_id=token.id, name=token.name)
        return access_pb2.RevokeTokenResponse(token=token_converters.token_to_proto(token))

    async def VerifyToken(
        self, request: access_pb2.VerifyTokenRequest, context: Context
    ) -> access_pb2.VerifyTokenResponse:
        token = await self._store.read(lambda s: token_registry.verify_token(s, request.id, request.secret_sha256))
        return access_pb2.VerifyTokenResponse(token=token_converters.token_to_proto(token))


def _origin_of(context: Context) -> Origin:
    """Returns for whom a call creates generations, and the trace that it is part of. A malformed trace is ignored."""
    trace_parent = find_trace_parent(context.invocation_metadata())
    return Origin(current_caller().client, trace_parent if _TRACE_PARENT.fullmatch(trace_parent) else None)
