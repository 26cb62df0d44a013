"""The audit log: one line for each change, and for each that was refused: who, what, from where, and how it ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from dgx_music.errors import FailedPrecondition
from service_runtime.access.caller import Caller, Scope
from service_runtime.file_modes import open_private
from service_runtime.observability.logging import get_logger
from service_runtime.observability.repeated_events import RepeatedEvents

log = get_logger(__name__)

MAX_IDS = 100
MAX_ID_CHARACTERS = 64
MAX_DEPTH = 3
"""How deep in a message ids are looked for, e.g. those of the rows of a batch."""
FRONT_DOOR = "/dgx_music.gateway."
"""What the methods of the gateway begin with. No service calls them: who does so with a service's token is a person or
a program like `dgx-music http`."""
NOT_IDS = ("request_id",)
"""Fields that identify the call and not what it changes."""


def is_audited(method: str, required: Scope, caller: Caller | None, names_client: bool) -> bool:
    """Returns whether a call is a line in the audit log: what changes something, unless it is a service's own work, or
    is done by a service for a client who was audited where the call came in, at the gateway. `caller` is None if it is
    unknown."""
    if required is Scope.READ:
        return False
    if caller is None or caller.scope is not Scope.SERVICE:
        return True
    return required is not Scope.SERVICE and (not names_client or method.startswith(FRONT_DOOR))


class AuditLog:
    """Writes to the log of the process, and to a file if there is one. Call `close` at the end."""

    def __init__(self, file: Path | None) -> None:
        """Raises FailedPrecondition, which names the setting, if the file can't be written."""
        self._file = None if file is None else file.expanduser()
        self._thread: ThreadPoolExecutor | None = None
        self._strangers = RepeatedEvents()
        if self._file is not None:
            try:
                self._append("")
            except OSError as error:
                raise FailedPrecondition(
                    f"DGX_MUSIC_AUDIT_LOG={file}: the file can't be written: {error.strerror or error}",
                    reason="AUDIT_LOG_UNUSABLE",
                ) from error
            self._thread = ThreadPoolExecutor(1, "audit-log")  # One, which keeps the lines in order.

    def record(self, method: str, caller: Caller | None, host: str, ids: list[str], code: str) -> None:
        """Adds a line. `caller` is None if who called is unknown, because its token was missing or not valid: of such
        calls, which anyone may make without end, each method has one line in a while, which says how many it had
        not."""
        skipped = 0 if caller else self._strangers.admit(method)
        if skipped is None:
            return
        fields: dict[str, Any] = {
            "method": method,
            "code": code,
            "client": caller.client if caller else None,
            "token_id": caller.token_id if caller else None,
            "scope": caller.scope.name.lower() if caller else None,
            "host": host,
            "ids": ids,
        }
        if skipped:
            fields["not_logged"] = skipped
        log.info("audit", **fields)
        if self._thread is not None:
            time = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._thread.submit(self._write, json.dumps({"time": time, "event": "audit", **fields}) + "\n")

    async def close(self) -> None:
        """Returns when all lines are in the file."""
        if self._thread is not None:
            thread, self._thread = self._thread, None  # A call that was cut off may end later still.
            await asyncio.to_thread(thread.shutdown)

    def _write(self, line: str) -> None:
        try:
            self._append(line)
        except OSError as error:  # What happened is still in the log of the process.
            log.error("audit_log_not_written", file=str(self._file), error=error.strerror or str(error))

    def _append(self, line: str) -> None:
        # Opened for each line, so that a log rotation may move the file; one write, which others do not tear apart.
        assert self._file is not None
        with open(self._file, "ab", buffering=0, opener=open_private) as file:
            file.write(line.encode())


def find_ids(*messages: object) -> list[str]:
    """Returns the ids in the messages of a call, each once: the fields named `id` or `…_id`, and a request's name."""
    found: dict[str, None] = {}
    for message in messages:
        if isinstance(message, Message):
            found |= dict.fromkeys(value[:MAX_ID_CHARACTERS] for value in _walk(message, MAX_DEPTH))
    return list(found)[:MAX_IDS]


def _walk(message: Message, depth: int) -> Iterator[str]:
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        if field.type == FieldDescriptor.TYPE_STRING and _names_something(field.name, depth):
            yield from values
        elif depth > 1:
            for inner in values:
                if isinstance(inner, Message):  # The keys of a map are none.
                    yield from _walk(inner, depth - 1)


def _names_something(name: str, depth: int) -> bool:
    if name == "name":
        return depth == MAX_DEPTH
    return (name == "id" or name.endswith(("_id", "_ids"))) and name not in NOT_IDS
