"""The clients of a soak: each creates one job, does with it what the schedule says, and notes what was acknowledged."""

from __future__ import annotations

import asyncio
import time

import grpc
import grpc.aio

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.storage.v1 import storage_pb2 as storage
from tests.soak.calls import PATIENCE_SECONDS, Caller, Pause, is_transient
from tests.soak.ledger import CANCELLED, COMPLETED, FAILED, PENDING, PROCESSING, Entry, Ledger
from tests.soak.listening import STREAM_SECONDS, Listener, download, sha256
from tests.soak.requests import build_request, second_request
from tests.soak.schedule import Job
from tests.soak.violation import Violation

REPEATED_AT_ONCE = 4
EDIT_SECONDS = 30.0
"""Limit for one try of a render or an edit of tags."""


class Client:
    """Carries out one job."""

    def __init__(self, job: Job, caller: Caller, ledger: Ledger) -> None:
        self._job, self._caller, self._ledger = job, caller, ledger

    async def run(self) -> None:
        """Returns when the job has ended and all is done with it. Raises Violation."""
        async with asyncio.TaskGroup() as tasks:
            for number, entry in enumerate(await self._create()):
                tasks.create_task(self._live_with(entry, set(self._job.deeds) if number == 0 else set()))

    async def _create(self) -> list[Entry]:
        job = self._job
        source = self._ledger.find_source(job) if job.shape not in ("new", "batch", "loop") else None
        request = build_request(job, source)
        requests = [request, second_request(request)] if job.shape == "batch" else [request]
        tries = REPEATED_AT_ONCE if "repeat" in job.deeds else 1
        answers = await asyncio.gather(*(self._create_once(requests) for _ in range(tries)))
        if len({tuple(one.id for one in answer) for answer in answers}) > 1:
            raise Violation("one request_id, several generations", f"job {job.number}", str(answers))
        self._ledger.counts[f"created: {job.shape}"] += 1
        for one in answers[0]:
            if one.request_id not in {request.request_id for request in requests}:
                raise Violation("wrong answer", f"job {job.number}", f"request_id {one.request_id}")
        entries = []
        for request, created in zip(requests, answers[0], strict=True):
            request.duration_seconds = created.duration_seconds
            entries.append(self._ledger.add(Entry(job, created.id, request, source)))
        return entries

    async def _create_once(self, requests: list[storage.CreateGenerationRequest]) -> list[storage.Generation]:
        subject = f"job {self._job.number}"
        if len(requests) == 1:
            return [(await self._caller.require("CreateGeneration", requests[0], subject)).generation]
        batch = storage.BatchCreateGenerationsRequest(requests=requests)
        return list((await self._caller.require("BatchCreateGenerations", batch, subject)).generations)

    async def _live_with(self, entry: Entry, deeds: set[str]) -> None:
        listeners = [Listener(self._caller, entry.id, 0)] if "listen" in deeds else []
        listening = [asyncio.create_task(one.listen()) for one in listeners]
        try:
            if deeds & {"cancel", "delete early", "listen"}:
                await asyncio.sleep(self._job.pause_seconds)
            if listeners:
                start_frame = int(self._job.position * entry.request.duration_seconds * 32_000)
                listeners.append(Listener(self._caller, entry.id, start_frame))
                listening.append(asyncio.create_task(listeners[1].listen()))
            if "cancel" in deeds:
                await self._cancel(entry)
            if "delete early" in deeds:
                await self._delete(entry)
            if not entry.is_deleted and await self._wait_until_ended(entry) == COMPLETED:
                await asyncio.gather(*listening)
                await self._check_heard(entry, listeners)
                await self._use(entry, deeds)
        finally:
            for task in listening:
                task.cancel()
            ended = await asyncio.gather(*listening, return_exceptions=True)
        for error in ended:
            if isinstance(error, Violation):
                raise error

    async def _cancel(self, entry: Entry) -> None:
        answer = await self._caller.call(
            "CancelGeneration", storage.CancelGenerationRequest(id=entry.id), entry.subject
        )
        if answer.response is not None:
            entry.state = CANCELLED
            self._ledger.counts["cancelled"] += 1
        elif answer.code is not grpc.StatusCode.FAILED_PRECONDITION:
            raise Violation("rejected", f"cancel of {entry.subject}", answer.message)
        elif answer.was_repeated:
            state = (await self._get(entry)).state
            entry.state = CANCELLED if state == CANCELLED else entry.state

    async def _delete(self, entry: Entry) -> None:
        answer = await self._caller.call(
            "DeleteGeneration", storage.DeleteGenerationRequest(id=entry.id), entry.subject
        )
        is_gone = answer.code is grpc.StatusCode.NOT_FOUND and answer.was_repeated
        if answer.response is not None or is_gone:
            entry.is_deleted = True
            self._ledger.counts["deleted"] += 1
        elif answer.code is not grpc.StatusCode.FAILED_PRECONDITION:
            raise Violation("rejected", f"deletion of {entry.subject}", f"{answer.code.name}: {answer.message}")

    async def _get(self, entry: Entry) -> storage.Generation:
        response = await self._caller.require("GetGeneration", storage.GetGenerationRequest(id=entry.id), entry.subject)
        return response.generation

    async def _wait_until_ended(self, entry: Entry) -> int:
        """Returns the final state. A FAILED generation that had one attempt is retried."""
        gives_up_at = time.monotonic() + PATIENCE_SECONDS
        while True:
            generation = await self._watch(entry, gives_up_at)
            if generation.state == COMPLETED and entry.state != CANCELLED:
                entry.state = COMPLETED
                self._ledger.counts["completed"] += 1
                self._ledger.counts["attempts"] += generation.attempt
                return COMPLETED
            if generation.state == CANCELLED == entry.state:
                return CANCELLED
            if generation.state != FAILED or not self._job.max_attempts:
                state = storage.GenerationState.Name(generation.state)
                raise Violation("wrong final state", entry.subject, f"{state} {generation.error_message}")
            answer = await self._caller.call(
                "RetryGeneration", storage.RetryGenerationRequest(id=entry.id), entry.subject
            )
            if answer.response is None and not answer.was_repeated:
                raise Violation("rejected", f"retry of {entry.subject}", answer.message)
            self._ledger.counts["retried"] += 1

    async def _watch(self, entry: Entry, gives_up_at: float) -> storage.Generation:
        pause = Pause(f"WatchGeneration of {entry.subject}")
        generation = storage.Generation()
        while time.monotonic() < gives_up_at:
            try:
                watch = self._caller.music.WatchGeneration(
                    storage.WatchGenerationRequest(id=entry.id), timeout=STREAM_SECONDS
                )
                async for response in watch:
                    generation = response.generation
                if generation.state not in (PENDING, PROCESSING):
                    return generation
            except grpc.aio.AioRpcError as error:
                if not is_transient(error, entry.subject):
                    raise Violation("lost", entry.subject, f"{error.code().name}: {error.details()}") from error
                await pause.after(error)
        raise Violation("not finished", entry.subject, " ".join(str(generation).split())[-600:])

    async def _check_heard(self, entry: Entry, listeners: list[Listener]) -> None:
        """Compares what was heard with what export has received, and one listener with the other."""
        complete = [one for one in listeners if one.has_ended]
        self._ledger.counts["listeners that missed some"] += len(listeners) - len(complete)
        self._ledger.counts["listeners"] += len(complete)
        metadata = (await self._get(entry)).metadata if complete else {}
        for one in complete:
            if one.start_byte == 0 and one.level == audio_pb2.AUDIO_LEVEL_LIVE:
                self._ledger.counts["listeners compared with the samples received"] += 1
                if sha256(one.pcm) != metadata["pcm_sha256"]:
                    raise Violation("heard other samples", entry.subject, f"{len(one.pcm)} bytes")
        if len(complete) == 2 and complete[0].level == complete[1].level:
            self._ledger.counts["listeners compared with each other"] += 1
            whole, part = complete
            if whole.pcm[part.start_byte :] != part.pcm:
                raise Violation("listeners disagree", entry.subject, f"{len(whole.pcm)} and {len(part.pcm)} bytes")

    async def _use(self, entry: Entry, deeds: set[str]) -> None:
        """What users do with finished music."""
        if "rate" in deeds:
            rating = 1 + self._job.number % 5
            request = storage.RateGenerationRequest(id=entry.id, rating=rating)
            await self._caller.require("RateGeneration", request, entry.subject)
            entry.rating = rating
        if "tags" in deeds:
            edit = export.EditTagsRequest(generation_id=entry.id, title=f"Take {self._job.number}")
            await self._caller.require("EditTags", edit, entry.subject, EDIT_SECONDS)
            entry.title = edit.title
            self._ledger.counts["tags edited"] += 1
        if "render" in deeds:
            await self._render(entry)
        if "download" in deeds:
            data = await download(self._caller, entry.id)
            if data is None or sha256(data) != (await self._get(entry)).metadata["file_sha256"]:
                raise Violation("downloaded another file", entry.subject)
            self._ledger.counts["downloads"] += 1
        if "delete" in deeds:
            await self._delete(entry)
            if not entry.is_deleted:
                raise Violation("rejected", f"deletion of {entry.subject}", "it was COMPLETED")

    async def _render(self, entry: Entry) -> None:
        output = audio_pb2.OutputOptions(format=audio_pb2.FILE_FORMAT_FLAC_16, sample_rate_hz=16_000)
        request = export.RenderRequest(generation_id=entry.id, output=output)
        first, second = [await self._caller.require("Render", request, entry.subject, EDIT_SECONDS) for _ in range(2)]
        if first.render_id != second.render_id:
            raise Violation("rendered twice", entry.subject)
        data = await download(self._caller, entry.id, first.render_id)
        if data is None or sha256(data) != second.file.file_sha256:
            raise Violation("downloaded another file", f"render of {entry.subject}")
        entry.renders.add(first.render_id)
        self._ledger.counts["renders"] += 1
