"""Architectures of many kinds, tiny and random: scores are those of the model's own logits, whatever is cached, and a
batch samples what each of its requests samples alone."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace

import prm_models
import prm_oracles
import pytest
import torch
from engine_models import save_tokenizer
from tokenizers import Tokenizer
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from tts.errors import ContextExceeded, InputError
from tts.models.open import open_policy, open_prm
from tts.policy import Sampling

pytestmark = [pytest.mark.engine, pytest.mark.slow]

MIXED = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"] * 2}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 4, "mamba_n_groups": 1}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}
ATTENTION = {  # model_type -> what makes its kind
    "llama": {},
    "mistral": {"sliding_window": 6},
    "qwen2": {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2},
    "qwen3": {},
    "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 0.25},
    "cohere2": {"logit_scale": 0.25, **MIXED},
    "gemma2": {"final_logit_softcapping": 5.0, "attn_logit_softcapping": 5.0, **MIXED},
    "gemma3_text": {"final_logit_softcapping": 5.0, **MIXED},
    "gemma3n_text": {  # layers that share keys and values
        "num_kv_shared_layers": 2,
        "laurel_rank": 4,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 400,
        "altup_num_inputs": 2,
        "activation_sparsity_pattern": None,
        **MIXED,
    },
    "gpt2": {},
    "gpt_neox": {},
    "gpt_oss": {"num_local_experts": 4, **MIXED},
    "bloom": {"n_head": 2, "n_layer": 4},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi": {},
    "phi3": {"pad_token_id": 0},
    "olmo2": {},
    "olmo3": MIXED,
    "stablelm": {},
    "deepseek_v2": {
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 12,
        "first_k_dense_replace": 4,
        "num_key_value_heads": 2,
    },
    "llama4_text": {"num_local_experts": 2, "intermediate_size_mlp": 48, "attention_chunk_size": 8},
    "starcoder2": {"sliding_window": 6},
    "modernbert-decoder": {"local_attention": 6},
    "nanochat": {"final_logit_softcapping": 5.0},
}
OTHER = {  # layers that keep a state of their own kind, or keys and values of different sizes
    "bamba": {"attn_layer_indices": [1, 3], **MAMBA},
    "falcon_h1": {"mamba_d_ssm": 64, "lm_head_multiplier": 0.25, **MAMBA},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"] * 2,
        "shared_intermediate_size": 48,
        "logits_scaling": 8.0,
        **MAMBA,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "minimax": {"num_local_experts": 2},
    "qwen3_5_text": LINEAR,
}
UNCACHED = {  # recurrent models that hand out no cache
    "mamba": {"state_size": 4, "time_step_rank": 4},
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 6},
}
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
PROBLEM = "What is 12 + 3 - 1?"
SOLUTIONS = [
    ["12 + 3 = 15\n\n", "15 - 1 = 14\n\n", "So the answer is 14."],
    ["12 + 3 = 16\n\n", "So the answer is 16 - 1 = 15."],
    ["a", "b + c\n\n", "d", "So the answer is 15 - 0 = 15."],
]


def save(folder, kind, made, **settings):
    """A random model of a kind for a tokenizer."""
    config = CONFIG_MAPPING[kind]
    known = {name: value for name, value in SIZES.items() if hasattr(config(), name)}
    known["vocab_size"] = made.get_vocab_size()
    named = {config.attribute_map.get(name, name): value for name, value in known.items()}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**named | settings), dtype=torch.float32)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.normal_(0, 0.25)
    model.save_pretrained(folder)
    return folder


def save_prm(folder, kind, **settings):
    made = prm_models.tokenizer()
    save(folder, kind, made, **settings)
    PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<|pad|>", eos_token="<|end|>").save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(prm_models.CHAT)
    return folder


def scored(scorer):
    """All solutions at once, and step by step as a search asks."""

    async def grow(steps):
        scores = []
        for k in range(1, len(steps) + 1):
            scores = await scorer.score(PROBLEM, steps[:k], known=scores)
        return scores

    async def run():
        by_step = await asyncio.gather(*(grow(steps) for steps in SOLUTIONS))
        cached = scorer.counts["cached"]
        scorer._scores.clear()
        whole = await asyncio.gather(*(scorer.score(PROBLEM, steps) for steps in SOLUTIONS))
        await scorer.close()
        return by_step, whole, cached

    return asyncio.run(run())


@pytest.mark.parametrize("kind", [*ATTENTION, *OTHER, *UNCACHED])
def test_scores_are_those_of_the_models_own_logits_cached_or_not(tmp_path, capsys, kind):
    folder = save_prm(tmp_path / "prm", kind, **(ATTENTION | OTHER | UNCACHED)[kind])
    expected = [prm_oracles.rlhflow(folder, PROBLEM, steps) for steps in SOLUTIONS]
    capsys.readouterr()
    by_step, whole, cached = scored(open_prm(str(folder), format="rlhflow", engine="transformers"))
    for ours in (by_step, whole):
        assert sum(ours, []) == pytest.approx(sum(expected, []), abs=1e-5)
    assert len({round(score, 3) for score in sum(expected, [])}) > 4, "the random model says something"
    said = [line for line in capsys.readouterr().err.splitlines() if "prefix cache" in line]
    if kind in ATTENTION:
        assert cached > 0
        assert said == []
    else:
        assert cached == 0
        assert [line.split(",")[0] for line in said] == ["prm_model=prm: the prefix cache is off"]


def test_an_architecture_that_looks_at_the_whole_vocabulary_is_read_whole(tmp_path, monkeypatch):
    """As one that masks some tokens does: two logits are not enough for it."""
    from transformers import LlamaForCausalLM

    own = LlamaForCausalLM.forward

    def forward(self, *arguments, **settings):
        output = own(self, *arguments, **settings)
        output.logits = output.logits - output.logits.amax(-1, keepdim=True).tanh() * torch.arange(
            output.logits.shape[-1]
        )
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", forward)
    folder = save_prm(tmp_path / "prm", "llama")
    expected = [prm_oracles.rlhflow(folder, PROBLEM, steps) for steps in SOLUTIONS]
    for ours in scored(open_prm(str(folder), format="rlhflow", engine="transformers"))[:2]:
        assert sum(ours, []) == pytest.approx(sum(expected, []), abs=1e-5)


def save_policy(folder, kind, **settings):
    save_tokenizer(folder)
    return save(folder, kind, Tokenizer.from_file(str(folder / "tokenizer.json")), **{"eos_token_id": 5} | settings)


def drawn(policy, requests):
    async def run():
        try:
            return await asyncio.gather(*(policy.sample(*request) for request in requests))
        finally:
            await policy.close()

    return asyncio.run(run())


@pytest.mark.parametrize("kind", [*ATTENTION, *OTHER])
def test_a_batch_samples_what_each_request_samples_alone(tmp_path, kind):
    folder = save_policy(tmp_path / "policy", kind, **(ATTENTION | OTHER)[kind])
    policy = open_policy(str(folder), engine="transformers")
    prompts = [policy.prompt("add " * i + "the sum") for i in (0, 3, 11, 14)]
    requests = [(prompt, Sampling(max_tokens=5 + 4 * i, seed=i)) for i, prompt in enumerate(prompts)]
    together = drawn(policy, requests)
    alone = [drawn(policy, [request])[0] for request in requests]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for (prompt, _), one in zip(requests, together, strict=True):  # and the model's own logits say the same
        assert one.token_ids
        ids = torch.tensor([[*prompt, *one.token_ids, *([5] if one.finish == "end" else [])]])
        with torch.no_grad():
            logprobs = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        assert one.logprob == pytest.approx(logprobs.gather(1, ids[0, len(prompt) :, None]).sum().item(), abs=1e-3)


@pytest.mark.parametrize("kind", UNCACHED)
def test_a_policy_without_a_cache_is_refused_in_one_line(tmp_path, kind):
    policy = open_policy(str(save_policy(tmp_path / "policy", kind, **UNCACHED[kind])), engine="transformers")
    with pytest.raises(InputError, match="^policy_model=policy: transformers can't decode its architecture"):
        drawn(policy, [((1, 2, 3), Sampling())])


def test_a_table_of_positions_ends_with_the_context(tmp_path):
    policy = open_policy(str(save_policy(tmp_path / "policy", "gpt2", n_positions=32)), engine="transformers")
    assert policy.context == 32
    short, long = (1, 2, 3), (1, *[20] * 29)
    settings = Sampling(max_tokens=99)
    # The long ones are soon done and stay in their batch, padded.
    many = [(prefix, replace(settings, seed=s)) for s, prefix in enumerate([long] * 2 + [short] * 40)]
    assert all(len(one.token_ids) <= 29 for one in drawn(policy, many))
    scorer = open_prm(str(save_prm(tmp_path / "prm", "gpt2", n_positions=64)), format="rlhflow", engine="transformers")

    async def run():
        begun = await scorer.score("a", ["b" * 20, "c"])
        more = await asyncio.gather(scorer.score("a", ["b" * 20, "c", "d"], known=begun), scorer.score("a", ["e" * 40]))
        with pytest.raises(ContextExceeded, match="context 64"):
            await scorer.score("a", ["b" * 99])
        await scorer.close()
        return more

    assert [len(scores) for scores in asyncio.run(run())] == [3, 1]


def test_a_turn_ends_where_the_template_ends_it(tmp_path):
    """The eos token is another one: some samples would go on behind the end of their turn."""
    folder = save_policy(tmp_path / "policy", "llama", eos_token_id=1)
    policy = open_policy(str(folder), engine="transformers")
    assert policy.checkpoint.ends == (1, 5)  # the config's, and the template's
    requests = [(policy.prompt("find the sum"), Sampling(temperature=1.5, max_tokens=100, seed=s)) for s in range(60)]
    ended = drawn(policy, requests)
    assert sum(one.finish == "end" for one in ended) > 6
    assert not any(5 in one.token_ids for one in ended)
    unaware = tmp_path / "unaware"
    shutil.copytree(folder, unaware)
    (unaware / "chat_template.jinja").write_text("{{ bos_token }}<|user|>\n{{ messages[0]['content'] }}<|assistant|>\n")
    settings = json.loads((unaware / "tokenizer_config.json").read_text())
    (unaware / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": None}))
    assert any(5 in one.token_ids for one in drawn(open_policy(str(unaware), engine="transformers"), requests))
