"""FLOPs of a decoder: 2 x weights x tokens for what multiplies every token, plus the attention to earlier tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tts.errors import InputError, first_line
from tts.models.config import read_setting

LLAMA_KIND = ("llama", "mistral", "qwen2", "qwen3")  # model_type: grouped queries, a gated MLP of three matrices


@dataclass(frozen=True)
class Size:
    """The numbers of a decoder that its FLOPs follow from."""

    weights: int  # of the matrices in all layers; embeddings are looked up, not multiplied
    head: int  # of the matrix that makes logits, even if it is tied to the embeddings
    attention: int  # layers x heads x size of a head

    @classmethod
    def of(cls, config: Mapping[str, object]) -> Size:
        """From a config.json of LLAMA_KIND. Raises InputError for any other: see count_size.

        The names of the settings don't tell the kind: GPT-NeoX has them all, but no gate in its MLP.
        """
        kind = (config.get("text_config") or config).get("model_type")
        if kind not in LLAMA_KIND:
            raise InputError(f"model_type is {kind!r}: give one of {', '.join(LLAMA_KIND)}")
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
        width, layers, heads, inner, words = (read_setting(config, name) for name in names)
        size = read_setting(config, "head_dim") or width // heads
        groups = read_setting(config, "num_key_value_heads") or heads
        layer = 2 * width * (heads + groups) * size + 3 * width * inner
        return cls(layers * layer, width * words, layers * heads * size)

    def flops(self, new: int, past: int = 0, *, logits: int = 0) -> int:
        """FLOPs to read `new` tokens after `past` known ones and to make logits over the vocabulary at some of them."""
        return self.total(new, attended(new, past), logits)

    def total(self, tokens: int, pairs: int, logits: int) -> int:
        """FLOPs of so many tokens read, pairs (see attended) and tokens at which logits are made."""
        return 2 * (self.weights * tokens + self.head * logits) + 4 * self.attention * pairs


NO_MODEL = Size(0, 0, 0)  # of a scorer that computes without weights: it reads no tokens


def attended(new: int, past: int = 0) -> int:
    """The number of pairs (token, token it sees) of `new` tokens after `past`: each sees itself and all before it."""
    return new * past + new * (new + 1) // 2


def count_size(config: Mapping[str, object]) -> Size:
    """The size of any model, from the matrices that transformers builds for config.json and from torch's FLOP counter.

    Raises InputError for an architecture that transformers does not have as a causal language model, and for a mixture
    of experts, where each token uses a different part of the weights.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = meta_model(config)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counted:
            model(torch.zeros(1, 1, dtype=torch.long, device="meta"))
    except Exception as error:  # architectures fail in many ways, and no run may end because FLOPs are unknown
        kind = config.get("model_type")
        raise InputError(f"the FLOPs of model_type {kind!r} are unknown: {first_line(error)}") from None
    if any(weights.dim() > 2 for weights in model.parameters()):
        raise InputError(
            f"the FLOPs of model_type {config['model_type']!r} are unknown: its weights are not plain matrices"
        )

    head = model.get_output_embeddings()
    parts = [part for part in model.modules() if part is not head and not isinstance(part, torch.nn.Embedding)]
    matrices = [weights for part in parts for weights in part.parameters(recurse=False) if weights.dim() == 2]
    size = Size(sum(matrix.numel() for matrix in matrices), head.weight.numel(), attention=0)
    # The rest of the FLOPs of a token that sees only itself is its attention.
    return replace(size, attention=(counted.get_total_flops() - size.flops(1, logits=1)) // 4)


def meta_model(config: Mapping[str, object]):
    """The model that transformers builds for a config.json, as shapes alone: nothing is allocated.

    Raises InputError for an architecture that transformers does not have as a causal language model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                AutoConfig.for_model(**config),
                attn_implementation="eager",  # the FLOP counter doesn't see the fused one
                dtype=torch.float32,  # any other would be the default of all threads meanwhile
            )
    except Exception as error:  # architectures fail in many ways
        kind = config.get("model_type")
        raise InputError(f"the shape of model_type {kind!r} is unknown: {first_line(error)}") from None
