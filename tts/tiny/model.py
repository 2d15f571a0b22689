"""A Llama small enough to train on a CPU, saved as LlamaForCausalLM.

Attention is written out as two products: the backward of PyTorch's masked fused attention is several times slower on a
CPU at these sizes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """The size of a model."""

    width: int
    layers: int
    heads: int
    hidden: int  # of the gated feed-forward layer
    context: int = 512
    vocabulary: int = 320  # at most; a model that is trained has exactly the tokenizer's

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def rotary(length: int, dim: int, *, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary positions, [length, dim], in Llama's two-halves layout."""
    frequency = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency)
    angle = torch.cat([angle, angle], dim=1)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys [batch, heads, time, dim] by their positions."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


class Norm(nn.Module):
    """Root-mean-square norm in the type of its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), 1e-5)


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.out = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, cache: list[Tensor] | None) -> Tensor:
        batch, time, width = x.shape
        q, k, v = self.qkv(x).view(batch, time, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:  # [keys, values], grown by this call
            if cache:
                k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
            cache[:] = [k, v]
        weights = q @ k.transpose(2, 3) * (width // self.heads) ** -0.5 + mask
        with torch.autocast(x.device.type, enabled=False):  # keeps the softmax in the activations' type
            weights = torch.softmax(weights, dim=-1)
        mixed = weights @ v
        return self.out(mixed.transpose(1, 2).reshape(batch, time, width))


class Block(nn.Module):
    """Attention, then the gated feed-forward layer, each added to the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.before_attention = Norm(shape.width)
        self.attention = Attention(shape)
        self.before_mlp = Norm(shape.width)
        self.gate_up = nn.Linear(shape.width, 2 * shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, cache: list[Tensor] | None) -> Tensor:
        x = x + self.attention(self.before_attention(x), cos, sin, mask, cache)
        gate, up = self.gate_up(self.before_mlp(x)).chunk(2, dim=-1)
        return x + self.down(functional.silu(gate) * up)


class TinyLlama(nn.Module):
    """Token ids [batch, time] to the last hidden states; `logits` turns these into next-token logits."""

    def __init__(self, shape: Shape, *, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width)
        cos, sin = rotary(shape.context, shape.width // shape.heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                # Residual outputs start small, so that tokens are told apart from the first step on: copying is
                # learnt twice as fast as with small embeddings.
                small = name.endswith(("out.weight", "down.weight"))
                std = (0.1 if small else 1.0) * weight.shape[1] ** -0.5
                with torch.no_grad():
                    weight.normal_(0.0, std, generator=generator)

    def forward(
        self,
        ids: Tensor,
        *,
        cache: list[list[Tensor]] | None = None,
        padding: Tensor | None = None,
        stream: list[Tensor] | None = None,
    ) -> Tensor:
        """Hidden states [batch, time, width]; what is between the blocks is appended to stream.

        cache holds a [keys, values] list for each layer (empty at first) and grows; padding [batch, past + time] is
        True where a slot on the left holds no token. Padding on the right needs none: nothing looks to the right.
        """
        past = cache[0][0].shape[2] if cache and cache[0] else 0
        time = ids.shape[1]
        x = self.embedding(ids)
        if torch.is_autocast_enabled(ids.device.type):  # everything between the layers too: memory is the bottleneck
            x = x.to(torch.get_autocast_dtype(ids.device.type))
        cos, sin = (table[past : past + time].to(x.dtype) for table in (self.cos, self.sin))
        mask = torch.full((time, past + time), float("-inf"), device=ids.device, dtype=x.dtype).triu(past + 1)
        if padding is not None:
            hidden = torch.zeros(padding.shape, device=ids.device, dtype=x.dtype).masked_fill(padding, -1e9)
            mask = mask + hidden[:, None, None, :]
        for i, block in enumerate(self.blocks):
            x = block(x, cos, sin, mask, cache[i] if cache is not None else None)
            if stream is not None:
                stream.append(x)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits; the output shares the embedding's weights."""
        return functional.linear(hidden, self.embedding.weight)

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())


def hub_weights(model: TinyLlama) -> dict[str, Tensor]:
    """The weights under the names of LlamaForCausalLM."""
    width, hidden = model.shape.width, model.shape.hidden
    named = {"model.embed_tokens.weight": model.embedding.weight, "model.norm.weight": model.norm.weight}
    for i, block in enumerate(model.blocks):
        head = f"model.layers.{i}."
        named[head + "input_layernorm.weight"] = block.before_attention.weight
        named[head + "post_attention_layernorm.weight"] = block.before_mlp.weight
        for j, name in enumerate("qkv"):
            named[head + f"self_attn.{name}_proj.weight"] = block.attention.qkv.weight[j * width : (j + 1) * width]
        named[head + "self_attn.o_proj.weight"] = block.attention.out.weight
        named[head + "mlp.gate_proj.weight"] = block.gate_up.weight[:hidden]
        named[head + "mlp.up_proj.weight"] = block.gate_up.weight[hidden:]
        named[head + "mlp.down_proj.weight"] = block.down.weight
    return {name: weight.detach().contiguous().clone() for name, weight in named.items()}


def from_hub_weights(shape: Shape, named: dict[str, Tensor]) -> TinyLlama:
    """The inverse of hub_weights."""
    model = TinyLlama(shape)
    state = {"embedding.weight": named["model.embed_tokens.weight"], "norm.weight": named["model.norm.weight"]}
    for i in range(shape.layers):
        head, own = f"model.layers.{i}.", f"blocks.{i}."
        state[own + "before_attention.weight"] = named[head + "input_layernorm.weight"]
        state[own + "before_mlp.weight"] = named[head + "post_attention_layernorm.weight"]
        state[own + "attention.qkv.weight"] = torch.cat([named[head + f"self_attn.{n}_proj.weight"] for n in "qkv"])
        state[own + "attention.out.weight"] = named[head + "self_attn.o_proj.weight"]
        state[own + "gate_up.weight"] = torch.cat([named[head + f"mlp.{n}_proj.weight"] for n in ("gate", "up")])
        state[own + "down.weight"] = named[head + "mlp.down_proj.weight"]
    model.load_state_dict({name: weight.float() for name, weight in state.items()})
    return model
