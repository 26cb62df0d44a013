"""Encodes prompts for the language model: T5's encoder, followed by the projection in the checkpoint.

Source: audiocraft 1.3.0, `modules/conditioners.py`, T5Conditioner. Like audiocraft, it computes in fp32 on every
device: T5 runs once a prompt, outside of the decode loop, and in bf16 the encoding would be 1 % off.
"""

from __future__ import annotations

import contextlib
import reprlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dgx_music.errors import FailedPrecondition
from generation_service.models.device_errors import is_out_of_memory
from generation_service.models.musicgen.adapters.adapter_targets import TEXT_PROJECTION
from generation_service.models.musicgen.adapters.adapter_weights import AppliedAdapter, describe_adapters
from generation_service.models.musicgen.checkpoints.checkpoint import (
    Checkpoint,
    StoredTextEncoder,
    invalid_checkpoint,
    missing_checkpoint,
)
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.conditioners.packed_layers import pack_layers
from generation_service.models.musicgen.conditioners.padded_batches import MAX_ROWS, PaddedBatches
from generation_service.models.musicgen.conditioners.prompt_cache import PromptCache
from service_runtime.optional_deps import install_extra_command

MAX_CACHED_PROMPTS = 1024
"""More than the engine has encoded ahead, which is a batch and a few more."""
MAX_CACHED_BYTES = 256 << 20
_PROBE = "calm piano"
_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")
"""One tensor, which files have under either name or both."""


@dataclass(frozen=True, slots=True)
class _EncodedPrompt:
    tensor: Tensor
    """[T, dim]"""
    is_computed: torch.cuda.Event | None
    """Recorded after the computation on the conditioner's stream; None on the CPU."""


