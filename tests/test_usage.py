"""Tokens and FLOPs: against PyTorch's own counter, by hand, and against brute force."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
import torch
from fakes import PROBLEM, ScriptedPolicy, ScriptedScorer, by_hash, dice
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

from tts.models.checkpoint import Checkpoint
from tts.models.flops import count_size
from tts.errors import InputError
from tts.strategies import beam_search, best_of_n
from tts.analysis.cost import Usage, independent, measured, searched
from tts.models.flops import Size, attended

CONFIG = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 50,
}
SMALL, LARGE = Size(weights=100, head=10, attention=4), Size(weights=1000, head=20, attention=8)


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


def test_independent_solutions_by_hand():
    usage = independent(5, [2, 3], policy=SMALL, prm=LARGE)
    assert (usage.decoded, usage.prefilled, usage.scored) == (5, 5, 7 + 8)
    assert usage.policy_flops == SMALL.flops(5) + SMALL.flops(2, 5, logits=2) + SMALL.flops(3, 5, logits=3)
    assert usage.prm_flops == LARGE.flops(7) + LARGE.flops(8)
    without = independent(5, [2, 3], policy=SMALL)
    assert (without.scored, without.prm_flops, without.policy_flops) == (0, 0, usage.policy_flops)


def test_a_search_is_the_sum_of_its_tree():
    policy = ScriptedPolicy(dice("ab\n\n", "c\n\n", "d$"))
    scorer = ScriptedScorer(by_hash)
    search = asyncio.run(beam_search(PROBLEM, policy, scorer, n=8, seed=0))
    prompt = len(policy.prompt(PROBLEM.text))
    usage = searched(prompt, search, policy=SMALL, prm=LARGE)
    assert usage.decoded == search.generated == sum(node.tokens for node in search.nodes)
    assert usage.prefilled == prompt

    # Brute force: each node's tokens one by one, each seeing the whole path before it.
    tokens = {node.path: node.tokens for node in search.nodes}
    flops = SMALL.flops(prompt)
    for path in tokens:
        past = prompt + sum(tokens[path[:k]] for k in range(2, len(path)))
        flops += sum(SMALL.flops(1, past + i, logits=1) for i in range(tokens[path]))
    assert usage.policy_flops == flops
    distinct = {steps for _, steps in scorer.scored}
    ends = {steps for steps in distinct if not steps[-1].endswith("\n")}
    assert usage.scored == prompt + sum(len(steps[-1]) for steps in distinct) + len(ends)  # and the end-of-turn tokens


def test_a_lookahead_is_decoded_and_scored_too():
    def search(lookahead):
        policy = ScriptedPolicy(dice("ab\n\n", "c\n\n", "d$"))
        found = asyncio.run(beam_search(PROBLEM, policy, ScriptedScorer(by_hash), n=4, seed=0, lookahead=lookahead))
        return found, searched(2, found, policy=SMALL, prm=LARGE)

    found, ahead = search(2)
    assert ahead.decoded == found.generated > sum(node.tokens for node in found.nodes)
    assert ahead.scored == 2 + found.scored


def test_sums_differences_and_records():
    one, two = Usage(1, 2, 3, 4, 5, 6), Usage(10, 20, 30, 40, 50, 60)
    assert one + two == Usage(11, 22, 33, 44, 55, 66)
    assert (one + two) - two == one
    assert Usage(**two.to_dict()) == two
    assert sum([one, two], Usage()) == one + two
    assert str(Usage(decoded=1234, policy_flops=15_000_000)).startswith("1,234 tokens decoded, 0 prefilled")


def test_fakes_count_as_nothing():
    assert measured(ScriptedPolicy(None), ScriptedScorer(None)) == Usage()
    search = asyncio.run(best_of_n(PROBLEM, ScriptedPolicy(dice("a$")), ScriptedScorer(by_hash), n=2, seed=0))
    assert independent(2, [solution.tokens for solution in search.solutions], policy=SMALL).decoded == 4


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


def opened(config) -> Model:
    return Model("m", Path(), "", 0, config=config)


def test_a_model_of_the_llama_kind_needs_no_torch_and_is_the_same_counted(monkeypatch):
    config = OTHERS["llama"][0].to_dict()
    counted = count_size(config)
    monkeypatch.setitem(sys.modules, "tts.engines.size", None)  # importing it fails
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
    with pytest.raises(InputError, match="no 'hidden_size'"):
        Size.of({"model_type": "llama"})
