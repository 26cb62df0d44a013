"""Holds what is left after a soak to what was acknowledged."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import grpc
import numpy as np
import soundfile

from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1.conditioning_pb2 import EDIT_KIND_EXTEND_LEFT, EDIT_KIND_EXTEND_RIGHT
from gateway.cli.commands.database.db_check import find_problems
from service_runtime.generated_length import EDIT_ALIGNMENT_SECONDS, EDIT_JOINT_SECONDS, EDIT_LEAD_SECONDS
from storage_service.db.database import Database
from tests.soak.calls import Caller
from tests.soak.ledger import COMPLETED, Entry, Ledger
from tests.soak.violation import Violation

PAGE_SIZE = 1000
MAX_SHOWN_CHARACTERS = 500
SPOOL_SECONDS = 60.0
"""How long spools may be left: they expire some time after the jobs."""
CALM_EVENTS = ("worker_lost", "database_unavailable", "process_restarted")
"""Events of level "error" that are the right answer to a fault."""


async def check_answers(caller: Caller, ledger: Ledger) -> list[Violation]:
    """Compares what the services answer with what was acknowledged."""
    found: list[Violation] = []
    listed = await _list_all(caller)
    kept = {entry.id: entry for entry in ledger.entries if not entry.is_deleted}
    found += [Violation("nobody's generation", one) for one in listed.keys() - kept.keys()]
    for entry in ledger.entries:
        found += check_entry(entry, listed.get(entry.id))
    for entry in ledger.entries:
        if entry.is_deleted:
            answer = await caller.call("GetGeneration", storage.GetGenerationRequest(id=entry.id), entry.subject)
            if answer.code is not grpc.StatusCode.NOT_FOUND:
                found.append(Violation("deleted, but there", entry.subject))
    prompts = (await caller.require("ListPrompts", storage.ListPromptsRequest(page_size=PAGE_SIZE), "prompts")).prompts
    counts = {prompt.text: prompt.used_count for prompt in prompts}
    if counts != ledger.prompts:
        different = {text: (counts.get(text), ledger.prompts.get(text)) for text in counts.keys() | ledger.prompts}
        problem = {text: pair for text, pair in different.items() if pair[0] != pair[1]}
        found.append(Violation("prompts miscounted", "prompts", f"counted and created: {problem}"))
    return found


async def _list_all(caller: Caller) -> dict[str, storage.Generation]:
    listed: dict[str, storage.Generation] = {}
    request = storage.ListGenerationsRequest(page_size=PAGE_SIZE)
    while True:
        page = await caller.require("ListGenerations", request, "all generations")
        listed |= {one.id: one for one in page.generations}
        request.page_token = page.next_page_token
        if not request.page_token:
            return listed


def check_entry(entry: Entry, generation: storage.Generation | None) -> Iterator[Violation]:
    """Compares a generation with what was acknowledged of it."""
    if entry.is_deleted:
        return
    if generation is None:
        yield Violation("lost", entry.subject)
        return
    if generation.state != entry.state:
        states = [storage.GenerationState.Name(state) for state in (generation.state, entry.state)]
        yield Violation("wrong final state", entry.subject, f"it is {states[0]}, but {states[1]} was acknowledged")
    if generation.rating != entry.rating:
        yield Violation("rating lost", entry.subject, f"{generation.rating}, not {entry.rating}")
    for field in ("request_id", "prompt", "seed", "duration_seconds"):
        if getattr(generation, field) != getattr(entry.request, field):
            yield Violation("another request", entry.subject, f"{field} is {getattr(generation, field)}")
    if (entry.source is None) == bool(generation.parents):
        yield Violation("wrong lineage", entry.subject, str(generation.parents))


async def wait_for_empty_spool(data_dir: Path) -> list[Violation]:
    """Waits until the spool is empty, and returns what is left."""
    ends_at = time.monotonic() + SPOOL_SECONDS
    while left := sorted(path.name for path in (data_dir / "spool").iterdir()):
        if time.monotonic() > ends_at:
            return [Violation("spool left", "export", ", ".join(left))]
        await asyncio.sleep(0.5)
    return []


def check_data(data_dir: Path, database_url: str, ledger: Ledger) -> Iterator[Violation]:
    """Checks the database and the files, once all services have ended."""
    with Database(database_url, busy_timeout_seconds=60) as database:
        for finding in find_problems(database, data_dir, read_files=True):
            yield Violation("db check", finding.where, finding.problem)
    files = {entry.id: _files_of(entry, data_dir) for entry in ledger.entries}
    known = {path for paths in files.values() for path in paths}
    for folder in ("outputs", "renders", "spool", "clips"):
        for path in (data_dir / folder).rglob("*"):
            if path.is_file() and path not in known:
                yield Violation("stray file", path.relative_to(data_dir).as_posix(), _owner(path, ledger))
    for entry in ledger.entries:
        if entry.state == COMPLETED and not entry.is_deleted:
            if sum(path.suffix != ".json" for path in files[entry.id]) != 1 + len(entry.renders):
                names = ", ".join(path.name for path in files[entry.id])
                yield Violation("files missing", entry.subject, f"there are {names}")
            else:
                yield from check_kept_samples(entry, lambda one: _read_output(one, data_dir))


def _files_of(entry: Entry, data_dir: Path) -> list[Path]:
    """Returns the files that the generation may have."""
    if entry.is_deleted or entry.state != COMPLETED:
        return []
    renders = [path for path in (data_dir / "renders" / entry.id).glob("*") if path.stem in entry.renders]
    return [*(data_dir / "outputs").glob(f"*/*/*/{entry.id}.*"), *renders]


def _owner(path: Path, ledger: Ledger) -> str:
    for entry in ledger.entries:
        if entry.id in str(path):
            state = "deleted" if entry.is_deleted else storage.GenerationState.Name(entry.state)
            return f"{entry.subject}, {state}"
    return "belongs to no job"


def check_kept_samples(entry: Entry, open_output: Callable[[Entry], str | BinaryIO]) -> Iterator[Violation]:
    """Compares an edit with what it has kept of its source. `open_output` gives the file of a generation."""
    edit, source = entry.request.edit, entry.source
    if not entry.request.HasField("edit") or source is None or entry.job.format != "WAV_PCM_24":
        return
    (old, rate), (new, _) = (soundfile.read(open_output(one), dtype="int32", always_2d=True) for one in (source, entry))
    match edit.kind:
        case kind if kind == EDIT_KIND_EXTEND_RIGHT:
            head, tail = len(old) - round(EDIT_LEAD_SECONDS * rate) - 1, 0
        case kind if kind == EDIT_KIND_EXTEND_LEFT:
            head, tail = 0, max(0, len(old) - round((EDIT_ALIGNMENT_SECONDS + EDIT_JOINT_SECONDS) * rate))
        case _:
            head = max(0, round((edit.start_seconds - EDIT_LEAD_SECONDS) * rate) - 1)
            tail = max(0, len(old) - round((edit.end_seconds + EDIT_JOINT_SECONDS) * rate) - 1)
    if not np.array_equal(old[:head], new[:head]) or not np.array_equal(old[len(old) - tail :], new[len(new) - tail :]):
        yield Violation("edit changed what it keeps", entry.subject, f"{head} frames before, {tail} after")


def _read_output(entry: Entry, data_dir: Path) -> str:
    (path,) = (data_dir / "outputs").glob(f"*/*/*/{entry.id}.wav")
    return str(path)


def check_logs(folder: Path, data_dir: Path) -> Iterator[Violation]:
    """Finds tracebacks and unexpected errors in the logs."""
    for log in sorted(folder.glob(f"{data_dir.name}-*.log")):
        for line in log.read_text(errors="replace").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                if line.startswith(("Traceback", "Fatal", "Exception")):
                    yield Violation("traceback", log.stem, line)
                continue
            if "exception" in event or (event.get("level") == "error" and event["event"] not in CALM_EVENTS):
                yield Violation(f"logged {event['event']}", log.stem, _shorten(event))


def _shorten(event: dict[str, Any]) -> str:
    """Returns an event without its stack: each exception in it, from the last to the first cause."""
    causes = [f"{one['exc_type']}: {one['exc_value'][:MAX_SHOWN_CHARACTERS]}" for one in event.pop("exception", ())]
    return f"{str(event)[:MAX_SHOWN_CHARACTERS]} {causes}"
