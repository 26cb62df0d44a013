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
    requests: deque[Sequence] = field(default_factory=deque)


class FairQueue:
    """Start-time fair queueing over clients; within a client, first come, first served.

    Each client gets the same share of the audio that is generated, whatever it has queued: a request costs its seconds
    of audio, and the client that has been given the least is served next. A client that was away does not save up its
    share. Source: Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996, section 2, with equal weights.
    """

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}
        """Those with waiting requests."""
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
        if len(self._clients) == 1:
            yield from next(iter(self._clients.values())).requests
            return
        heads = [(client.start, client.number, iter(client.requests)) for client in self._clients.values()]
        heapq.heapify(heads)  # Client numbers are unique, so iterators are never compared.
        while heads:
            start, number, requests = heads[0]
            sequence = next(requests, None)
            if sequence is None:
                heapq.heappop(heads)
                continue
            yield sequence
            heapq.heapreplace(heads, (start + sequence.audio_seconds, number, requests))

    def push(self, sequence: Sequence) -> None:
        """Appends a request to those of its client."""
        start = max(self._virtual_time, self._finish.get(sequence.client, 0.0))
        self._add(sequence, start).requests.append(sequence)

    def push_front(self, sequence: Sequence) -> None:
        """Returns a request that was taken, as its client's next, and what it has cost."""
        client = self._add(sequence, self._finish.get(sequence.client, self._virtual_time), is_first=True)
        client.start -= sequence.audio_seconds
        self._finish[sequence.client] = client.start
        client.requests.appendleft(sequence)

    def take(self, sequence: Sequence) -> None:
        """Removes a waiting request to serve it, at its client's expense."""
        client = self._clients[sequence.client]
        self._virtual_time = max(self._virtual_time, client.start)
        client.start += sequence.audio_seconds
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
        removed = list(self)
        for sequence in removed:
            self.remove(sequence)
        return removed

    def _add(self, sequence: Sequence, start: float, *, is_first: bool = False) -> _Client:
        sequence.is_waiting = True
        self._length += 1
        self.audio_seconds += sequence.audio_seconds
        if sequence.client not in self._clients:
            self._arrivals += 1
            self._clients[sequence.client] = _Client(start, -self._arrivals if is_first else self._arrivals)
        return self._clients[sequence.client]
