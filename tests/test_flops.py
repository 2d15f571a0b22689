"""FLOPs of a model: against PyTorch's own counter and by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    FalconConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    OPTConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tts.errors import InputError
from tts.models.checkpoint import Checkpoint
from tts.models.flops import Size, attended, count_size

SMALL, LARGE = Size(weights=100, head=10, attention=4), Size(weights=1000, head=20, attention=8)

CONFIG = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 50,
}


@pytest.mark.parametrize(
    ("config", "model"),
    [(LlamaConfig(**CONFIG, head_dim=24), LlamaForCausalLM), (Qwen2Config(**CONFIG), Qwen2ForCausalLM)],
)
@pytest.mark.parametrize("past", [0, 7])
def test_one_token_costs_what_torch_counts(config, model, past):
    model = model._from_config(config, attn_implementation="eager").eval()  # the fused one is not counted
    cache = DynamicCache()
    with torch.no_grad():
        if past:
            model(torch.zeros(1, past, dtype=torch.long), past_key_values=cache)
        with FlopCounterMode(display=False) as counted:
            model(torch.zeros(1, 1, dtype=torch.long), past_key_values=cache, use_cache=True)
    assert counted.get_total_flops() == Size.of(config.to_dict()).flops(1, past, logits=1)


def test_pairs_are_those_of_a_causal_mask():
    for past in range(5):
        for new in range(5):
            assert attended(new, past) == sum(past + 1 + i for i in range(new))


def test_reading_in_parts_costs_what_reading_at_once_does():
    assert LARGE.flops(12) == LARGE.flops(5) + LARGE.flops(4, 5) + LARGE.flops(3, 9)


def test_by_hand():
    assert SMALL.flops(3) == 2 * 100 * 3 + 4 * 4 * (1 + 2 + 3)
    assert SMALL.flops(1, 9, logits=1) == 2 * (100 + 10) + 4 * 4 * 10


ENDS = {"bos_token_id": 0, "eos_token_id": 1}


OTHERS = {  # config -> the matrices of one layer: in attention, in the MLP (two, or three with a gate)
    "gpt2": (GPT2Config(n_embd=64, n_layer=3, n_head=4, vocab_size=50, **ENDS), 4 * 64 * 64 + 2 * 64 * 256),
    "opt": (OPTConfig(**CONFIG, ffn_dim=96, word_embed_proj_dim=64), 4 * 64 * 64 + 2 * 64 * 96),
    "gpt_neox": (GPTNeoXConfig(**CONFIG), 4 * 64 * 64 + 2 * 64 * 96),
    "falcon": (FalconConfig(**CONFIG, multi_query=True, **ENDS), (2 * 64 + 2 * 16) * 64 + 2 * 64 * 256),
    "llama": (LlamaConfig(**CONFIG), (2 * 64 + 2 * 32) * 64 + 3 * 64 * 96),
    "qwen2": (Qwen2Config(**CONFIG, tie_word_embeddings=True), (2 * 64 + 2 * 32) * 64 + 3 * 64 * 96),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_weights_of_other_kinds_are_counted(name):
    config, layer = OTHERS[name]
    size = count_size(config.to_dict())
    assert size == Size(weights=3 * layer, head=64 * 50, attention=64 * 3)

    # Against the parameters of a model with weights: all matrices but what is looked up.
    model = AutoModelForCausalLM.from_config(config)
    looked_up = {id(part.weight) for part in model.modules() if isinstance(part, torch.nn.Embedding)}
    head = model.get_output_embeddings().weight
    matrices = [part for part in model.parameters() if part.dim() == 2 and id(part) not in looked_up | {id(head)}]
    assert size.weights == sum(part.numel() for part in matrices)
    assert size.head == head.numel()


def opened(config):
    return Checkpoint(name="m", path=Path(), fingerprint="", context=0, config=config)


def test_a_model_of_the_llama_kind_needs_no_torch_and_is_the_same_counted(monkeypatch):
    config = OTHERS["llama"][0].to_dict()
    counted = count_size(config)
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    assert opened(config).size == Size.of(config) == counted


def test_keys_of_the_llama_kind_do_not_make_a_gate():
    config, layer = OTHERS["gpt_neox"]
    assert {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"} <= config.to_dict().keys()
    assert opened(config.to_dict()).size.weights == 3 * layer


def test_what_can_not_be_counted_is_unknown():
    experts = MixtralConfig(**CONFIG).to_dict()
    for config, said in [(experts, "mixtral"), ({"model_type": "no-such"}, "no-such"), ({"n_embd": 8}, "None")]:
        with pytest.raises(InputError, match=said) as error:
            count_size(config)
        assert "\n" not in str(error.value)
        assert opened(config).size is None


def test_another_kind_of_model_is_named():
    with pytest.raises(InputError, match="model_type is 'gpt2': give one of llama, mistral"):
        Size.of({"model_type": "gpt2", "n_embd": 8})


@pytest.mark.parametrize("kind", [LlamaConfig, Qwen2Config])
def test_what_a_config_leaves_out_is_as_usual(kind):
    assert Size.of({"model_type": kind.model_type}) == Size.of(kind().to_dict())
