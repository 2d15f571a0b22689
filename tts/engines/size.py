"""What one token costs a model of any architecture that transformers has: its config built without weights, counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tts.errors import InputError
from tts.usage import Size


def count_size(config: Mapping[str, object]) -> Size:
    """The size of a config.json's model: its matrices, and what torch's own counter adds for the attention of a token.

    Raises InputError for an architecture that transformers does not have as a causal language model, and for a mixture
    of experts, of whose weights each token meets another part.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):  # shapes only: nothing is allocated, nothing computed
            model = AutoModelForCausalLM.from_config(
                AutoConfig.for_model(**config),
                attn_implementation="eager",  # of the fused one the counter sees nothing
                dtype=torch.float32,  # another one would be the default of all threads for as long as this takes
            )
        with torch.no_grad(), FlopCounterMode(display=False) as counted:
            model(torch.zeros(1, 1, dtype=torch.long, device="meta"))
    except Exception as error:  # every architecture fails in its own way, and no run shall end for want of FLOPs
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"FLOPs aren't known of model_type {config.get('model_type')!r}: {line}") from None
    if any(weights.dim() > 2 for weights in model.parameters()):
        raise InputError(
            f"FLOPs aren't known of model_type {config['model_type']!r}: its weights are no plain matrices"
        )

    head = model.get_output_embeddings()
    parts = [part for part in model.modules() if part is not head and not isinstance(part, torch.nn.Embedding)]
    matrices = [weights for part in parts for weights in part.parameters(recurse=False) if weights.dim() == 2]
    size = Size(sum(matrix.numel() for matrix in matrices), head.weight.numel(), attention=0)
    # What a token that sees itself alone costs beyond the matrices is its attention.
    return replace(size, attention=(counted.get_total_flops() - size.flops(1, logits=1)) // 4)
