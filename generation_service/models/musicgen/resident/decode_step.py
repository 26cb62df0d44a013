"""One decode step, and one piece of a prefill, as functions of tensors: they are captured as CUDA graphs.

Nothing here reads a tensor on the host, copies to or from it, or has a shape that depends on values. What changes from
step to step is in `DecodeState`, which a step reads and updates, so that the next one can be launched at once.

The two rows of a request are adjacent, first the conditional one, as everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from generation_service.models.musicgen.adapters.adapter_targets import EMBEDDING
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.kernels.paged_attention import LayerPages, append, locate
from generation_service.models.musicgen.kernels.step_ends import (
    GUIDANCE_SCALE,
    POSITION,
    SAMPLE_COUNT,
    SEED,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    CodeEmbeddings,
    StepInputs,
)
from generation_service.models.musicgen.lm.decoder_layers import (
    DecoderLayer,
    DecoderWeights,
    map_linears,
    sinusoidal_embeddings,
)
from generation_service.models.musicgen.resident.adapter_bank import AdapterBank
from generation_service.models.musicgen.resident.decode_operations import DecodeOperations
from generation_service.models.musicgen.resident.decode_state import MAX_PROMPT_TOKENS, DecodeState
from generation_service.models.musicgen.resident.page_pool import PagePool
from generation_service.models.musicgen.sampling import CFG_ROWS, SamplingTensors

MAX_TOP_K = 256
"""Steps whose requests all have at most this top-k, and no top-p, are faster."""


class StepShape(NamedTuple):
    """What a captured step is made for. A step uses the smallest shape that is large enough."""

    batch: int
    """Number of requests."""
    positions: int
    """Positions that self-attention may read."""
    tokens: int
    """The same for cross-attention."""
    samples_any: bool
    """Whether requests may have any top-k and top-p."""
    combines: bool = False
    """Whether requests may have several branches."""
    adapters: int = 0
    """The version of the adapter bank if requests may have adapters, else 0. The same holds for the other shapes."""


class PrefillShape(NamedTuple):
    """The same for a piece of a prefill."""

    positions: int
    tokens: int
    has_prefix: bool = False
    """Whether the piece may have positions of the prefix."""
    adapters: int = 0


class PromptShape(NamedTuple):
    """The same for the keys and values of a prompt."""

    tokens: int
    adapters: int = 0


class DecodeStep:
    """The language model with its state."""

    def __init__(
        self,
        config: LmConfig,
        weights: DecoderWeights,
        operations: DecodeOperations,
        state: DecodeState,
        pool: PagePool,
        prefill_positions: int,
        bank: AdapterBank | None = None,
    ) -> None:
        """`prefill_positions` is the number of positions in a piece of a prefill."""
        self.config = config
        self._bank = bank or AdapterBank(state.device, state.padding_slot)
        self._weights = weights = map_linears(weights, self._bank.adapt)
        self._operations = operations
        self._state = state
        self._pool = pool
        device = state.device
        positions = sinusoidal_embeddings(state.max_positions, config).to(device)
        self._embeddings = CodeEmbeddings(weights.embedding, weights.offsets, positions)
        self._delays = torch.tensor(config.delays, device=device)
        self._tokens = torch.arange(MAX_PROMPT_TOKENS, device=device)
        self._piece = torch.arange(prefill_positions, device=device)

    def compute_prompt(self, shape: PromptShape) -> None:
        """Projects the keys and values of `DecodeState.prompt` for all layers.

        Those of tokens that the prompt does not have go to page 0, or to the rest of its last page, where nobody reads.
        """
        state = self._state
        text, positions = state.prompt[: shape.tokens], self._tokens[: shape.tokens]
        table = state.prompt_tables.flatten(0, 1)[state.prompt_row]
        places = locate(table.expand(shape.tokens, -1), positions)
        self._bank.select(state.prompt_row // CFG_ROWS if shape.adapters else None, shape.tokens)
        for layer, stored in zip(self._weights.layers, self._pool.layers, strict=True):
            keys, values = layer.cross_kv(text).view(shape.tokens, 2, self.config.num_heads, -1).unbind(1)
            append(keys, values, stored, places)

    def compute_prefill(self, shape: PrefillShape) -> None:
        """Reads a piece of a slot's prefix and known codes: writes the keys and values that single steps would write.

        Positions of the piece that are not known yet get values that the steps at these positions will overwrite.
        """
        state, count = self._state, len(self._piece)
        slot, first = state.prefill[:1], state.prefill[1]
        positions = (first + self._piece).clamp_max(state.codes.shape[2] - 2)  # [n]; the last column is never read
        codes = state.codes[slot][0].index_select(1, positions).t()  # [n, K]
        self._bank.select(slot if shape.adapters else None, CFG_ROWS * count)
        x = self._add_to_embedding(codes, self._embeddings.embed(codes, positions))  # [2 n, dim]
        if shape.has_prefix:
            prefix = (state.prefix + self._embeddings.positions[positions][:, None]).flatten(0, 1)  # [2 n, dim]
            is_prefix = (positions < state.prefill[2])[:, None].expand(-1, CFG_ROWS).reshape(-1, 1)
            x = torch.where(is_prefix, prefix, x)
        row_positions = positions[:, None].expand(-1, CFG_ROWS).flatten()  # [2 n]

        def rows_of(table: Tensor) -> Tensor:
            return table[slot].expand(count, *table.shape[1:]).flatten(0, 1)

        table = rows_of(state.tables)
        places, lengths = locate(table, row_positions), row_positions + 1
        prompt_table, tokens = rows_of(state.prompt_tables), rows_of(state.prompt_tokens)
        last = len(self._weights.layers) - 1
        for index, (layer, pages) in enumerate(zip(self._weights.layers, self._pool.layers, strict=True)):
            query, keys, values = self._project(x, layer).unbind(1)
            append(keys, values, pages, places)
            if index == last:
                break  # The rest of the last layer is needed only for logits.
            attended = self._operations.attend(query, pages, table, lengths, shape.positions)
            x = self._finish_layer(x, attended, layer, pages, (prompt_table, tokens, shape.tokens, None))

    def compute_step(self, shape: StepShape) -> None:
        """One step of the requests in `DecodeState.rows`, of which it computes the first `shape.batch`."""
        state, operations = self._state, self._operations
        inputs = operations.begin_step(state, shape.batch, self._embeddings)
        slots, x = state.rows[: shape.batch], inputs.x
        self._bank.select(slots if shape.adapters else None, CFG_ROWS)
        if shape.adapters:
            x = self._add_to_embedding(state.codes[slots, :, inputs.integers[POSITION]], x)
        positions = state.integers[POSITION][:, None].expand(-1, CFG_ROWS)
        prompts = state.prompt_tables, state.prompt_tokens, shape.tokens, slots
        for layer, pages in zip(self._weights.layers, self._pool.layers, strict=True):
            qkv = self._project(x, layer)
            attended = operations.append_and_attend(qkv, pages, state.tables, positions, shape.positions, slots)
            x = self._finish_layer(x, attended, layer, pages, prompts)
        logits = self._weights.heads.normed(x, self._weights.out_norm).float()
        logits = logits.view(shape.batch, CFG_ROWS, self.config.n_q, self.config.card)
        if shape.combines:
            logits = operations.combine_branches(logits, state.sources, state.weights, inputs.integers)
        sampled, is_finite = self._sample(logits, inputs, samples_any=shape.samples_any)
        operations.end_step(state, inputs.integers, sampled, is_finite, self._delays)

    def _add_to_embedding(self, codes: Tensor, x: Tensor) -> Tensor:
        """codes: int64 [B, K]; x: [2 B, dim]."""
        if not self._bank.has(EMBEDDING):
            return x
        return self._bank.add(EMBEDDING, (codes + self._embeddings.offsets).repeat_interleave(CFG_ROWS, 0), x)

    def _project(self, x: Tensor, layer: DecoderLayer) -> Tensor:
        """[R, dim] → queries, keys and values, [R, 3, H, D]."""
        return layer.qkv.normed(x, layer.norm_self).view(len(x), 3, self.config.num_heads, self.config.head_dim)

    def _finish_layer(
        self,
        x: Tensor,
        attended: Tensor,
        layer: DecoderLayer,
        pages: LayerPages,
        prompts: tuple[Tensor, Tensor, int, Tensor | None],
    ) -> Tensor:
        """Everything after self-attention. x, attended: [R, dim] → [R, dim]. prompts: the arguments of `attend`.

        Rows without a text have no tokens to attend to, so that their cross-attention adds 0. To leave them out would
        save little, since the weights are read in any case, and would cost a kernel to take the rows apart.
        """
        x = layer.out.add_residual(attended, x)
        if layer.has_cross_attention:
            query = layer.cross_q.normed(x, layer.norm_cross).view(len(x), self.config.num_heads, self.config.head_dim)
            text = self._operations.attend(query, pages, *prompts)
            x = layer.cross_out.add_residual(text, x)
        return layer.down.add_residual(layer.up.normed(x, layer.norm_ff, gelu=True), x)

    def _sample(self, logits: Tensor, inputs: StepInputs, *, samples_any: bool) -> tuple[Tensor, Tensor]:
        """logits: [B, 2, K, card] → codes and whether the logits of each codebook are finite: [B, K]."""
        integers, floats = inputs.integers, inputs.floats
        parameters = SamplingTensors(
            guidance_scale=floats[GUIDANCE_SCALE],
            temperature=floats[TEMPERATURE],
            top_k=integers[TOP_K],
            top_p=floats[TOP_P],
            seed=integers[SEED],
        )
        return self._operations.sample_checked(
            logits,
            parameters,
            integers[SAMPLE_COUNT],
            max_top_k=self.config.card if samples_any else MAX_TOP_K,
            uses_top_p=samples_any,
        )
