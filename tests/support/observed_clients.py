"""`ObservedClients`: several clients that call storage servers at the same time, and a record of what each saw."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from tests.support.linearizability import ILLEGAL, NOT_FOUND, STALE, UNKNOWN, Observed

STATES = {number: name.removeprefix("GENERATION_STATE_").lower() for name, number in pb.GenerationState.items()}
CALL_SECONDS = 60.0
HASTY_SECONDS = 0.004
"""The deadline of a call whose caller gives up: often before the answer, sometimes before the call arrives."""
LONG_LEASE, SHORT_LEASE = 3600.0, 1.0
WAIT_SECONDS = 30.0
"""How long a patient claim waits, for the end of a lease or of a retry delay."""


class ObservedClients:
    """Clients of one or more servers. Each client takes one server after another."""

    def __init__(self, channels: Sequence[grpc.aio.Channel], model_name: str, request_id: str) -> None:
        self._stubs = [StorageServiceStub(channel) for channel in channels]
        self._model, self._request_id = model_name, request_id
        self.history: list[Observed] = []
        self.ids: list[str] = []
        self.leases: list[tuple[str, str]] = []

    async def run(self, scripts: Sequence[Sequence[str]]) -> None:
        """Lets one client for each script make its calls, all at the same time."""
        await asyncio.gather(*(self._run_one(number, script) for number, script in enumerate(scripts)))

    async def final(self) -> tuple[str, str, int] | None:
        """Returns id, status and attempt of the generation, if there is one."""
        listed = await self._stubs[0].ListGenerations(
            pb.ListGenerationsRequest(model_name=self._model, page_size=10), timeout=CALL_SECONDS
        )
        rows = [(row.id, STATES[row.state], row.attempt) for row in listed.generations]
        assert len(rows) <= 1, rows
        return rows[0] if rows else None

    async def _run_one(self, number: int, script: Sequence[str]) -> None:
        own: tuple[str, str] | None = None
        for step, word in enumerate(script):
            name, _, how = word.partition(" ")
            stub = self._stubs[(number + step) % len(self._stubs)]
            limit = HASTY_SECONDS if how == "hastily" else CALL_SECONDS
            lease = own or (self.leases[-1] if self.leases else None)
            if how == "late" and self.leases:  # By a worker whose lease has ended, unless it is still the only one.
                lease = self.leases[0]
            if name == "claim":
                seconds = SHORT_LEASE if how == "briefly" else LONG_LEASE
                wait_seconds = WAIT_SECONDS if how == "patiently" else 0.0
                claimed = await self._claim(stub, f"w{number}", seconds, wait_seconds, limit)
                own = claimed or own
            elif name == "create":
                await self._observe(name, (), self._create(stub, limit))
            elif name in ("renew", "complete", "fail", "give_up", "hand_back") and lease is not None:
                await self._use(stub, name, lease, limit)
            elif name in ("get", "cancel", "retry", "delete") and self.ids:
                await self._change(stub, name, self.ids[-1], limit)
            elif name == "expiry" and own is not None:
                await self._wait_for_expiry(stub, own[0])

    def _create(self, stub: StorageServiceStub, limit: float) -> Callable[[], Awaitable[str]]:
        async def call() -> str:
            request = pb.CreateGenerationRequest(
                request_id=self._request_id,
                prompt="a calm piano",
                model_name=self._model,
                duration_seconds=1,
                sample_rate_hz=32000,
                channels=2,
            )
            made = await stub.CreateGeneration(request, timeout=limit)
            if made.generation.id not in self.ids:
                self.ids.append(made.generation.id)
            return str(made.generation.id)

        return call

    async def _claim(
        self, stub: StorageServiceStub, worker: str, seconds: float, wait_seconds: float, limit: float
    ) -> tuple[str, str] | None:
        request = pb.ClaimGenerationRequest(
            worker_id=worker, model_names=[self._model], lease_seconds=seconds, wait_seconds=wait_seconds
        )

        async def call() -> Any:
            job = await stub.ClaimGeneration(request, timeout=limit)
            return (job.generation.id, job.lease_token, job.generation.attempt) if job.lease_token else None

        answer = await self._observe("claim", (seconds,), call)
        if answer is None or answer == UNKNOWN:
            return None
        self.leases.append(answer[:2])
        return self.leases[-1]

    async def _use(self, stub: StorageServiceStub, name: str, lease: tuple[str, str], limit: float) -> None:
        key, token = lease

        async def renew() -> str:
            request = pb.RenewLeaseRequest(id=key, lease_token=token, lease_seconds=LONG_LEASE, progress=0.5)
            return "stop" if (await stub.RenewLease(request, timeout=limit)).cancelled else "renewed"

        async def complete() -> str:
            request = pb.CompleteGenerationRequest(
                id=key, lease_token=token, file_path=f"{token}.wav", file_size_bytes=1, generation_time_seconds=1
            )
            return STATES[(await stub.CompleteGeneration(request, timeout=limit)).generation.state]

        async def fail() -> str:
            request = pb.FailGenerationRequest(
                id=key,
                lease_token=token,
                error_message="it broke",
                retryable=name == "fail",
                handed_back=name == "hand_back",
            )
            return STATES[(await stub.FailGeneration(request, timeout=limit)).generation.state]

        match name:
            case "renew":
                await self._observe(name, (key, token, LONG_LEASE), renew)
            case "complete":
                await self._observe(name, (key, token), complete)
            case "hand_back":
                await self._observe(name, (key, token), fail)
            case _:
                await self._observe("fail", (key, token, name == "fail"), fail)

    async def _change(self, stub: StorageServiceStub, name: str, key: str, limit: float) -> None:
        async def call() -> Any:
            match name:
                case "get":
                    row = (await stub.GetGeneration(pb.GetGenerationRequest(id=key), timeout=limit)).generation
                    return STATES[row.state], row.attempt
                case "cancel":
                    done = await stub.CancelGeneration(pb.CancelGenerationRequest(id=key), timeout=limit)
                case "retry":
                    done = await stub.RetryGeneration(pb.RetryGenerationRequest(id=key), timeout=limit)
                case _:
                    await stub.DeleteGeneration(pb.DeleteGenerationRequest(id=key), timeout=limit)
                    return "gone"
            return STATES[done.generation.state]

        await self._observe(name, (key,), call)

    async def _wait_for_expiry(self, stub: StorageServiceStub, key: str) -> None:
        """Waits until no worker holds the generation: nobody but the sweeper of a server may end a lease."""
        async for change in stub.WatchGeneration(pb.WatchGenerationRequest(id=key), timeout=CALL_SECONDS):
            if change.generation.state != pb.GENERATION_STATE_PROCESSING:
                return

    async def _observe(self, name: str, arguments: tuple[Any, ...], call: Callable[[], Awaitable[Any]]) -> Any:
        began = time.monotonic()
        try:
            answer = await call()
        except grpc.aio.AioRpcError as error:
            answer = error.code().name
            if error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                answer = UNKNOWN
            elif answer not in (NOT_FOUND, ILLEGAL, STALE):
                raise
        ended = math.inf if answer == UNKNOWN else time.monotonic()
        if answer is not None:  # A claim that found nothing says nothing about a single generation.
            self.history.append(Observed(name, arguments, answer, began, ended))
        return answer
