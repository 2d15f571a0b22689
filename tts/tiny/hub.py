"""Models in the Hub's directory format: config, safetensors in bfloat16, tokenizer with chat template."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from .model import Shape, TinyLlama, from_hub_weights, hub_weights
from .tokenizer import END, PAD, Codec, wrap


def export(model: TinyLlama, tokenizer: Tokenizer, folder: Path, *, prm_format: str = "") -> None:
    """Write a directory that transformers and vLLM load; a reward model's config says how to read its scores."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = model.shape
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.width // shape.heads,
        "max_position_embeddings": shape.context,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": pad,
        "torch_dtype": "bfloat16",
    }
    if prm_format:
        config["prm_format"] = prm_format
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = {"eos_token_id": end, "pad_token_id": pad, "do_sample": True, "temperature": 1.0}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    weights = {name: weight.to(torch.bfloat16) for name, weight in hub_weights(model).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    wrap(tokenizer, context=shape.context).save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that older transformers know too
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def load(folder: Path) -> tuple[TinyLlama, Codec]:
    """The exported model, with its weights as they were rounded, and the codec of its tokenizer."""
    config = json.loads((folder / "config.json").read_text())
    shape = Shape(
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        context=config["max_position_embeddings"],
        vocabulary=config["vocab_size"],
    )
    model = from_hub_weights(shape, load_file(folder / "model.safetensors"))
    return model, Codec(Tokenizer.from_file(str(folder / "tokenizer.json")))
