"""Models with random weights that behave: a policy that writes steps and boxes, a PRM that says "+" or "-".

    python tests/random_models.py FOLDER [--shape smollm2] [--layers 2]

writes FOLDER/policy, FOLDER/second and FOLDER/prm in the hub's format, for a walk through the notebooks where no hub
can be reached (docs/bring_your_own.md). The default shape is a tiny one with the tokenizer of engine_models.py.
"smollm2" is SmolLM2-135M's, with as many of Llama 3's tokens as that has (its tokenizer comes with llama-models).
"""

from __future__ import annotations

import argparse
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import torch
from engine_models import SPECIAL, TEMPLATE, save_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
}
SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_theta": 100000.0,
}
SMOLLM2_VOCABULARY = 49152
WORDS = (" the", " sum", " of", " is", " so", " we", " find", " value", " then", " step", " get", " take")
FEATURE = 4.0  # each of two features of a hidden state; all that the layers add to it has a norm of about 1


def save_smollm2_tokenizer(path: Path) -> None:
    """The first of Llama 3's tokens, as many as SmolLM2 has, with the special tokens and template of engine_models."""
    from transformers.convert_slow_tokenizer import TikTokenConverter

    source = Path(find_spec("llama_models").origin).parent / "llama3" / "tokenizer.model"
    path.mkdir(parents=True, exist_ok=True)
    lines = source.read_bytes().splitlines(keepends=True)[: SMOLLM2_VOCABULARY - len(SPECIAL)]
    (path / "short.model").write_bytes(b"".join(lines))
    made = TikTokenConverter(str(path / "short.model"), extra_special_tokens=list(SPECIAL)).converted()
    (path / "short.model").unlink()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<|begin|>", eos_token="<|end|>", pad_token="<|pad|>"
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(path)


def save_policy(path: Path, *, shape: dict, seed: int = 0, boxes: bool = True) -> Path:
    """A policy that writes words, blank lines and at last a box with one or two digits; without boxes it never ends.

    What follows a token is written into embeddings and head, up to what the random layers add to the odds.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    words = [ids[0] for ids in map(encode, WORDS) if len(ids) == 1]
    [blank], box, [close], end = encode("\n\n"), encode("\\boxed{"), encode("}"), tokenizer.eos_token_id
    digits = [ids[0] for ids in map(encode, "0123456789")]
    after = {word: [(words, 6.0), ([blank], 7.5)] for word in words}
    after[blank] = [(words, 6.0), ([box[0]], 9.0 if boxes else -30.0)]
    after |= {one: [([two], 20.0)] for one, two in zip(box, box[1:], strict=False)}
    after[box[-1]] = [(digits, 12.0)]
    after |= {digit: [([close], 12.0), (digits, 8.0)] for digit in digits}
    after[close] = [([end], 20.0)]
    model = _random(tokenizer, shape, seed)
    with torch.no_grad():
        embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
        scale = _size(shape) / FEATURE  # so that a weight of 1 becomes a logit of 1
        _let_context_speak(head, sorted({one for of in after.values() for some, _ in of for one in some}), shape)
        head[:, 0] = -20 * scale
        head[words, 0] = 0.0  # what comes first
        for number, (token, following) in enumerate(after.items(), start=1):
            _keep_free(model, number)
            embedding[token, number] = FEATURE
            for tokens, odds in following:
                head[tokens, number] = (odds - (0 if set(tokens) <= set(words) else -20)) * scale
            if not set(following[0][0]) & set(words):
                head[words, number] = -20 * scale
    model.save_pretrained(path)
    return path


def save_prm(path: Path, *, shape: dict, seed: int = 1) -> Path:
    """A PRM in RLHFlow's format whose scores are random, but the same for the same text."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    answers = [tokenizer.encode(text, add_special_tokens=False)[-1] for text in "+-"]
    model = _random(tokenizer, shape, seed)
    with torch.no_grad():
        _let_context_speak(model.lm_head.weight, answers, shape)
        model.lm_head.weight[:, 0] = -20 * _size(shape) / FEATURE
        model.lm_head.weight[answers, 0] = 0.0
    model.save_pretrained(path)
    settings = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(settings | {"prm_format": "rlhflow"}))
    return path


def _random(tokenizer: PreTrainedTokenizerFast, shape: dict, seed: int) -> LlamaForCausalLM:
    """Random weights; feature 0 is the same in all hidden states."""
    torch.manual_seed(seed)
    size = len(tokenizer)
    config = LlamaConfig(
        vocab_size=size,
        tie_word_embeddings=False,
        initializer_range=1 / shape["hidden_size"] ** 0.5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shape,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            for matrix in (layer.self_attn.o_proj, layer.mlp.down_proj):
                matrix.weight /= (shape["hidden_size"] * shape["num_hidden_layers"]) ** 0.5
        _keep_free(model, 0)
        model.model.embed_tokens.weight[:, 0] = FEATURE
    return model


def _size(shape: dict) -> float:
    """What the last norm divides by."""
    return ((2 * FEATURE**2 + 1) / shape["hidden_size"]) ** 0.5


def _let_context_speak(head: torch.Tensor, tokens: list[int], shape: dict) -> None:
    """Random weights of these tokens so large that what the layers add moves their logits by about a half."""
    head[tokens] = torch.randn(len(tokens), shape["hidden_size"]) * _size(shape) / 2


def _keep_free(model: LlamaForCausalLM, number: int) -> None:
    """A feature that no layer writes and no token has."""
    model.model.embed_tokens.weight[:, number] = 0.0
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight[number] = layer.mlp.down_proj.weight[number] = 0.0


def save_all(folder: Path, *, shape: dict = TINY, smollm2_tokenizer: bool = False, boxes: bool = True) -> Path:
    """folder/policy, folder/second (of half the layers) and folder/prm."""
    tokenizer = folder / "tokenizer"
    (save_smollm2_tokenizer if smollm2_tokenizer else save_tokenizer)(tokenizer)
    for name in ("policy", "second", "prm"):
        shutil.copytree(tokenizer, folder / name, dirs_exist_ok=True)
    shutil.rmtree(tokenizer)
    save_policy(folder / "policy", shape=shape, boxes=boxes)
    half = shape | {"num_hidden_layers": max(1, shape["num_hidden_layers"] // 2)}
    save_policy(folder / "second", shape=half, seed=2, boxes=boxes)
    save_prm(folder / "prm", shape=shape)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a policy, a second one and a PRM with random weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=("tiny", "smollm2"), default="tiny")
    parser.add_argument("--layers", type=int, default=0, help="0: the shape's own")
    asked = parser.parse_args()
    large = asked.shape == "smollm2"
    of = SMOLLM2 if large else TINY
    save_all(
        asked.folder,
        shape=of | ({"num_hidden_layers": asked.layers} if asked.layers else {}),
        smollm2_tokenizer=large,
    )
