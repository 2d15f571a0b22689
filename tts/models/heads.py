"""How hidden states become scores: the torch side of a format's head, loaded together with the model behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tts.errors import InputError
from tts.models.checkpoint import Checkpoint
from tts.models.formats import Format, TokenHead
from tts.models.scoring import check_mass

if TYPE_CHECKING:
    from torch import Tensor, nn

# The tensors of a head beside the language model's, in the order in which they are applied.
_CLASSES = ("score.0.weight", "score.0.bias", "score.2.weight", "score.2.bias")
_VALUE = ("v_head.summary.weight", "v_head.summary.bias")


def load_head(
    checkpoint: Checkpoint, prm_format: Format, *, dtype: str, device: str, check_policy: bool
) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """(backbone, head): token ids to last hidden states [batch, tokens, width], and these [n, width] to scores [n].

    check_policy: refuse, at the first scores, a model that doesn't answer the way a PRM does.
    """
    if isinstance(prm_format.head, TokenHead):
        return _load_tokens(checkpoint, prm_format.head, dtype, device, check_policy)
    return _load_beside(checkpoint, prm_format, dtype, device)


def _load_tokens(checkpoint: Checkpoint, head: TokenHead, dtype: str, device: str, check_policy: bool):
    import torch
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(checkpoint.download(), dtype=dtype).eval().to(device)
    output = whole.get_output_embeddings()
    weight = output.weight[[head.good, head.bad]]

    def score(hidden: Tensor) -> Tensor:
        nonlocal check_policy
        logits = torch.nn.functional.linear(hidden, weight).double()
        if check_policy:
            everything = output(hidden[:64]).double().logsumexp(-1)
            check_mass(checkpoint, (logits[:64].logsumexp(-1) - everything).exp().mean().item())
            check_policy = False
        return logits.softmax(-1)[:, 0]

    return whole.base_model, score


def _load_beside(checkpoint: Checkpoint, prm_format: Format, dtype: str, device: str):
    from torch.nn.functional import linear
    from transformers import AutoModel

    path = checkpoint.download()
    names = _CLASSES if prm_format.head == "classes" else _VALUE
    # The models come with code of their own; the backbone is a plain one, and the head is these few lines.
    with _without_warnings():  # of the head's tensors, which the backbone has no place for
        backbone = AutoModel.from_pretrained(path, dtype=dtype, trust_remote_code=False).eval().to(device)
    found = _read_tensors(path, names)
    if missing := [name for name in names if name not in found]:
        raise InputError(
            f"{checkpoint.label}: its weights have no {', '.join(missing)}, the head of format {prm_format.name}: "
            "give a PRM of this format, or name another one"
        )
    weights = [found[name].to(device=device, dtype=backbone.dtype) for name in names]

    def classes(hidden: Tensor) -> Tensor:
        logits = linear(linear(hidden, *weights[:2]).relu(), *weights[2:])
        return logits.double().softmax(-1)[:, 1]

    def value(hidden: Tensor) -> Tensor:
        return linear(hidden, *weights)[:, 0].double().sigmoid()

    return backbone, classes if prm_format.head == "classes" else value


@contextmanager
def _without_warnings():
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _read_tensors(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    from safetensors import safe_open

    found = {}
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            found |= {name: tensors.get_tensor(name) for name in names if name in tensors.keys()}  # noqa: SIM118
    return found
