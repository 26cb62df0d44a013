"""Passes of the decoder: one chunk of each of several streams, whose states are kept in slots on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from generation_service.models.musicgen.codec.decoder_network import DecoderNetwork
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

_WARM_UP_RUNS = 2
"""Runs before a capture, because libraries choose kernels and allocate workspaces at their first call."""


@dataclass(frozen=True, slots=True)
class ChunkShape:
    """What chunks must have in common to be decoded in one pass."""

    frames: int
    """Frames of codes."""
    begins: bool
    """Whether the chunk begins its stream."""
    ends: bool
    """Whether the chunk ends its stream."""


class SlotDecoder:
    """The decoder with the states of up to `slots` streams, which stay on the device.

    A call reads no tensor on the host, and its shapes depend on shapes alone, so that a CUDA graph can capture it. One
    more slot, number `slots`, is for rows that only fill up a pass.
    """

    def __init__(self, network: DecoderNetwork, channels: int, slots: int, device: torch.device) -> None:
        """`channels`: mono streams per slot."""
        self._network = network
        self._states = torch.zeros(slots + 1, channels, network.state_size, device=device)

    @property
    def state_bytes(self) -> int:
        """Memory of all states."""
        return self._states.nbytes

    @torch.inference_mode()
    def __call__(self, codes: Tensor, slots: Tensor, shape: ChunkShape) -> Tensor:
        """codes: int64 [R, channels, K, n], slots: int64 [R] → audio: [R, channels, m]."""
        states = None if shape.begins else self._states.index_select(0, slots).flatten(0, 1)
        audio, states = self._network(codes.flatten(0, 1), states, is_last=shape.ends)
        if not shape.ends:
            self._states.index_copy_(0, slots, states.view(len(slots), *self._states.shape[1:]))
        return audio.view(len(slots), codes.shape[1], audio.shape[1])


@dataclass(frozen=True, slots=True)
class PassResult:
    """The audio of one pass, which may still be on its way from the device."""

    audio: Tensor
    """float32 [R, channels, m], on the CPU."""
    copied: torch.cuda.Event | None = None
    """Set once `audio` is complete; None if it is."""

    def is_ready(self) -> bool:
        """Whether `audio` is complete."""
        return self.copied is None or bool(self.copied.query())  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        """Blocks until `audio` is complete."""
        if self.copied is not None:
            self.copied.synchronize()


class PassRunner(Protocol):
    """Runs passes on a device."""

    def warm_up(self, shapes: Iterable[ChunkShape], codebooks: int, channels: int) -> None:
        """Prepares the passes of these shapes."""
        ...

    def run(self, codes: Sequence[Tensor], slots: Sequence[int], shape: ChunkShape) -> PassResult:
        """Decodes one chunk of each stream. codes: int64 [channels, K, n] of each, on the CPU. Does not wait."""
        ...


class CpuPassRunner:
    """Runs passes at once."""

    def __init__(self, decoder: SlotDecoder) -> None:
        self._decoder = decoder

    def warm_up(self, shapes: Iterable[ChunkShape], codebooks: int, channels: int) -> None:
        """Does nothing."""

    def run(self, codes: Sequence[Tensor], slots: Sequence[int], shape: ChunkShape) -> PassResult:
        return PassResult(self._decoder(torch.stack(list(codes)), torch.tensor(slots), shape))


class CudaPassRunner:
    """Runs passes on a CUDA stream of its own, and neither the host nor another stream waits for them.

    Every pass has the same number of rows, so that the same kernels run whatever else is decoded, and a stream's audio
    does not depend on it. Shapes that were warmed up are CUDA graphs; what else may occur is launched operator by
    operator.
    """

    def __init__(self, decoder: SlotDecoder, rows: int, scratch_slot: int, device: torch.device) -> None:
        """`rows`: rows per pass; those that are not needed write to `scratch_slot`."""
        self._decoder = decoder
        self._rows = rows
        self._scratch_slot = scratch_slot
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream(device))  # The weights and states are written there.
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[ChunkShape, _CapturedPass] = {}

    def warm_up(self, shapes: Iterable[ChunkShape], codebooks: int, channels: int) -> None:
        """Captures a graph of each shape. A shape whose capture fails is launched operator by operator."""
        for shape in shapes:
            codes = torch.zeros(self._rows, channels, codebooks, shape.frames, dtype=torch.int64, device=self._device)
            slots = torch.full((self._rows,), self._scratch_slot, device=self._device)
            try:
                self._graphs[shape] = self._capture(codes, slots, shape)
            except RuntimeError as error:
                log.warning("decoder_capture_failed", frames=shape.frames, error=str(error))

    def run(self, codes: Sequence[Tensor], slots: Sequence[int], shape: ChunkShape) -> PassResult:
        count = len(codes)
        host_codes = torch.zeros(self._rows, *codes[0].shape, dtype=torch.int64, pin_memory=True)
        torch.stack(list(codes), out=host_codes[:count])
        host_slots = torch.full((self._rows,), self._scratch_slot, dtype=torch.int64, pin_memory=True)
        host_slots[:count] = torch.tensor(slots)
        # torch keeps pinned memory that is freed until the copies from it are done.
        with torch.cuda.stream(self._stream):
            captured = self._graphs.get(shape)
            if captured is None:
                device_codes = host_codes.to(self._device, non_blocking=True)
                audio = self._decoder(device_codes, host_slots.to(self._device, non_blocking=True), shape)
            else:
                captured.codes.copy_(host_codes, non_blocking=True)
                captured.slots.copy_(host_slots, non_blocking=True)
                captured.graph.replay()
                audio = captured.audio
            result = torch.empty(count, *audio.shape[1:], pin_memory=True)
            result.copy_(audio[:count], non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        return PassResult(result, copied)

    def _capture(self, codes: Tensor, slots: Tensor, shape: ChunkShape) -> _CapturedPass:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP_RUNS):
                self._decoder(codes, slots, shape)
        graph = torch.cuda.CUDAGraph()
        # thread_local: calls of other threads during the capture, such as for the free memory, do not invalidate it.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            audio = self._decoder(codes, slots, shape)
        return _CapturedPass(graph, codes, slots, audio)


@dataclass(frozen=True, slots=True)
class _CapturedPass:
    """A CUDA graph and the tensors at fixed addresses that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    codes: Tensor
    slots: Tensor
    audio: Tensor
