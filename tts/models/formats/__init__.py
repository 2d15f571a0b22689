"""Formats of process reward models: how a problem and its steps become tokens, and where the scores are read.

A format is pure token layout: it knows no weights and no engine. All of them are causal (nothing looks to the right):
one pass over a whole solution scores all of its steps, and what was computed for a prefix stays right.
"""

from __future__ import annotations

from tts.errors import InputError
from tts.models.checkpoint import Checkpoint
from tts.models.formats.layout import Format, Layout, TokenHead
from tts.models.formats.math_shepherd import MathShepherd
from tts.models.formats.qwen import QwenPRM
from tts.models.formats.rlhflow import RLHFlow
from tts.models.formats.skywork import Skywork
from tts.models.formats.text import Text

__all__ = ["FORMATS", "Format", "Layout", "TokenHead", "find_format"]

FORMATS: dict[str, type[Format]] = {kind.name: kind for kind in (RLHFlow, MathShepherd, QwenPRM, Skywork)}


def find_format(checkpoint: Checkpoint, name: str = "auto") -> Format:
    """The format called name, or the one that the model's config and tokenizer show, set up for its tokenizer.

    A config may name it, as `prm_format`; the hub's models don't.
    Raises InputError where none or several fit, and where the tokenizer lacks what the format needs.
    """
    if name == "auto":
        name = checkpoint.config.get("prm_format", "auto")
    if name != "auto" and name not in FORMATS:
        raise InputError(f"format={name!r} is unknown: choose auto or one of {', '.join(FORMATS)}")
    text = Text(checkpoint)
    fitting = [kind for kind in FORMATS.values() if kind.fits(text)] if name == "auto" else [FORMATS[name]]
    if len(fitting) != 1:
        architecture = ", ".join(text.architectures) or "no architecture"
        which = f"several formats ({', '.join(kind.name for kind in fitting)})" if fitting else "no known format"
        raise InputError(
            f"{checkpoint.label}: {architecture} with this tokenizer fits {which}: "
            f"name one with format=, of {', '.join(FORMATS)}, or use another model"
        )
    return fitting[0](text)
