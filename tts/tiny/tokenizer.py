"""The tokenizer that all models share: digits, signs and the blank line are tokens of their own, words are merged.

Printable ASCII and the newline are all it knows; anything else becomes <|unk|>.
"""

from __future__ import annotations

import re
from random import Random
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from .problems import draw

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SIZE = 320
PAD, END, SYSTEM, USER, ASSISTANT, UNKNOWN = "<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|unk|>"
SPECIAL = [PAD, END, SYSTEM, USER, ASSISTANT, UNKNOWN]
PIECES = r"\d|\n\n|\n|[+-]| ?[^\d\s+-]+|\s"
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(*, seed: int = 0, problems: int = 8_000) -> Tokenizer:
    """A BPE of at most 320 tokens learnt from training problems and their solutions."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    alphabet = ["\n", *map(chr, range(32, 127))]
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=SPECIAL, initial_alphabet=alphabet, min_frequency=5, show_progress=False
    )

    def texts():
        for i in range(problems):
            problem = draw("train", seed, i)
            yield problem.text
            yield "\n\n".join(problem.solution(Random(i)))

    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def wrap(tokenizer: Tokenizer, *, context: int) -> PreTrainedTokenizerFast:
    """The tokenizer in the Hub's format, with the chat template inside."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=TEMPLATE,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


class Codec:
    """Text to token ids and back, remembering pieces: the tokenizer in a form that is fast for making training data."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.pieces = re.compile(PIECES)
        self.known: dict[str, list[int]] = {}
        self.end, self.user, self.assistant, self.pad = map(tokenizer.token_to_id, (END, USER, ASSISTANT, PAD))
        self.plus, self.minus, self.blank = map(tokenizer.token_to_id, ("+", "-", "\n\n"))
        self.text_of = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]

    def encode(self, text: str) -> list[int]:
        """The ids of a text without special tokens, the same that the tokenizer gives."""
        ids: list[int] = []
        for piece in self.pieces.findall(text):
            if piece not in self.known:
                self.known[piece] = self.tokenizer.encode(piece, add_special_tokens=False).ids
            ids += self.known[piece]
        return ids

    def prompt(self, problem: str) -> list[int]:
        """A problem as the chat template writes it, up to where the assistant begins."""
        return [self.user, *self.encode(problem), self.assistant]

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special tokens left out."""
        return "".join(self.text_of[i] for i in ids if i >= len(SPECIAL))
