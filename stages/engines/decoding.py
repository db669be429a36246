"""The decode loop over a transformers model: batches by prompt length, keyed noise, finished answers leave the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from stages.engines.base import DecodeSpec, Repetition, Request, Response, answer_seed

CACHE_CHUNK = 64  # columns by which a cache grows; plain concatenation copies the whole cache at every token


class ChunkedLayer(DynamicLayer):
    """Key-value cache of one layer that grows by chunks; keys and values have shape (rows, heads, columns, head size)."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.length = 0
        self.keys = key_states.new_empty((*key_states.shape[:2], 0, key_states.shape[3]))
        self.values = value_states.new_empty((*value_states.shape[:2], 0, value_states.shape[3]))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        if end > self.keys.shape[2]:
            columns = -(-end // CACHE_CHUNK) * CACHE_CHUNK
            self.keys = self._grown(self.keys, columns)
            self.values = self._grown(self.values, columns)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _grown(self, states: torch.Tensor, columns: int) -> torch.Tensor:
        grown = states.new_empty((*states.shape[:2], columns, states.shape[3]))
        grown[:, :, : self.length] = states[:, :, : self.length]
        return grown

    def get_seq_length(self) -> int:
        return self.length if self.is_initialized else 0


def make_cache(config: Any) -> Any:
    """A chunked cache for plain attention; models with sliding windows get the library's own."""
    layer_types = getattr(config, "layer_types", None) or ["full_attention"]
    if set(layer_types) == {"full_attention"} and not getattr(config, "sliding_window", None):
        return Cache(layer_class_to_replicate=ChunkedLayer)
    return DynamicCache(config=config)


def noise(seed: int, count: int) -> np.ndarray:
    """`count` uniforms in [0, 1) for one answer; position i is the noise of its i-th token, whatever the batch."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


def choose_tokens(logits: torch.Tensor, uniforms: torch.Tensor, spec: DecodeSpec) -> torch.Tensor:
    """One token id per row by inverse transform: logits (rows, vocabulary), uniforms (rows,); temperature 0 is greedy."""
    if spec.temperature == 0.0:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits.double() / spec.temperature, dim=-1)
    order = None
    if spec.top_p < 1.0:
        probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities * (before < spec.top_p)
    cumulative = probabilities.cumsum(dim=-1)
    target = uniforms.unsqueeze(1) * cumulative[:, -1:]
    chosen = (cumulative <= target).sum(dim=-1).clamp(max=logits.shape[-1] - 1)
    return chosen if order is None else order.gather(1, chosen.unsqueeze(1)).squeeze(1)


def make_batches(requests: Sequence[Request], batch_size: int) -> list[list[Request]]:
    """Requests in batches of similar prompt length; the order depends on nothing but the requests."""
    ordered = sorted(requests, key=lambda r: (len(r.prompt_ids), r.problem_id, r.sample_index))
    return [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]


def repetition_end(token_ids: Sequence[int], repetition: Repetition | None) -> int | None:
    """Number of tokens after which vLLM would have cut the answer because it repeats itself; None if it would not.

    Found afterwards, so a repeating answer costs its whole length here; the answer is the same. The last token is
    never the place: an end token, or the limit, comes first in vLLM as well (0.31.0, v1/core/sched/utils.py, check_stop).
    """
    if repetition is None:
        return None
    ids = np.asarray(token_ids[:-1])
    ends = [
        end
        for size in range(1, repetition.max_pattern_size + 1)
        if (end := _first_end(ids, size, repetition.min_count)) is not None
    ]
    return min(ends, default=None)


def _first_end(ids: np.ndarray, size: int, count: int) -> int | None:
    """Length of the shortest prefix of `ids` (shape (n,)) that ends in `count` copies of a pattern of `size` tokens."""
    repeats = ids[size:] == ids[:-size]  # entry i: token i + size equals the one a pattern before
    wanted = size * (count - 1)  # so many such equalities in a row
    if len(repeats) < wanted:
        return None
    runs = np.convolve(repeats.astype(np.int64), np.ones(wanted, dtype=np.int64), mode="valid")
    full = np.flatnonzero(runs == wanted)
    return int(full[0]) + wanted + size if len(full) else None


class _Batch:
    """Rows in flight: left-padded prompts, then one column per decode step."""

    def __init__(self, model: Any, requests: list[Request], spec: DecodeSpec, seed: int, pad_id: int) -> None:
        self.requests, self.spec = requests, spec
        self.seeds = [answer_seed(seed, r.problem_id, r.sample_index) for r in requests]
        self.rows = torch.arange(len(requests), device=model.device)
        self.uniforms = torch.from_numpy(np.stack([noise(s, spec.max_tokens) for s in self.seeds])).to(model.device)
        self.tokens = torch.full((len(requests), spec.max_tokens), -1, device=model.device)
        width = max(len(r.prompt_ids) for r in requests)
        padded = [[pad_id] * (width - len(r.prompt_ids)) + list(r.prompt_ids) for r in requests]
        self.input_ids = torch.tensor(padded, device=model.device)
        pads = torch.tensor([width - len(r.prompt_ids) for r in requests], device=model.device)
        self.mask = (torch.arange(width, device=model.device) >= pads.unsqueeze(1)).long() if pads.any() else None
        self.positions = (torch.arange(width, device=model.device) - pads.unsqueeze(1)).clamp(min=0)
        self.cache = make_cache(model.config)

    def forward(self, model: Any) -> torch.Tensor:
        """Next-token logits of shape (rows in flight, vocabulary)."""
        output = model(
            input_ids=self.input_ids,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def extend(self, tokens: torch.Tensor) -> None:
        """Append one column."""
        self.input_ids = tokens.unsqueeze(1)
        self.positions = self.positions[:, -1:] + 1
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones((len(tokens), 1))], dim=1)

    def keep(self, kept: torch.Tensor) -> None:
        """Evict every row that is not in `kept` (indices into the rows in flight)."""
        self.rows, self.input_ids, self.positions = self.rows[kept], self.input_ids[kept], self.positions[kept]
        self.mask = None if self.mask is None else self.mask[kept]
        self.cache.batch_select_indices(kept)

    def response(self, row: int, num_tokens: int, finish_reason: str) -> Response:
        request = self.requests[row]
        token_ids = tuple(self.tokens[row, :num_tokens].tolist())
        cut = repetition_end(token_ids, self.spec.repetition)
        if cut is not None:
            token_ids, finish_reason = token_ids[:cut], "repetition"
        return Response(request.problem_id, request.sample_index, self.seeds[row], token_ids, finish_reason)


@torch.inference_mode()
def decode_batch(
    model: Any, requests: list[Request], spec: DecodeSpec, seed: int, evict_every: int
) -> Iterator[Response]:
    """Yield the answers of one batch, each within `evict_every` decode steps of its end token."""
    ends, pad_id = end_ids(model)
    batch = _Batch(model, requests, spec, seed, pad_id)
    finished = torch.zeros(len(requests), dtype=torch.bool, device=model.device)  # of the rows in flight
    lengths = torch.zeros(len(requests), dtype=torch.long, device=model.device)  # of every request
    for step in range(spec.max_tokens):
        tokens = choose_tokens(batch.forward(model), batch.uniforms[batch.rows, step], spec)
        batch.tokens[batch.rows, step] = tokens
        lengths[batch.rows[~finished]] = step + 1
        finished |= torch.isin(tokens, ends)
        batch.extend(tokens)
        last = step + 1 == spec.max_tokens
        if last or (step % evict_every == evict_every - 1 and bool(finished.any())):
            for row in batch.rows[finished].tolist():
                yield batch.response(row, int(lengths[row]), "stop")
            if last:
                for row in batch.rows[~finished].tolist():
                    yield batch.response(row, spec.max_tokens, "length")
                return
            kept = (~finished).nonzero().squeeze(1)
            if len(kept) == 0:
                return
            batch.keep(kept)
            finished = finished[kept]


def end_ids(model: Any) -> tuple[torch.Tensor, int]:
    """Ids that end an answer, and an id for padding (which is masked)."""
    ends = model.generation_config.eos_token_id
    ends = model.config.eos_token_id if ends is None else ends
    ends = [ends] if isinstance(ends, int) else list(ends)
    return torch.tensor(ends, device=model.device), ends[0]
