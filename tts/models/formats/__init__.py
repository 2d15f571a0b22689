"""Formats of process reward models: how a problem and its steps become tokens, and where the scores are read.

A format lays out tokens; it knows no weights and no engine. All formats are causal: one pass over a whole solution
scores all of its steps, and what was computed for a prefix stays valid.
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
    """The format called name, or the one that fits the model's config and tokenizer, set up for this tokenizer.

    A config may name it as `prm_format`; models on the hub don't.
    Raises InputError if none or several fit, or if the tokenizer lacks what the format needs.
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
