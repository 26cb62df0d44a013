"""Decodes the codes of many requests to audio, chunk by chunk, in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor

from dgx_music.errors import ResourceExhausted
from generation_service.models.base import FloatArray
from generation_service.models.musicgen.codec.decoder_network import DecoderNetwork, NetworkForm
from generation_service.models.musicgen.codec.decoder_passes import (
    ChunkShape,
    CpuPassRunner,
    CudaPassRunner,
    PassResult,
    PassRunner,
    SlotDecoder,
)
from generation_service.models.musicgen.codec.encodec import Encodec, split_channels
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

CHUNK_FRAMES: Final = (5, 4, 10, 25, 50)
"""Frames of codes decoded at once: few at first, so that audio starts early, then many, which is more efficient.

Audio lags by less than 4 frames of 20 ms: the first chunk yields 25 ms, and 9 frames are the fewest that yield 100 ms.
"""
CPU_ROWS: Final = 16
"""Streams decoded in one pass on the CPU."""
CUDA_ROWS: Final = 8
"""Streams decoded in one pass on a GPU: enough to be efficient, and few enough to leave room for the decode steps."""
CUDA_PATIENCE: Final = 4
"""Calls of `run` for which a chunk on a GPU waits for others of its shape, which cost nothing in the same pass."""
_RETRY_SECONDS = 1.0


@dataclass(slots=True)
class _Chunk:
    codes: Tensor
    """int64 [channels, K, n], on the CPU."""
    shape: ChunkShape
    is_urgent: bool
    due: int
    """The number of the call of `run` at which the chunk is decoded, with others or alone."""


@dataclass(slots=True, eq=False)
class DecoderStream:
    """The chunks of one request. Made by `ChunkDecoder.open`; its attributes are the decoder's."""

    slot: int
    """Where its state is."""
    early_codes: list[Tensor] = field(default_factory=list)
    """Codes that are too few for a first chunk."""
    has_begun: bool = False
    waiting: deque[_Chunk] = field(default_factory=deque)
    results: deque[tuple[PassResult, int]] = field(default_factory=deque)
    """The passes of its decoded chunks, and its row in each."""
    failure: Exception | None = None