class TextConditioner:
    """Encodes prompts on the device that holds its weights, and keeps the latest results. Any thread can call it.

    A prompt's encoding does not depend, bit for bit, on what is encoded with it. On the CPU each prompt is encoded
    alone and without padding; on CUDA in batches of fixed shapes, on a stream of its own.
    """

    def __init__(self, checkpoint: Checkpoint, config: LmConfig, device: str = "cpu") -> None:
        """Loads T5 with it. Raises FailedPrecondition if it is missing or does not fit."""
        prefix = f"condition_provider.conditioners.{config.condition}.output_proj."
        state = checkpoint.map_tensors()
        try:
            self._weight = state[f"{prefix}weight"].to(device, torch.float32, copy=True)  # [dim, d_model]
            self._bias = state[f"{prefix}bias"].to(device, torch.float32, copy=True)  # [dim]
        except KeyError as error:
            raise invalid_checkpoint(
                checkpoint.path, f"best_state has no {error.args[0]}; expected a MusicGen model"
            ) from error
        self._tokenizer, self._encoder = _load_t5(checkpoint.open_text_encoder())
        self._encoder.to(device)
        expected = (config.dim, self._encoder.config.d_model)
        if tuple(self._weight.shape) != expected:
            raise invalid_checkpoint(
                checkpoint.path, f"{prefix}weight is {list(self._weight.shape)}; expected {list(expected)}"
            )
        self._cache: PromptCache[_EncodedPrompt] = PromptCache(MAX_CACHED_PROMPTS, MAX_CACHED_BYTES)
        self._lock = threading.Lock()  # Neither the tokenizer nor the batches may be used by two threads at once.
        self._stream: torch.cuda.Stream | None = None
        self._batches: PaddedBatches | None = None
        if self._weight.is_cuda:
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.current_stream())
            self._batches = PaddedBatches(self._run_t5, self._weight.device)
        else:
            pack_layers(self._encoder)

    @property
    def prompt_batch_size(self) -> int:
        """How many prompts are encoded at once. On the CPU, more would only delay the first of them."""
        return MAX_ROWS if self._batches else 1

    def encode_prompts(self, prompts: Sequence[str], adapters: Sequence[AppliedAdapter] = ()) -> None:
        """Encodes the prompts whose encoding is not known yet, for `encode` to find it."""
        if adapters := _of_projection(adapters):
            for prompt in filter(None, dict.fromkeys(prompts)):
                self._find_adapted(prompt, adapters)
            return
        unknown = [prompt for prompt in dict.fromkeys(prompts) if prompt and self._cache.get(prompt) is None]
        if unknown:
            self._encode(unknown)

    def encode(self, prompt: str, adapters: Sequence[AppliedAdapter] = ()) -> Tensor | None:
        """The encoded prompt, [T, dim], or None if the prompt is empty, which means no conditioning.

        The current stream waits for the computation. The tensor is shared: it must not be modified. Adapters that
        change the projection are added to it.
        """
        if not prompt:
            return None
        if adapters := _of_projection(adapters):
            encoded = self._find_adapted(prompt, adapters)
        else:
            encoded = self._cache.get(prompt) or self._encode([prompt])[0]
        if encoded.is_computed is not None:
            stream = torch.cuda.current_stream()
            stream.wait_event(encoded.is_computed)
            encoded.tensor.record_stream(stream)  # It may be dropped from the cache while the stream reads it.
        return encoded.tensor

    @torch.inference_mode()
    def _encode(self, prompts: list[str]) -> list[_EncodedPrompt]:
        on_stream = torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext()
        with self._lock, on_stream:
            sequences: list[list[int]] = self._tokenizer(prompts)["input_ids"]
            if self._batches is None:
                tensors = [self._run_t5(tokens, torch.ones_like(tokens))[0] for tokens in map(_to_row, sequences)]
            else:
                tensors = self._batches.encode(sequences)
            is_computed = self._stream.record_event() if self._stream else None
        encoded = [_EncodedPrompt(tensor, is_computed) for tensor in tensors]
        for prompt, each in zip(prompts, encoded, strict=True):
            self._cache.put(prompt, each, each.tensor.nbytes)
        return encoded

    def _find_adapted(self, prompt: str, adapters: Sequence[AppliedAdapter]) -> _EncodedPrompt:
        key = f"{prompt}\0{describe_adapters(adapters)}"
        return self._cache.get(key) or self._encode_adapted(key, prompt, adapters)

    @torch.inference_mode()
    def _encode_adapted(self, key: str, prompt: str, adapters: Sequence[AppliedAdapter]) -> _EncodedPrompt:
        on_stream = torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext()
        with self._lock, on_stream:
            tokens = torch.tensor(self._tokenizer([prompt])["input_ids"], device=self._weight.device)
            hidden = self._encoder(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state[0]
            text = F.linear(hidden, self._weight, self._bias)
            for adapter in adapters:
                layer = adapter.weights.layers[TEXT_PROJECTION]
                a, b = layer.a.to(hidden.device), layer.b.to(hidden.device)
                text += adapter.scale * F.linear(F.linear(hidden, a), b)
            is_computed = self._stream.record_event() if self._stream else None
        encoded = _EncodedPrompt(text, is_computed)
        self._cache.put(key, encoded, text.nbytes)
        return encoded

    def _run_t5(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Token ids and attention mask, [B, T] → [B, T, dim]."""
        hidden = self._encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        return F.linear(hidden, self._weight, self._bias)


def _cause(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _of_projection(adapters: Sequence[AppliedAdapter]) -> list[AppliedAdapter]:
    return [adapter for adapter in adapters if TEXT_PROJECTION in adapter.weights.layers]


def _to_row(sequence: list[int]) -> Tensor:
    return torch.tensor([sequence])  # [1, T]


def _vocabulary(stored: StoredTextEncoder) -> int:
    """The number of tokens that have an embedding."""
    headers = [stored.headers[name] for name in _EMBEDDINGS if name in stored.headers]
    return headers[0].shape[0] if headers and headers[0].shape else 0


def _load_t5(stored: StoredTextEncoder) -> tuple[Any, Any]:
    """Tokenizer and encoder, in fp32 on the CPU."""
    try:
        from transformers import T5Config, T5EncoderModel, T5Tokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise FailedPrecondition(
            f"MusicGen needs the package transformers for its text encoder, but it is not installed ({error}); "
            f"install it with: {install_extra_command('musicgen')}",
            reason="TRANSFORMERS_MISSING",
        ) from error
    library_logging: Any = logging  # By default it prints progress bars, which would end up in the server's log.
    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    try:
        tokenizer = T5Tokenizer.from_pretrained(stored.tokenizer, local_files_only=True)
    except Exception as error:  # Its files are interpreted by libraries, which raise anything.
        raise missing_checkpoint(
            stored.tokenizer, f"its tokenizer can't be read ({_cause(error)}); download it again"
        ) from error
    if stored.config.get("model_type") != "t5":
        raise invalid_checkpoint(
            stored.path, f"the text encoder's model_type is {stored.config.get('model_type')!r}; expected 't5'"
        )
    if len(tokenizer) > _vocabulary(stored):
        problem = f"its tokenizer has {len(tokenizer)} tokens, but the text encoder {_vocabulary(stored)}"
        raise invalid_checkpoint(stored.tokenizer, f"{problem}; they belong to different models")
    layers = stored.config.get("num_layers")
    if not isinstance(layers, int) or layers > len(stored.headers):
        problem = f"num_layers of its text encoder is {layers!r}, but it has {len(stored.headers)} tensors"
        raise invalid_checkpoint(stored.path, problem)
    try:
        with torch.device("meta"):
            encoder: Any = T5EncoderModel(T5Config.from_dict(dict(stored.config)))
    except Exception as error:  # transformers validates some fields, and fails on others in the middle.
        raise invalid_checkpoint(stored.path, f"its configuration is not one of T5 ({_cause(error)})") from error
    weights, tensors = {}, stored.map_tensors()
    for name, expected in encoder.state_dict().items():
        stored_name = name
        if name in _EMBEDDINGS and name not in stored.headers:
            stored_name = next((each for each in _EMBEDDINGS if each in stored.headers), name)
        header = stored.headers.get(stored_name)
        if header is None:
            raise invalid_checkpoint(stored.path, f"it has no {name}; expected a T5 encoder")
        if header.shape != tuple(expected.shape):
            problem = f"{name} has the shape {list(header.shape)}; its configuration expects {list(expected.shape)}"
            raise invalid_checkpoint(stored.path, problem)
        weights[name] = tensors[stored_name].to(torch.float32, copy=True)  # The file may be replaced.
    encoder.load_state_dict(weights, assign=True)
    encoder.tie_weights()
    encoder.requires_grad_(False).eval()
    _check_t5(tokenizer, encoder, stored)
    return tokenizer, encoder


@torch.inference_mode()
def _check_t5(tokenizer: Any, encoder: Any, stored: StoredTextEncoder) -> None:
    """Encodes a text on the CPU. What is wrong with the tokenizer or the configuration shows now, not in a request."""
    try:
        [tokens] = tokenizer([_PROBE])["input_ids"]
        if not tokens or not 0 <= min(tokens) <= max(tokens) < _vocabulary(stored):
            raise ValueError(f"the text {_PROBE!r} has the tokens {reprlib.repr(tokens)}")
    except Exception as error:  # Its files are interpreted by libraries, which raise anything.
        raise invalid_checkpoint(stored.tokenizer, f"its tokenizer fails ({_cause(error)})") from error
    try:
        encoder(input_ids=_to_row(tokens), attention_mask=torch.ones_like(_to_row(tokens)))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        problem = f"the text encoder fails; its configuration is not that of its weights ({_cause(error)})"
        raise invalid_checkpoint(stored.path, problem) from error
