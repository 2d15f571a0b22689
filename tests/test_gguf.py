"""A policy from a GGUF file, as docs/bring_your_own.md has it: written in 8 bits, dequantised, and used."""

import asyncio
import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from tts.models.open import open_policy
from tts.policy import Sampling
from tts.problems import load_problems
from tts.tiny import MODELS

gguf = pytest.importorskip("gguf", reason="the package gguf is not among the pins: pip install gguf")
PAGE = Path(__file__).parents[1] / "docs" / "bring_your_own.md"
BYTES = {ord(" "): "Ġ", ord("\n"): "Ċ"}  # as a byte-level vocabulary spells them
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers": "blk",
}


def write_gguf(model: Path, file: Path) -> None:
    """An embedded policy as llama.cpp would write it, matrices in Q8_0."""
    config = json.loads((model / "config.json").read_text())
    tokenizer = json.loads((model / "tokenizer.json").read_text())["model"]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("policy")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    tokens = sorted(tokenizer["vocab"], key=tokenizer["vocab"].get)
    special = [bool(re.fullmatch(r"<\|\w+\|>", token)) for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token.translate(BYTES) for token in tokens])
    writer.add_token_types([3 if one else 1 for one in special])
    writer.add_token_merges([" ".join(part.translate(BYTES) for part in pair) for pair in tokenizer["merges"]])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_chat_template((model / "chat_template.jinja").read_text())
    for name, tensor in load_file(model / "model.safetensors").items():
        values, heads = tensor.float().numpy(), config["num_attention_heads"]
        if "q_proj" in name or "k_proj" in name:  # llama.cpp orders the halves of each rotation in pairs
            values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        for old, new in NAMES.items():
            name = name.replace(old, new)
        kind = gguf.GGMLQuantizationType.Q8_0 if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.engine
def test_the_commands_of_the_page_make_a_policy_of_a_gguf_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("downloads").mkdir()
    write_gguf(MODELS / "policy-xs", Path("downloads/model.Q8_0.gguf"))
    [code] = [block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "gguf_file" in block]
    exec(code, {})
    there, here = load_file("my_policy/model.safetensors"), load_file(MODELS / "policy-xs" / "model.safetensors")
    assert there.keys() == here.keys()
    for name, weights in here.items():  # half a step of 8 bits, and bfloat16's rounding of that
        assert (there[name].float() - weights.float()).abs().max() <= weights.abs().max() * (1 / 254 + 1 / 256), name
    [problem] = load_problems("tiny/dev", n=1)
    policy, original = (open_policy(name, engine="transformers") for name in ("my_policy", "policy-xs"))
    # Not token by token: where words end is a rule with a name in the file, and ours has none.
    texts = [one.checkpoint.decode(one.prompt(problem.text)) for one in (policy, original)]
    assert texts[0] == texts[1]
    sampling = Sampling(temperature=0.0, max_tokens=256)
    solution = asyncio.run(policy.sample(policy.prompt(problem.text), sampling))
    assert solution.finish == "end"
    assert solution.text.count("\n\n") >= 2
    assert r"\boxed{" in solution.text
