"""Tiny process reward models with random weights, one of each format, made on the spot."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]
CHAT = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
)
TEXTS = ["What is 12 + 3?", "12 + 3 = 15", "So the answer is 15 - 0 = 15.\n\nTherefore", "a + b", "abcdefghijklm"]
WIDTH = 32


def tokenizer(*, pattern: str = r"\d|\n\n|\n|[+-]| ?[^\d\s+-]+|\s", special=SPECIAL, without="") -> Tokenizer:
    """A BPE in which whatever pattern matches is cut off from the rest; no token for the characters in without."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    made.decoder = decoders.Fuse()
    alphabet = sorted({"\n", *map(chr, range(32, 127))} - set(without))
    made.train_from_iterator(
        [text.translate({ord(c): None for c in without}) for text in TEXTS],
        trainers.BpeTrainer(vocab_size=160, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return made


def causal(
    folder: Path, made: Tokenizer, *, answers: tuple[int, int] | None, chat: str | None = CHAT, **config
) -> Path:
    """A random LlamaForCausalLM. answers: the two tokens it puts its probability on; None for a plain policy."""
    torch.manual_seed(0)
    settings = {
        "vocab_size": made.get_vocab_size(),
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "initializer_range": 0.3,
        "eos_token_id": made.token_to_id("<|end|>"),
        "bos_token_id": None,
    }
    model = LlamaForCausalLM(LlamaConfig(**settings | config))
    with torch.no_grad():
        # One feature that is about 1 in every hidden state lifts the two answers over all other tokens.
        model.model.embed_tokens.weight[:, 0] = 4.0
        model.lm_head.weight[:, 0] = -8.0
        if answers:
            model.lm_head.weight[list(answers), 0] = 8.0
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<|pad|>", eos_token="<|end|>").save_pretrained(folder)
    if chat is not None:
        (folder / "chat_template.jinja").write_text(chat)
    return folder


def rlhflow(folder: Path, *, answers: bool = True, **config) -> Path:
    """A random PRM in RLHFlow's format."""
    made = tokenizer()
    return causal(folder, made, answers=(made.token_to_id("+"), made.token_to_id("-")) if answers else None, **config)
