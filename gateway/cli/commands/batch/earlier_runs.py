"""Finds what earlier runs of a batch have completed, by a listing: one call for each job would take minutes."""

from __future__ import annotations

from collections.abc import Iterable

from dgx_music.storage.v1.storage_pb2 import GENERATION_STATE_COMPLETED, Generation, ListGenerationsRequest
from gateway.cli.commands.batch.batch_jobs import BatchJob
from gateway.cli.session.pagination import MAX_PAGE_SIZE
from gateway.cli.session.runner import Session
from gateway.timeouts import CALL_TIMEOUT_SECONDS

KNOWN_ATTEMPTS = 3
"""Attempts of each job that are looked for."""


async def find_completed(session: Session, jobs: Iterable[BatchJob]) -> dict[str, Generation]:
    """Returns the completed generations of the jobs by the keys of these.

    Looks from the newest generation on as long as it finds any. A job may have one that is not found.
    """
    keys = {job.request_id(attempt): job.key for job in jobs for attempt in range(1, KNOWN_ATTEMPTS + 1)}
    found: dict[str, Generation] = {}
    request = ListGenerationsRequest(states=[GENERATION_STATE_COMPLETED], page_size=MAX_PAGE_SIZE)
    while True:
        page = await session.music.ListGenerations(request, timeout=CALL_TIMEOUT_SECONDS)
        of_this_page = {keys[one.request_id]: one for one in page.generations if one.request_id in keys}
        found |= of_this_page
        request.page_token = page.next_page_token
        if not of_this_page or not page.next_page_token:
            return found
