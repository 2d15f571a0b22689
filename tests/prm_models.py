"""Tiny process reward models with random weights, one of each format, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]
CHAT = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
)
TEXTS = ["What is 12 + 3?", "12 + 3 = 15", "So the answer is 15 - 0 = 15.\n\nTherefore", "a + b", "abcdefghijklm"]
WIDTH = 32


def tokenizer(
    *, pattern: str = r"\d|\n\n|\n|[+-]| ?[^\d\s+-]+|\s", special=SPECIAL, without="", byte_level=False
) -> Tokenizer:
    """A BPE in which whatever pattern matches is cut off from the rest; no token for the characters in without."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    made.decoder = decoders.ByteLevel() if byte_level else decoders.Fuse()
    if byte_level:
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.pre_tokenizer = pre_tokenizers.Sequence([made.pre_tokenizer, bytes_])
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        alphabet = sorted({"\n", *map(chr, range(32, 127))} - set(without))
    made.train_from_iterator(
        [text.translate({ord(c): None for c in without}) for text in TEXTS],
        trainers.BpeTrainer(
            vocab_size=len(alphabet) + 60, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return made


def causal(
    folder: Path,
    made: Tokenizer,
    *,
    answers: tuple[int, int] | None,
    chat: str | None = CHAT,
    end: str = "<|end|>",
    **config,
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
        "eos_token_id": made.token_to_id(end),
        "bos_token_id": None,
    }
    model = LlamaForCausalLM(LlamaConfig(**settings | config))
    with torch.no_grad():
        # One feature that is the same in every hidden state lifts the two answers over all other tokens.
        model.model.embed_tokens.weight[:, 0] = 4.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0.0
        model.lm_head.weight[:, 0] = -20.0
        if answers:
            model.lm_head.weight[list(answers), 0] = 20.0
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<|pad|>", eos_token=end).save_pretrained(folder)
    if chat is not None:
        (folder / "chat_template.jinja").write_text(chat)
    return folder


def rlhflow(folder: Path, *, answers: bool = True, **config) -> Path:
    """A random PRM in RLHFlow's format."""
    made = tokenizer()
    return causal(folder, made, answers=(made.token_to_id("+"), made.token_to_id("-")) if answers else None, **config)


LLAMA = (
    "{{ bos_token }}{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '\n\n<|eot_id|>' }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
)
LLAMA_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def llama(folder: Path) -> Path:
    """A random PRM in RLHFlow's format with a tokenizer and a template like Llama 3's: line breaks around the turns."""
    special = ["<|pad|>", "<|begin|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    made = tokenizer(pattern=LLAMA_WORDS, special=special, byte_level=True)
    causal(folder, made, answers=(made.token_to_id("+"), made.token_to_id("-")), chat=LLAMA, end="<|eot_id|>")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"bos_token": "<|begin|>"}))
    return folder


def math_shepherd(folder: Path, *, chat: str | None = None, **config) -> Path:
    """A random PRM in Math-Shepherd's format, with a tokenizer of SentencePiece's kind: words begin with "▁"."""
    special = ["<unk>", "<s>", *SPECIAL]
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    alphabet = sorted({"▁", "к", "и", *map(chr, range(33, 127))})
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    vocabulary = {token: i for i, token in enumerate([*special, *bytes_, *alphabet])}
    merges = [("▁", "к"), ("▁к", "и"), ("▁", "+"), ("▁", "-"), ("▁", "a"), ("▁", "S"), ("▁S", "o"), ("t", "h")]
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    made.model = models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>")
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(special)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])])
    return causal(folder, made, answers=(vocabulary["▁+"], vocabulary["▁-"]), chat=chat, **config)


def beside(
    folder: Path, made: Tokenizer, architecture: str, head: dict[str, tuple[int, ...]], *, width: int = WIDTH
) -> Path:
    """A random Qwen2 with an output head of its own, saved as the hub's models with code of their own are."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=made.get_vocab_size(),
        hidden_size=width,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=0.3,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    weights |= {name: torch.randn(shape) * 0.3 for name, shape in head.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((folder / "config.json").read_text())
    settings["architectures"] = [architecture]
    settings["auto_map"] = {"AutoModel": f"modeling_of_its_own.{architecture}"}
    (folder / "config.json").write_text(json.dumps(settings))
    start = {"bos_token": "<|end|>"} if architecture == "Qwen2ForPrmModel" else {}
    PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<|pad|>", **start).save_pretrained(folder)
    return folder


def qwen(folder: Path, *, special: bool = False, width: int = WIDTH) -> Path:
    """A random Qwen2.5-Math-PRM; "<extra_0>" is a special token or an ordinary added one."""
    made = tokenizer()
    made.add_special_tokens(["<|system|>"])
    (made.add_special_tokens if special else made.add_tokens)(["<extra_0>"])
    head = {
        "score.0.weight": (width, width),
        "score.0.bias": (width,),
        "score.2.weight": (2, width),
        "score.2.bias": (2,),
    }
    beside(folder, made, "Qwen2ForProcessRewardModel", head, width=width)
    (folder / "chat_template.jinja").write_text(CHAT)
    return folder


def skywork(folder: Path) -> Path:
    """A random Skywork-o1-Open-PRM."""
    head = {"v_head.summary.weight": (1, WIDTH), "v_head.summary.bias": (1,)}
    return beside(folder, tokenizer(), "Qwen2ForPrmModel", head)


ALL = {"rlhflow": rlhflow, "math-shepherd": math_shepherd, "qwen2.5-math-prm": qwen, "skywork": skywork}
