"""The forward pass of Llama and its kin over tokens without padding, in as few operations as it takes.

transformers spends more on a small model's layers than their arithmetic costs: a pass over a hundred tokens of a model
of two layers takes more than twice as long. So the projections that read the same input are joined, and attention is
left to the caller, who knows which tokens belong together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tts.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor, dtype, nn

KIN = ("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model")

# (layer, queries [tokens, heads, size], keys and values [tokens, key heads, size]) -> mixed values as the queries
Attend = Callable[[int, "Tensor", "Tensor", "Tensor"], "Tensor"]


def is_kin(model: nn.Module, checkpoint: Checkpoint) -> bool:
    """Whether Llama can take a model's place: its architecture is known, and each token sees all tokens before it."""
    body = getattr(model, "model", model)
    if type(body).__name__ not in KIN:
        return False
    config, mlp = body.config, body.layers[0].mlp
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return (
        not (window and window < checkpoint.context)
        and "sliding_attention" not in (getattr(config, "layer_types", None) or ())
        and body.rotary_emb.rope_type not in ("dynamic", "longrope")  # whose angles depend on the length
        and config.hidden_act == "silu"
        and all(proj.bias is None for proj in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
    )


def bias(hidden: Tensor, dtype: dtype) -> Tensor:
    """What to add to scores so that those where hidden is True count for nothing."""
    import torch

    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, torch.finfo(dtype).min)


def attention(asked: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Attention of scaled queries [batch, tokens, heads, size]; the result is shaped as they are.

    keys and values [batch, key heads, columns, size]: each head of theirs serves as many of the queries' in a row.
    bias [batch, tokens, columns] is added to the scores.
    """
    batch, tokens, _, size = asked.shape
    heads, columns = keys.shape[1:3]
    grouped = asked.view(batch, tokens, heads, -1, size).transpose(1, 2).reshape(batch, heads, -1, size)
    scores = (grouped @ keys.transpose(2, 3)).view(batch, heads, tokens, -1, columns) + bias[:, None, :, None]
    mixed = scores.softmax(-1).view(batch, heads, -1, columns) @ values
    return mixed.view(batch, heads, tokens, -1, size).transpose(1, 2).reshape(batch, tokens, -1, size)


def tolerance(dtype: dtype) -> float:
    """How far results may lie from those of transformers, whose norms are in float32 whatever the type of the rest."""
    import torch

    return 5 * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps) ** 0.5


class Llama:
    """A model of transformers (see is_kin) taken apart: its modules lose their weights to this one."""

    def __init__(self, model: nn.Module, checkpoint: Checkpoint) -> None:
        import torch

        self._torch, self._functional = torch, torch.nn.functional
        body = getattr(model, "model", model)
        config = body.config
        some = body.layers[0].self_attn
        self.size, self.scaling = some.head_dim, some.scaling
        self.heads, self.key_heads = (
            proj.weight.shape[0] // self.size for proj in (some.q_proj, some.k_proj)
        )  # of queries, and of keys
        self.device, self.dtype = some.q_proj.weight.device, some.q_proj.weight.dtype
        self._eps, self._norm, self._embedding = config.rms_norm_eps, body.norm.weight, body.embed_tokens.weight
        self._head = getattr(model, "lm_head", None)
        with torch.inference_mode():
            places = torch.arange(checkpoint.context, device=self.device)[None]
            cos, sin = body.rotary_emb(self._embedding[:1], position_ids=places)
            half = self.size // 2  # rotating is x cos + roll(x) sin, if the sines of the first half are negative
            self._cos, self._sin = cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=1)
            self._layers = [_Layer(layer) for layer in body.layers]

    def __len__(self) -> int:
        return len(self._layers)

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend, wanted: Tensor | None = None) -> Tensor:
        """The last hidden states of the tokens wanted (indices; None for all), [wanted, width].

        ids and positions [tokens]: of any number of sequences, in any order.
        """
        functional, width = self._functional, (self._embedding.shape[1],)
        x = functional.embedding(ids, self._embedding)
        cos, sin = self._cos[positions][:, None], self._sin[positions][:, None]
        for i, layer in enumerate(self._layers):
            h = functional.rms_norm(x, width, layer.before_attention, self._eps)
            projected = functional.linear(h, layer.qkv, layer.qkv_bias).view(len(x), -1, self.size)
            asked, v = projected[:, : -self.key_heads], projected[:, -self.key_heads :]  # queries and keys; values
            if layer.q_norm is not None:
                asked = self._torch.cat(
                    [
                        functional.rms_norm(asked[:, : self.heads], (self.size,), layer.q_norm, self._eps),
                        functional.rms_norm(asked[:, self.heads :], (self.size,), layer.k_norm, self._eps),
                    ],
                    dim=1,
                )
            asked = (asked * cos).addcmul_(asked.roll(self.size // 2, -1), sin)
            mixed = attend(i, asked[:, : self.heads], asked[:, self.heads :], v).flatten(1)
            if wanted is not None and i == len(self._layers) - 1:  # nothing reads the others any more
                x, mixed = x[wanted], mixed[wanted]
            x = x + functional.linear(mixed, layer.out, layer.out_bias)
            h = functional.rms_norm(x, width, layer.before_mlp, self._eps)
            gate, up = functional.linear(h, layer.gate_up).chunk(2, dim=-1)
            x = x + functional.linear(functional.silu(gate).mul_(up), layer.down)
        return functional.rms_norm(x, width, self._norm, self._eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, vocabulary]."""
        return self._head(hidden)


class _Layer:
    """The weights of a layer, joined. The module's own are let go, so that memory holds them once."""

    def __init__(self, layer: nn.Module) -> None:
        import torch

        attention, mlp = layer.self_attn, layer.mlp
        self.before_attention, self.before_mlp = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        projections = attention.q_proj, attention.k_proj, attention.v_proj
        self.qkv = torch.cat([proj.weight for proj in projections])
        biases = [proj.bias for proj in projections]
        self.qkv_bias = None if biases[0] is None else torch.cat(biases)
        self.q_norm = attention.q_norm.weight if hasattr(attention, "q_norm") else None
        self.k_norm = attention.k_norm.weight if hasattr(attention, "k_norm") else None
        self.out, self.out_bias = attention.o_proj.weight, attention.o_proj.bias
        self.gate_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
        self.down = mlp.down_proj.weight
        layer.self_attn = layer.mlp = None
