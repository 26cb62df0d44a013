"""Jobs during an outage of storage or export."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from dgx_music.error_status import PLAIN_MESSAGES
from dgx_music.storage.v1 import storage_pb2 as pb
from generation_service.worker import job, worker
from tests.support.service_stack import is_pending_after
from tests.support.tone_model import Gate


async def test_expired_lease_stops_the_engine_while_storage_is_down(stack):
    await stack.start("storage", "export")
    await stack.start("generation", lease_seconds=2)
    gate = stack.model.at["a", 3] = Gate()
    await stack.create(seconds=3600)
    await gate.reached()
    await stack.stop("storage")
    gate.open()
    await stack.model.release_of("a")


@pytest.mark.slow
async def test_export_outage_costs_no_attempt_of_a_waiting_job(stack, monkeypatch):
    claim_failed = asyncio.Event()
    monkeypatch.setattr(worker.log, "warning", lambda *_, **__: claim_failed.set(), raising=False)
    await stack.start("storage")
    generation_id = await stack.create()
    await stack.start("generation")
    await claim_failed.wait()
    waiting = await stack.get(generation_id)
    assert (waiting.state, waiting.attempt) == (pb.GENERATION_STATE_PENDING, 0)
    await stack.start("export")
    done = await stack.wait_until_ended(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 1)


@pytest.mark.slow
async def test_job_claimed_while_export_went_away_is_handed_back(services):
    """The claim that waits for a job may have begun before the outage."""
    await services.wait_until_ended(await services.create("b"))  # Meanwhile, the worker makes its next claim.
    await services.stop("export")
    generation_id = await services.create(max_attempts=1)
    waiting = await services.wait_until(generation_id, is_pending_after(1))
    assert waiting.error_message == f"export: {PLAIN_MESSAGES[grpc.StatusCode.UNAVAILABLE]} (UNAVAILABLE)"
    await services.start("export")
    done = await services.wait_until_ended(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)


async def test_export_outage_during_the_stream_costs_no_attempt(services):
    gate = services.model.at["a", 3] = Gate()
    generation_id = await services.create(seconds=0.8)
    await gate.reached()
    await services.stop("export")
    gate.open()
    waiting = await services.wait_until(generation_id, is_pending_after(1))
    assert waiting.error_message.startswith("export: ")
    await services.start("export")
    done = await services.wait_until_ended(generation_id)
    assert (done.state, done.attempt, done.max_attempts) == (pb.GENERATION_STATE_COMPLETED, 2, 4)


async def test_completion_is_retried_until_storage_is_back(services):
    gate = services.model.at["a", 5] = Gate()
    generation_id = await services.create(seconds=0.5)
    await gate.reached()
    await services.stop("storage")
    gate.open()
    await services.model.release_of("a")
    await services.start("storage")
    done = await services.wait_until_ended(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 1)


async def test_storage_outage_longer_than_the_lease_costs_one_attempt(stack, monkeypatch):
    monkeypatch.setattr(job, "DELETION_PATIENCE_SECONDS", 0.5)  # Else it asks for a minute whether to delete.
    await stack.start("storage", "export")
    await stack.start("generation", lease_seconds=2)
    gate = stack.model.at["a", 5] = Gate()
    generation_id = await stack.create(seconds=0.5)
    await gate.reached()
    await stack.stop("storage")
    gate.open()
    await stack.wait_for_jobs()
    await stack.start("storage")
    done = await stack.wait_until_ended(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)


async def test_worker_claims_once_storage_has_started(stack):
    await stack.start("export", "generation")
    await stack.start("storage")
    assert (await stack.wait_until_ended(await stack.create())).state == pb.GENERATION_STATE_COMPLETED
