"""How a model's forward pass becomes scores: the torch side of a format's head."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tts.errors import InputError
from tts.models.checkpoint import Checkpoint
from tts.models.formats import Format, TokenHead
from tts.models.scoring import check_mass
from tts.models.worker import load_model

if TYPE_CHECKING:
    from torch import Tensor, device, nn
    from transformers import Cache

# The tensors of a head beside the language model's, in the order in which they are applied.
_CLASSES = ("score.0.weight", "score.0.bias", "score.2.weight", "score.2.bias")
_VALUE = ("v_head.summary.weight", "v_head.summary.bias")


class Head(Protocol):
    """A loaded model with the head of its format."""

    device: device
    model: nn.Module  # of transformers

    def from_hidden(self, hidden: Tensor) -> Tensor:
        """Scores [n] from the model's last hidden states [n, width] at the score positions."""

    def __call__(self, at: tuple[Tensor, Tensor], **inputs: object) -> tuple[Tensor, Cache | None]:
        """A forward pass over inputs: the scores [n] at (rows [n], columns [n]) of the token ids, and the cache."""


def load_head(checkpoint: Checkpoint, prm_format: Format, *, dtype: str, check_policy: bool) -> Head:
    """Load a model for its format.

    check_policy: raise InputError for a model that doesn't answer the way a PRM does.
    """
    if isinstance(prm_format.head, TokenHead):
        return _Answers(checkpoint, prm_format, dtype, check_policy)
    return _Beside(checkpoint, prm_format, dtype)


class _Answers:
    """The probability of the good answer against the bad one, by the language model's own logits.

    An architecture may scale or cap its logits, so its own forward pass makes them. Its last matrix is replaced by one
    that has only the rows of the two answers and reads only the score positions.
    """

    def __init__(self, checkpoint: Checkpoint, prm_format: Format, dtype: str, check_policy: bool) -> None:
        import torch

        self.model = load_model(checkpoint, dtype)
        self.device = self.model.device
        self._answers = [prm_format.head.good, prm_format.head.bad]
        # Try the replacement on one solution. If it changes the logits, the model makes those of all tokens every time.
        layout = prm_format.layout("What is 1 + 1?", ["1 + 1 = 2"])
        ids = torch.tensor([layout.ids], device=self.device)
        self._at = torch.zeros(1, dtype=torch.long), torch.tensor(layout.positions)
        whole = self.model.get_output_embeddings()
        with torch.inference_mode():
            logits = self.model(input_ids=ids, use_cache=False).logits[self._at].double()
            if check_policy:
                check_mass(checkpoint, logits.softmax(-1)[:, self._answers].sum().item())
            try:
                self.model.set_output_embeddings(self._narrow(whole))
                narrow = self.model(input_ids=ids, use_cache=False).logits[0].double()
                # in bfloat16, rounding alone moves a logit by 1 in 256
                self._is_narrow = torch.allclose(narrow, logits[:, self._answers], rtol=0.02, atol=0.02, equal_nan=True)
            except Exception:
                self._is_narrow = False
            if not self._is_narrow:
                self.model.set_output_embeddings(whole)

    def _narrow(self, whole):
        """The layer that replaces `whole`: from hidden states [rows, tokens, width] to logits [1, n, 2]."""
        from torch import nn

        layer = nn.Linear(*whole.weight.shape[::-1], bias=whole.bias is not None, device="meta")
        layer.weight = nn.Parameter(whole.weight[self._answers])
        if whole.bias is not None:
            layer.bias = nn.Parameter(whole.bias[self._answers])
        layer.register_forward_pre_hook(lambda _, arguments: arguments[0][self._at][None])
        return layer

    def from_hidden(self, hidden: Tensor) -> Tensor:
        """See Head. Right where the logits are one product."""
        from torch.nn.functional import linear

        head = self.model.get_output_embeddings()
        logits = linear(hidden, head.weight, head.bias)
        return (logits if self._is_narrow else logits[:, self._answers]).double().softmax(-1)[:, 0]

    def __call__(self, at: tuple[Tensor, Tensor], **inputs: object) -> tuple[Tensor, Cache | None]:
        """See Head."""
        self._at = at
        output = self.model(**inputs)
        logits = output.logits[0] if self._is_narrow else output.logits[at][:, self._answers]
        return logits.double().softmax(-1)[:, 0], getattr(output, "past_key_values", None)


class _Beside:
    """A head beside the language model's: two classes, or one value.

    These models come with code of their own, which is not run: below the head they are plain ones.
    """

    def __init__(self, checkpoint: Checkpoint, prm_format: Format, dtype: str) -> None:
        names = _CLASSES if prm_format.head == "classes" else _VALUE
        with _without_warnings():  # about the head's tensors, which the model below it does not use
            self.model = load_model(checkpoint, dtype, head=False)
        self.device = self.model.device
        found = _read_tensors(checkpoint.download(), names)
        if missing := [name for name in names if name not in found]:
            raise InputError(
                f"{checkpoint.label}: its weights have no {', '.join(missing)}, the head of format {prm_format.name}: "
                "give a PRM of this format, or name another one"
            )
        self._weights = [found[name].to(device=self.device, dtype=self.model.dtype) for name in names]

    def __call__(self, at: tuple[Tensor, Tensor], **inputs: object) -> tuple[Tensor, Cache | None]:
        """See Head."""
        output = self.model(**inputs)
        return self.from_hidden(output.last_hidden_state[at]), output.past_key_values

    def from_hidden(self, hidden: Tensor) -> Tensor:
        """See Head."""
        from torch.nn.functional import linear

        values = linear(hidden, *self._weights[:2])
        if len(self._weights) == 4:
            return linear(values.relu(), *self._weights[2:]).double().softmax(-1)[:, 1]
        return values[:, 0].double().sigmoid()


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
