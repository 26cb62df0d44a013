"""The thread that encodes the prompts of waiting requests while others are generated."""

from __future__ import annotations

import threading

from generation_service.engine.device_thread import DeviceThread
from generation_service.engine.failures import free_tensors, to_service_error
from generation_service.engine.sequence import PromptState, Sequence, Stage
from generation_service.engine.shared_state import LoopCalls, SharedState
from generation_service.models.base import PromptEncoder
from generation_service.models.device_errors import is_fatal, is_out_of_memory
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)


class PromptThread:
    """Encodes prompts in the order in which their requests will be admitted, several at once."""

    def __init__(self, shared: SharedState, device_thread: DeviceThread, calls: LoopCalls) -> None:
        self._shared = shared
        self._device_thread = device_thread
        self._calls = calls
        self._is_stopping = False
        self.call_started_at: float | None = None
        """When the current encoding started, by the engine's clock; None between calls."""
        self._thread = threading.Thread(target=self._run, name="prompts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Asks the thread to end after the current batch and returns at once."""
        with self._shared.lock:
            self._is_stopping = True
            self._shared.prompt_work.notify()

    def join(self, timeout_seconds: float) -> bool:
        """Waits for the thread to end. Returns False if it has not ended in time."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while batch := self._wait_for_prompts():
                self._encode(batch)
        except BaseException as error:
            self._device_thread.fail(error)

    def _wait_for_prompts(self) -> list[Sequence]:
        """Returns the next requests whose prompts are to be encoded, all of one model. Empty when the thread should
        end."""
        shared = self._shared
        with shared.lock:
            while not self._is_stopping:
                batch = shared.scheduler.prompts_to_encode()
                encoder = shared.models.prompt_encoder(batch[0].info) if batch else None
                if encoder is not None:
                    batch = batch[: encoder.prompt_batch_size]
                    for sequence in batch:
                        sequence.prompt, sequence.stage = PromptState.ENCODING, Stage.ENCODING_PROMPT
                    return batch
                for sequence in batch:  # The model has been unloaded.
                    sequence.prompt = PromptState.UNKNOWN
                if batch:
                    shared.device_work.notify()
                else:
                    shared.prompt_work.wait()
        return []

    def _encode(self, batch: list[Sequence]) -> None:
        """Encodes the prompts of a batch, one by one if that fails, so that only the prompt at fault fails."""
        encoder = self._shared.models.prompt_encoder(batch[0].info)
        errors: dict[Sequence, Exception] = {}
        if encoder is not None and (error := self._call(encoder, batch)) is not None:
            for sequence in batch:
                own_error = self._call(encoder, [sequence]) if len(batch) > 1 else error
                # Without memory, `prefill` tries again, and the request waits for others to finish if need be.
                if own_error is not None and not is_out_of_memory(own_error):
                    errors[sequence] = own_error
        with self._shared.lock:
            for sequence in batch:
                if not sequence.is_waiting:
                    continue  # It was cancelled, or its deadline has passed.
                if sequence in errors:
                    self._shared.scheduler.discard(sequence)
                    failure = to_service_error(sequence.info.name, "while encoding the prompt", errors[sequence])
                    failed = log.bind(**sequence.log_fields)
                    failed.warning(
                        "generation_failed", model=sequence.info.name, error=failure.message, exc_info=failure
                    )
                    self._calls.add(sequence.sink.on_finished, failure)
                else:
                    sequence.prompt, sequence.stage = PromptState.READY, Stage.QUEUED
            self._shared.device_work.notify()
        self._calls.send()

    def _call(self, encoder: PromptEncoder, batch: list[Sequence]) -> Exception | None:
        """Encodes prompts. Returns the error that the model raised, or raises it if the device is lost with it."""
        with self._shared.models.loading:
            self.call_started_at = self._shared.clock()
            try:
                encoder.encode_prompts([sequence.parameters for sequence in batch])
            except Exception as error:
                if is_fatal(error):
                    raise
                if is_out_of_memory(error):
                    free_tensors(error)
                return error
            finally:
                self.call_started_at = None
        return None
