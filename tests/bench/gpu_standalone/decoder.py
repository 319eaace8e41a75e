"""A plain torch decoder of a Llama's shape with random weights, which reads its KV cache by blocks as an engine does.

`decoding.py` runs it.
"""

from dataclasses import dataclass
from typing import Any, Final

from tests.bench.gpu_standalone.machine import Device
from tests.bench.gpu_standalone.store import make_cache

Tensor = Any

_GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama's sizes, and the free memory that a run with it needs."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int
    gpu_bytes: int


EIGHT_BILLION: Final = Shape("8B", 32, 4096, 32, 8, 128, 14_336, 128_256, 24 * _GIB)
ONE_BILLION: Final = Shape("1B", 16, 2048, 32, 8, 64, 8_192, 128_256, 6 * _GIB)
TINY: Final = Shape("tiny", 2, 32, 4, 2, 8, 64, 128, 0)


def shape_for(gpu_bytes: int, dry: bool) -> Shape:
    """The largest that fits in this much free memory; a tiny one in a dry run."""
    if dry:
        return TINY
    return EIGHT_BILLION if gpu_bytes >= EIGHT_BILLION.gpu_bytes else ONE_BILLION


class Decoder:
    """Decodes one token for each request of a batch per step. `spare_blocks` of its cache belong to no request."""

    def __init__(self, shape: Shape, device: Device, batch: int, context: int, block_size: int, spare_blocks: int) -> None:
        import torch

        self._shape, self._device, self._context = shape, device, context
        per_request = context // block_size
        self.spare = tuple(range(batch * per_request, batch * per_request + spare_blocks))
        self.cache = make_cache(device, shape.layers, batch * per_request + spare_blocks, shape.kv_heads, block_size, shape.head_dim)
        self._table = torch.arange(batch * per_request, device=device.name).view(batch, per_request)
        self._tokens = torch.arange(batch, device=device.name)
        # Half of the context is there; a step writes the next place of it, and begins anew at its end.
        self._place = torch.full((1,), context // 2, dtype=torch.long, device=device.name)
        self._said = device.host_buffer(8 * batch).view(torch.long)
        self._embedding = self._random(shape.vocabulary, shape.hidden)
        self._head = self._random(shape.hidden, shape.vocabulary)
        attention = shape.heads * shape.head_dim
        self._weights = [
            (
                self._random(shape.hidden, attention + 2 * shape.kv_heads * shape.head_dim),
                self._random(attention, shape.hidden),
                self._random(shape.hidden, 2 * shape.inner),
                self._random(shape.inner, shape.hidden),
            )
            for _ in range(shape.layers)
        ]
        self._graph: Any = None
        self.without_graph = "on a CPU" if device.dry else ""

    def capture(self) -> None:
        """Makes a CUDA graph of a step. Where that fails the steps are launched one kernel at a time, and `without_graph` says why."""
        import torch

        if self._device.dry:
            return
        try:
            beside = torch.cuda.Stream()
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                for _ in range(3):
                    self._step()
            torch.cuda.current_stream().wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._step()
            self._graph = graph
        except RuntimeError as error:
            self.without_graph = str(error).splitlines()[0]

    def launch(self) -> None:
        """Asks the device for a step, and for its tokens on the host."""
        if self._graph is None:
            self._step()
        else:
            self._graph.replay()
        self._said.copy_(self._tokens, non_blocking=True)

    def tokens(self) -> list[int]:
        """Waits for the step's stream, and not for what runs beside it."""
        import torch

        if not self._device.dry:
            torch.cuda.current_stream().synchronize()
        return [int(token) for token in self._said.tolist()]

    def _random(self, rows: int, columns: int) -> Tensor:
        import torch

        # As large as keeps the numbers where they are from layer to layer.
        return torch.empty(rows, columns, dtype=torch.bfloat16, device=self._device.name).normal_(0.0, rows**-0.5)

    def _step(self) -> None:
        import torch

        hidden = self._embedding.index_select(0, self._tokens)
        for layer, weights in zip(self.cache.values(), self._weights, strict=True):
            into, out, gate_up, down = weights
            hidden = hidden + self._attend(layer, _norm(hidden) @ into) @ out
            gate, up = (_norm(hidden) @ gate_up).chunk(2, dim=-1)
            hidden = hidden + (torch.nn.functional.silu(gate) * up) @ down
        self._tokens.copy_((_norm(hidden) @ self._head).argmax(-1))
        self._place.add_(1).remainder_(self._context)

    def _attend(self, layer: Tensor, projected: Tensor) -> Tensor:
        import torch

        shape, batch, block_size = self._shape, len(self._tokens), layer.shape[2]
        queries, keys, values = projected.split([shape.heads * shape.head_dim] + 2 * [shape.kv_heads * shape.head_dim], dim=-1)
        queries = self._turned(queries.view(batch, shape.kv_heads, -1, shape.head_dim))
        keys = self._turned(keys.view(batch, shape.kv_heads, 1, shape.head_dim))
        new = torch.cat([keys.squeeze(2), values.view(batch, shape.kv_heads, shape.head_dim)], dim=-1)
        block = self._table.index_select(1, self._place // block_size).view(-1)
        layer[block, :, (self._place % block_size).expand(batch)] = new
        # The blocks of each request side by side: [batch, KV heads, tokens, both].
        known = layer.index_select(0, self._table.view(-1)).unflatten(0, self._table.shape).transpose(1, 2).flatten(2, 3)
        scores = (queries @ known[..., : shape.head_dim].transpose(2, 3)).float() * shape.head_dim**-0.5
        seen = torch.arange(self._context, device=scores.device) <= self._place
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1).to(known.dtype)
        return (weights @ known[..., shape.head_dim :]).reshape(batch, -1)

    def _turned(self, vectors: Tensor) -> Tensor:
        """Rotary position embedding."""
        import torch

        half = self._shape.head_dim // 2
        angles = self._place * 10_000.0 ** -(torch.arange(half, device=vectors.device) / half)
        cosine, sine = angles.cos().to(vectors.dtype), angles.sin().to(vectors.dtype)
        first, second = vectors[..., :half], vectors[..., half:]
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def _norm(hidden: Tensor) -> Tensor:
    wide = hidden.float()
    return (wide * (wide.square().mean(-1, keepdim=True) + 1e-5).rsqrt()).to(hidden.dtype)
