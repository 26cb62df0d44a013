"""The order in which waiting requests of several clients are served."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from generation_service.engine.sequence import Sequence


@dataclass(slots=True)
class _Client:
    start: float
    """Virtual time at which the client's next request starts."""
    number: int
    """Order of the clients' arrival, which decides between equal starts."""
    version: int = 0
    """The valid one of its entries in the heap."""
    requests: deque[Sequence] = field(default_factory=deque)


_Head = tuple[float, int, int, _Client]
"""Start, number and version of a client. The first three differ, so that clients are never compared."""
_MAX_OUTDATED = 64


class FairQueue:
    """Start-time fair queueing over clients; within a client, first come, first served.

    Each client gets a share of the audio that is generated in proportion to its weight, whatever it has queued: a
    request costs its seconds of audio divided by the weight, and the client that has been given the least is served
    next. A client that was away does not save up its share. Source: Goyal, Vin, Cheng, "Start-time Fair Queueing",
    SIGCOMM 1996, section 2.
    """

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}
        """Those with waiting requests."""
        self._heads: list[_Head] = []
        """A heap with an entry for each of them, and outdated entries."""
        self._versions = 0
        self._finish: dict[str, float] = {}
        """Client → virtual time at which the last request that was taken from it finishes."""
        self._virtual_time = 0.0
        """Virtual start of the request that was taken last."""
        self._length = 0
        self._arrivals = 0
        self.audio_seconds = 0.0
        """Seconds of audio of all waiting requests."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Sequence]:
        """Yields the requests in the order in which they would be taken. The queue must not change meanwhile."""
        heads = self._heads.copy()
        iterators: dict[int, Iterator[Sequence]] = {}
        while heads:
            start, number, version, client = heads[0]
            requests = iterators.get(number)
            if requests is None:
                requests = iterators[number] = iter(client.requests)
            sequence = next(requests, None) if version == client.version else None
            if sequence is None:
                heapq.heappop(heads)
                continue
            yield sequence
            heapq.heapreplace(heads, (start + sequence.cost, number, version, client))

    def unordered(self) -> list[Sequence]:
        """Returns all requests in no particular order, which is much faster for many clients."""
        return [sequence for client in self._clients.values() for sequence in client.requests]

    def push(self, sequence: Sequence) -> None:
        """Appends a request to those of its client."""
        start = max(self._virtual_time, self._finish.get(sequence.client, 0.0))
        self._add(sequence, start).requests.append(sequence)

    def push_front(self, sequence: Sequence) -> None:
        """Returns a request that was taken, as its client's next, and what it has cost."""
        client = self._add(sequence, self._finish.get(sequence.client, self._virtual_time), is_first=True)
        self._set_start(client, client.start - sequence.cost)
        self._finish[sequence.client] = client.start
        client.requests.appendleft(sequence)

    def take(self, sequence: Sequence) -> None:
        """Removes a waiting request to serve it, at its client's expense."""
        client = self._clients[sequence.client]
        self._virtual_time = max(self._virtual_time, client.start)
        self._set_start(client, client.start + sequence.cost)
        self._finish[sequence.client] = client.start
        self.remove(sequence)
        if not self._clients:  # Nobody is short of anything, so the shares of the past no longer matter.
            self._finish.clear()
            self._virtual_time = 0.0

    def remove(self, sequence: Sequence) -> None:
        """Removes a waiting request without serving it."""
        requests = self._clients[sequence.client].requests
        requests.remove(sequence)
        if not requests:
            del self._clients[sequence.client]
        sequence.is_waiting = False
        self._length -= 1
        self.audio_seconds = self.audio_seconds - sequence.audio_seconds if self._length else 0.0

    def clear(self) -> list[Sequence]:
        """Removes and returns all requests."""
        removed = self.unordered()
        for sequence in removed:
            self.remove(sequence)
        return removed

    def _add(self, sequence: Sequence, start: float, *, is_first: bool = False) -> _Client:
        sequence.is_waiting = True
        self._length += 1
        self.audio_seconds += sequence.audio_seconds
        client = self._clients.get(sequence.client)
        if client is None:
            self._arrivals += 1
            client = self._clients[sequence.client] = _Client(start, -self._arrivals if is_first else self._arrivals)
            self._set_start(client, start)
        return client

    def _set_start(self, client: _Client, start: float) -> None:
        self._versions += 1
        client.start, client.version = start, self._versions
        heapq.heappush(self._heads, (start, client.number, client.version, client))
        if len(self._heads) > 2 * len(self._clients) + _MAX_OUTDATED:
            self._heads = [(each.start, each.number, each.version, each) for each in self._clients.values()]
            heapq.heapify(self._heads)
