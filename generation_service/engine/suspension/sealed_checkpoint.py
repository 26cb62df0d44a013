"""A model's checkpoint with a seal, by which only the request that it belongs to can go on from it."""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from dgx_music.errors import Aborted
from generation_service.models.base import GenerationParameters, ModelInfo
from generation_service.models.execution import ModelExecution

_MAGIC = b"dgxm1"
_SEAL_BYTES = len(_MAGIC) + hashlib.sha256().digest_size


class GenerationSuspended(Aborted):
    """Ends a request that was asked to stop. All samples that it has generated so far were delivered before."""

    def __init__(self, checkpoint: bytes) -> None:
        """`checkpoint`: to pass on with the same request later; empty if its model can't go on from one."""
        super().__init__("the generation was suspended", reason="GENERATION_SUSPENDED")
        self.checkpoint = checkpoint


def seal_checkpoint(
    payload: bytes, info: ModelInfo, execution: ModelExecution | None, parameters: GenerationParameters
) -> bytes:
    """Returns the model's `payload` with the seal of the request; empty if there is none."""
    return _seal(info, execution, parameters, payload) + payload if payload else b""


def open_checkpoint(
    checkpoint: bytes, info: ModelInfo, execution: ModelExecution | None, parameters: GenerationParameters
) -> bytes:
    """Returns the payload; empty if it is damaged, or belongs to another request, model, version, precision or kind of
    device: these would go on with other samples."""
    payload = checkpoint[_SEAL_BYTES:]
    return payload if payload and checkpoint == seal_checkpoint(payload, info, execution, parameters) else b""


def _seal(info: ModelInfo, execution: ModelExecution | None, parameters: GenerationParameters, payload: bytes) -> bytes:
    digest = hashlib.sha256()
    kind = execution and (execution.device.partition(":")[0], execution.precision, execution.kv_precision)
    _update(digest, (info.name, info.version, kind))
    _update(digest, parameters)
    digest.update(payload)
    return _MAGIC + digest.digest()


def _update(digest: Any, value: Any) -> None:
    """Adds a value, each field of a dataclass and each sample of audio to the hash. A checkpoint is no part of it."""
    if is_dataclass(value):
        for field in fields(value):
            if field.name != "checkpoint":
                _update(digest, (field.name, getattr(value, field.name)))
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).data)
    elif isinstance(value, tuple):
        digest.update(b"(")
        for item in value:
            _update(digest, item)
        digest.update(b")")
    else:
        digest.update(f"{value!r}\0".encode())
