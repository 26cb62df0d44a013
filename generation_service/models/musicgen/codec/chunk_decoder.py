"""Decodes the codes of many requests to audio, chunk by chunk, in batches."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from generation_service.models.base import FloatArray
from generation_service.models.musicgen.codec.encodec import Encodec, StreamingDecoder


@dataclass(slots=True, eq=False)
class DecoderStream:
    """The chunks and the decoder state of one request. Made by `ChunkDecoder.open`; its attributes are private."""

    decoder: StreamingDecoder
    waiting: deque[tuple[Tensor, bool, bool]] = field(default_factory=deque)
    ready: deque[FloatArray] = field(default_factory=deque)


class ChunkDecoder:
    """Decodes the chunks of all requests. All calls come from one thread."""

    def __init__(self, codec: Encodec, channels: int, *, max_streams: int = 128) -> None:
        """`channels` is 1, or 2 if the codes are interleaved stereo. At most `max_streams` streams are open at once."""
        self._codec = codec
        self._channels = channels
        self._max_streams = max_streams
        self._streams: list[DecoderStream] = []

    def warm_up(self) -> None:
        """Prepares the decoding of all usual chunk sizes. On CUDA this captures graphs."""

    def open(self) -> DecoderStream:
        """Starts a stream. Close it when its request ends, however it ends."""
        stream = DecoderStream(StreamingDecoder(self._codec, self._channels))
        self._streams.append(stream)
        return stream

    def submit(self, stream: DecoderStream, codes: Tensor, *, is_last: bool, is_first: bool = False) -> None:
        """Queues the next chunk of the stream. codes: int64 [K, n] (2 K for stereo), on the CPU; n may be 0.

        `is_last`: the stream ends with these codes. `is_first`: nothing of this stream was heard yet; it is decoded
        before chunks of streams that play already. The codes are decoded by the next `run`.
        """
        stream.waiting.append((codes, is_last, is_first))

    def run(self) -> None:
        """Decodes what was submitted, in batches. On CUDA it only launches the work."""
        for stream in self._streams:
            self._decode(stream)

    def take(self, stream: DecoderStream) -> FloatArray:
        """Returns the audio that is ready and was not taken yet: [n, channels]. Does not wait; n may be 0."""
        blocks = [np.zeros((0, self._channels), np.float32), *stream.ready]
        stream.ready.clear()
        return np.concatenate(blocks)

    def wait(self, stream: DecoderStream) -> None:
        """Decodes what was submitted for this stream, and blocks until all of it can be taken."""
        self._decode(stream)

    def close(self, stream: DecoderStream) -> None:
        """Frees the stream; what it has not decoded is dropped."""
        self._streams.remove(stream)

    def _decode(self, stream: DecoderStream) -> None:
        while stream.waiting:
            codes, is_last, _ = stream.waiting.popleft()
            stream.ready.append(stream.decoder.decode_chunk(codes, is_last=is_last))
