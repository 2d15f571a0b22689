"""How hidden states become scores: the torch side of a format's head, loaded together with the model behind it."""

from __future__ import annotations

from tts.engines.model import Model
from tts.errors import InputError
from tts.formats import Format, TokenHead

LEAST_MASS = 0.5  # of the probability that a PRM puts on its two answers; a trained one puts nearly all of it there


def load_head(model: Model, layout_of: Format, dtype: str, device: str) -> tuple:
    """(backbone, head): token ids to last hidden states [batch, tokens, width], and these [n, width] to scores [n]."""
    return _load_token_head(model, layout_of.head, dtype, device)


def _load_token_head(model: Model, head: TokenHead, dtype: str, device: str) -> tuple:
    import torch
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(model.download(), dtype=dtype).eval().to(device)
    output = whole.get_output_embeddings()
    chosen = torch.tensor([head.good, head.bad], device=device)
    if max(head.good, head.bad) >= output.weight.shape[0]:
        raise InputError(
            f"prm_model={model.name}: its tokenizer numbers tokens up to {max(head.good, head.bad)}, "
            f"the model knows {output.weight.shape[0]}: they do not belong together"
        )
    weight, checked = output.weight[chosen], False

    def score(hidden):
        nonlocal checked
        logits = torch.nn.functional.linear(hidden, weight).double()
        if not checked:
            everything = output(hidden[:64]).double().logsumexp(-1)
            check_mass(model, (logits[:64].logsumexp(-1) - everything).exp().mean().item())
            checked = True
        return logits.softmax(-1)[:, 0]

    return whole.base_model, score


def check_mass(model: Model, mass: float) -> None:
    """Refuse a plain policy, which has no reason to answer the two tokens. NaN passes: its scores say more."""
    if mass < LEAST_MASS:
        raise InputError(
            f"prm_model={model.name} puts {mass:.2g} of its probability on its two answers, a PRM nearly all: "
            "it is a plain policy, or a PRM in another format: give a PRM, or name its format"
        )
