"""A model's tokenizer as the formats use it: a text is ordinary characters, and only a format adds special tokens.

So a step that spells "<|eot_id|>" contains these characters and never ends a turn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from tts.errors import InputError
from tts.models.checkpoint import Checkpoint
from tts.models.config import read_setting

REMEMBERED = 1 << 16  # texts whose tokens are kept, because the steps of a search come back often


class Text:
    """Encodes texts, pieces of a chat template and whole conversations."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        added = checkpoint.tokenizer.get_added_tokens_decoder().values()
        # The tokenizer finds added tokens that are not special in any text, unless the text is cut inside them.
        ordinary = [token.content for token in added if not token.special and len(token.content) > 1]
        cuts = "|".join(f"(?<={re.escape(token[0])})(?={re.escape(token[1:])})" for token in ordinary)
        self._cuts = re.compile(cuts) if ordinary else None
        self.encode = lru_cache(maxsize=REMEMBERED)(self.encode)
        size = read_setting(checkpoint.config, "vocab_size")
        if size and checkpoint.tokenizer.get_vocab_size(with_added_tokens=False) > size:
            raise InputError(
                f"{checkpoint.label}: its tokenizer has {checkpoint.tokenizer.get_vocab_size()} tokens, "
                f"the model {size}: they do not belong together"
            )

    def wrong(self, what: str) -> InputError:
        """The error for a model that lacks what a format needs."""
        return InputError(
            f"{self.checkpoint.label}: {what}: use the tokenizer and the chat template that the PRM was trained with, "
            "or name another format"
        )

    @property
    def architectures(self) -> Sequence[str]:
        """What config.json calls the model's classes."""
        return self.checkpoint.config.get("architectures") or ()

    @property
    def is_causal(self) -> bool:
        """Whether it is a causal language model with its usual head."""
        return any(name.endswith("ForCausalLM") for name in self.architectures)

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of a text as ordinary characters."""
        parts = self._cuts.split(text) if self._cuts else [text]
        return tuple(i for part in parts for i in self.checkpoint.encode_plain(part).ids)

    def token(self, token: str) -> int | None:
        """The id of a token by its name; None if the tokenizer has no such token."""
        return self.checkpoint.tokenizer.token_to_id(token)

    @property
    def start(self) -> int | None:
        """The id of the token that begins a sequence; None if the tokenizer names none."""
        name = self.checkpoint.special_tokens.get("bos_token")
        return None if name is None else self.token(name)

    @property
    def has_template(self) -> bool:
        """Whether the model has a chat template."""
        return bool(self.conversation([" "]))

    def cut(self, template: str) -> tuple[str, tuple[int, ...], str]:
        """Template text as (text before its first special token, ids in between, text after its last special token).

        Without a special token all of the text is the last part.
        """
        parts = self.checkpoint.split(template)
        if len(parts) == 1:
            return "", (), template
        special = self.checkpoint.special_ids
        middle = [(special[part],) if part in special else self.encode(part) for part in parts[1:-1]]
        return parts[0], tuple(i for ids in middle for i in ids), parts[-1]

    def conversation(self, turns: Sequence[str], *, system: str = "") -> str:
        """The model's chat template with alternating turns of user and assistant; "" if it has no template.

        Raises InputError if the template can't be rendered.
        """
        messages = [{"role": "system", "content": system}] if system else []
        messages += [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
        return self.checkpoint.render(messages)

    def encode_whole(self, text: str) -> tuple[tuple[int, ...], list[int]]:
        """(ids of a text with the tokens that the tokenizer adds around it, the end of each token in the text)."""
        encoded = self.checkpoint.encode_plain(text, add_special_tokens=True)
        return tuple(encoded.ids), [end for _, end in encoded.offsets]

    def choices(self, before: str, good: str, bad: str) -> tuple[tuple[int, ...], int, int]:
        """(ids of before, id of good, id of bad).

        Raises InputError unless each of the two words is one token when it follows before.
        """
        ids = self.encode(before)
        ends = [self.encode(before + word)[len(ids) :] for word in (good, bad)]
        if any(self.encode(before + word)[: len(ids)] != ids for word in (good, bad)) or list(map(len, ends)) != [1, 1]:
            raise self.wrong(f"its tokenizer has no single tokens for {good!r} and {bad!r}")
        return ids, ends[0][0], ends[1][0]