class ChunkDecoder:
    """Decodes the chunks of all requests with one `Encodec`. All calls come from one thread.

    A stream's chunks join to `Encodec.decode` of all its codes, for any weights, any chunk sizes, and whatever other
    streams are decoded: with the same number of samples, and within 1e-4 on the CPU; on a GPU, where a part is computed
    in float16, the difference is at least 60 dB below the signal. On the CPU, other streams do not change a bit of the
    samples; on a GPU, the same kernels run in any batch.

    The output lags by less than 4 frames of codes: 3 are the look-ahead of the first convolution, the rest is that of
    the upsampling layers. The last chunk returns the rest.

    A stream needs `state_bytes / max_streams` of memory, 36 KB per channel for EnCodec 32 kHz, from the beginning on.
    """

    def __init__(
        self,
        codec: Encodec,
        channels: int,
        *,
        max_streams: int = 128,
        form: NetworkForm | None = None,
        rows: int | None = None,
        patience: int | None = None,
    ) -> None:
        """`channels` is 1, or 2 if the codes are interleaved stereo. At most `max_streams` streams are open at once.

        The codec's device is used. Its weights are copied, and not used later. The other arguments are by default what
        is best for the device: the `form` of the network; `rows`, the streams per pass; and `patience`, the number of
        calls of `run` for which a chunk that no listener waits for may wait for others of its shape.
        """
        self._channels = channels
        self._no_audio: FloatArray = np.zeros((0, channels), np.float32)
        self._codebooks, self._codebook_size = codec.config.codebooks, codec.config.codebook_size
        self._max_streams = max_streams
        self._free_slots = list(reversed(range(max_streams)))
        self._streams: dict[DecoderStream, None] = {}  # In the order in which they were opened.
        self._run_count = 0
        is_cuda = codec.device.type == "cuda"
        self._form: NetworkForm = form or ("cuda" if is_cuda else "cpu")
        network = DecoderNetwork(codec, self._form)
        self._min_first_frames = network.min_first_frames
        decoder = SlotDecoder(network, channels, max_streams, codec.device)
        self.state_bytes = decoder.state_bytes
        """Memory for the states of all streams."""
        self._rows = rows or (CUDA_ROWS if self._form == "cuda" else CPU_ROWS)
        self._patience = patience if patience is not None else CUDA_PATIENCE if self._form == "cuda" else 0
        self._runner: PassRunner = (
            CudaPassRunner(decoder, self._rows, max_streams, codec.device) if is_cuda else CpuPassRunner(decoder)
        )

    def warm_up(self) -> None:
        """Prepares all passes of streams that begin with `CHUNK_FRAMES`. On CUDA this captures graphs; on the CPU there
        is nothing to do."""
        rest = range(min(CHUNK_FRAMES))
        shapes = [ChunkShape(frames, begins=False, ends=False) for frames in (*rest[1:], *CHUNK_FRAMES)]
        shapes += [ChunkShape(frames, begins=False, ends=True) for frames in rest]
        if self._min_first_frames <= CHUNK_FRAMES[0]:
            shapes.append(ChunkShape(CHUNK_FRAMES[0], begins=True, ends=False))
        self._runner.warm_up(shapes, self._codebooks, self._channels)

    def open(self) -> DecoderStream:
        """Starts a stream. Close it when its request ends, however it ends.

        Raises ResourceExhausted if `max_streams` streams are open.
        """
        if not self._free_slots:
            raise ResourceExhausted(
                f"all {self._max_streams} streams of the audio decoder are in use; retry when a request has ended",
                reason="DECODER_STREAMS",
                metadata={"streams": str(self._max_streams)},
                retry_after_seconds=_RETRY_SECONDS,
            )
        stream = DecoderStream(self._free_slots.pop())
        self._streams[stream] = None
        return stream

    def submit(self, stream: DecoderStream, codes: Tensor, *, is_last: bool, is_first: bool = False) -> None:
        """Queues the next chunk of the stream. codes: int64 [K, n] (2 K for stereo), on the CPU; n may be 0.

        `is_last`: the stream ends with these codes. `is_first`: a listener waits for this chunk, having heard nothing
        yet; it is decoded before the others. `run` decodes it. Raises ValueError if a code is not in the codebook.
        """
        if stream.failure is not None:
            return
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self._codebook_size:
            raise ValueError(
                f"codes from {int(codes.min())} to {int(codes.max())}; those of this codec are 0 to "
                f"{self._codebook_size - 1}"
            )
        if not stream.has_begun and stream.early_codes:
            codes = torch.cat([*stream.early_codes, codes], dim=1)
        frames = codes.shape[1]
        if not stream.has_begun and frames < (1 if is_last else self._min_first_frames):
            stream.early_codes = [codes]
            return
        shapes = self._split(frames, begins=not stream.has_begun, ends=is_last)
        stream.has_begun = True
        separate = split_channels(codes, self._channels)
        pieces = torch.split(separate, [shape.frames for shape in shapes], dim=2)
        due = self._run_count + 1 + (0 if is_first else self._patience)
        for shape, piece in zip(shapes, pieces, strict=True):
            stream.waiting.append(_Chunk(piece, shape, is_first, due))

    def run(self) -> None:
        """Decodes what is due, in batches; call it once per decode step. On CUDA this only launches the work.

        Chunks of different streams are decoded together if they have the same number of frames and are all first, all
        last, or all between. On CUDA a chunk that nobody waits for may stay queued for a few calls, until others of its
        shape are there.
        """
        self._run_count += 1
        while (batch := self._next_batch()) is not None:
            self._decode(batch)

    def take(self, stream: DecoderStream) -> FloatArray:
        """Returns the audio that is ready and was not taken yet, in order: [n, channels]. Does not wait; n may be 0.

        Raises what the decoding of this stream raised, after all the audio before was taken.
        """
        blocks = []
        while stream.results and stream.results[0][0].is_ready():
            result, row = stream.results.popleft()
            blocks.append(result.audio[row].t().contiguous().numpy())
        if blocks:
            return np.concatenate(blocks)
        if not stream.results and stream.failure is not None:
            raise stream.failure
        return self._no_audio

    def wait(self, stream: DecoderStream) -> None:
        """Decodes what was submitted for this stream, and blocks until all of it can be taken."""
        while stream.waiting:
            self._decode(self._batch_of(stream))
        for result, _ in stream.results:
            result.wait()

    def close(self, stream: DecoderStream) -> None:
        """Frees the stream; what it has not decoded, or was not taken, is dropped. Further calls do nothing."""
        if stream in self._streams:
            del self._streams[stream]
            self._free_slots.append(stream.slot)
            stream.waiting.clear()
            stream.results.clear()

    def _split(self, frames: int, *, begins: bool, ends: bool) -> list[ChunkShape]:
        """The shapes in which a chunk is decoded: on CUDA those of `warm_up`, so that only graphs are launched."""
        first = max(CHUNK_FRAMES[0], self._min_first_frames)
        if self._form == "cpu" or (begins and frames <= first):
            return [ChunkShape(frames, begins, ends)] if frames or ends else []
        shapes = []
        if begins:
            shapes.append(ChunkShape(first, begins=True, ends=False))
            frames -= first
        for size in sorted(CHUNK_FRAMES, reverse=True):
            count, frames = divmod(frames, size)
            shapes += [ChunkShape(size, begins=False, ends=False)] * count
        if frames or ends:
            shapes.append(ChunkShape(frames, begins=False, ends=ends))
        return shapes

    def _next_batch(self) -> Sequence[DecoderStream] | None:
        """The streams whose next chunks are decoded next, or None if nothing is due."""
        waiting = [stream for stream in self._streams if stream.waiting]
        for stream in sorted(waiting, key=_priority):
            batch = self._batch_of(stream)
            is_due = stream.waiting[0].due <= self._run_count
            if is_due or len(batch) == min(self._rows, len(self._streams)):
                return batch
        return None

    def _batch_of(self, stream: DecoderStream) -> Sequence[DecoderStream]:
        """This stream, and those whose next chunks have the same shape, as many as fit into a pass."""
        shape = stream.waiting[0].shape
        others = (
            other
            for other in self._streams
            if other is not stream and other.waiting and other.waiting[0].shape == shape
        )
        return [stream, *sorted(others, key=_priority)][: self._rows]

    def _decode(self, batch: Sequence[DecoderStream]) -> None:
        chunks = [stream.waiting[0] for stream in batch]
        try:
            result = self._runner.run(
                [chunk.codes for chunk in chunks], [stream.slot for stream in batch], chunks[0].shape
            )
        except Exception as error:
            self._fail(batch, error)
            return
        for row, stream in enumerate(batch):
            stream.waiting.popleft()
            stream.results.append((result, row))

    def _fail(self, batch: Sequence[DecoderStream], error: Exception) -> None:
        """Tries the streams of a pass that has failed one by one: their states are unchanged, and some may succeed."""
        if len(batch) > 1:
            log.warning("decoder_pass_failed", rows=len(batch), error=str(error))
            for stream in batch:
                self._decode([stream])
            return
        batch[0].failure = error
        batch[0].waiting.clear()


def _priority(stream: DecoderStream) -> tuple[bool, int]:
    """Sorts first chunks first, then by age."""
    chunk = stream.waiting[0]
    return not chunk.is_urgent, chunk.due
