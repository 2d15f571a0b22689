"""A randomly initialised Llama with a small BPE tokenizer and a chat template: every engine path, in a second."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tts.policy import Sampling

SPECIAL = ("<|pad|>", "<|begin|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def save_tokenizer(path: Path, *, template: str = TEMPLATE) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = "add take the sum of product answer is so we get step find value then final".split()
    rng = random.Random(0)
    texts = ["\n\n".join(" ".join(rng.choices(words, k=9)) + f" $x = {i}$." for _ in range(4)) for i in range(300)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n\n", "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=340, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=list(SPECIAL[2:5]),
    )
    fast.chat_template = template
    fast.save_pretrained(path)


def save_model(path: Path, *, context: int = 256, seed: int = 0) -> Path:
    """A model directory; its first-token distribution is spread over many tokens, ends of the turn among them."""
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    save_tokenizer(path)
    size = Tokenizer.from_file(str(path / "tokenizer.json")).get_vocab_size()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=context,
            tie_word_embeddings=True,
            initializer_range=0.2,
            bos_token_id=1,
            eos_token_id=5,
            pad_token_id=0,
        )
    )
    model.save_pretrained(path)
    return path


def sample_all(policy, requests: list[dict]) -> list:
    async def run():
        try:
            return await asyncio.gather(*(policy.sample(**request) for request in requests))
        finally:
            await policy.close()

    return asyncio.run(run())


def request(prefix, seed=0, *, stop=None, **settings) -> dict:
    return {"prefix": prefix, "sampling": Sampling(**{"seed": seed, "max_tokens": 30} | settings), "stop": stop}


def mixed(policy, count: int = 80) -> list[dict]:
    """So many requests, of many lengths, temperatures and stops."""
    rng = random.Random(1)
    prompts = [policy.prompt("add " * i + str(i)) for i in range(12)]
    return [
        request(
            rng.choice(prompts),
            seed,
            temperature=rng.choice([0.0, 0.7, 1.0]),
            top_p=rng.choice([1.0, 0.9]),
            max_tokens=rng.randint(1, 40),
            stop=rng.choice([None, "\n\n", "\n", "e"]),
        )
        for seed in range(count)
    ]
