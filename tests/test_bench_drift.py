"""The bench of a verifier in 8 bits: its table by hand, and its loop with a scripted policy and verifiers."""

import asyncio

import pandas as pd
import pytest
import torch
from fakes import ScriptedPolicy, ScriptedScorer, by_hash
from transformers import LlamaConfig, LlamaForCausalLM

from bench import drift
from tts.models.open import open_prm
from tts.problems import Problem, load_problems

PROBLEMS = [Problem(id=f"p{i}", text=f"Q{i}", answer="1") for i in range(2)]


def test_the_table_by_hand():
    """Of four solutions the second of p0 loses 0.5, so that the vote goes to the first; p1 stays."""
    rows = {"problem": ["p0", "p0", "p1", "p1"], "key": ["1", "2", "1", None]}
    as_it_is = pd.DataFrame(rows | {"scores": [[0.5, 0.6], [0.7], [0.2, 0.1], []]})
    moved = as_it_is.assign(scores=[[0.5, 0.7], [0.2], [0.2, 0.1], []])
    keys = {problem.id: "1" for problem in PROBLEMS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift, "gold_keys", lambda _: keys)
        found = drift.compare({"as it is": as_it_is, "8 bits": moved}, PROBLEMS, "last")
    assert found["as it is"] == ["5", "0.0000", "0.0000", "0.0000", "0.0 %", "50.0 %"]
    assert found["8 bits"] == ["5", "0.1200", "0.4840", "0.5000", "50.0 %", "100.0 %"]  # (0.1 + 0.5) / 5


def test_rounding_by_hand():
    """e4m3 has 3 bits behind the leading one: next to 448 the steps are 32, next to 1 an eighth."""
    row = torch.tensor([448.0, 433.0, 1.06, 1.07, 0.0])
    assert drift.rounded(row, dim=None).tolist() == [448.0, 448.0, 1.0, 1.125, 0.0]
    assert drift.rounded(row / 448, dim=-1).tolist() == pytest.approx([1.0, 1.0, 1 / 448, 1.125 / 448, 0.0])
    two = torch.stack([row, row / 1e4])
    assert torch.equal(drift.rounded(two, dim=-1)[0], drift.rounded(row, dim=None))
    assert (drift.rounded(two, dim=None)[1] != drift.rounded(two, dim=-1)[1]).any()  # one scale is coarser there


def test_only_the_matrices_of_the_layers_are_rounded():
    config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, **config))
    before = {name: weights.clone() for name, weights in model.named_parameters()}
    ids = torch.arange(8)[None]
    usual = model(ids).logits
    drift.round_layers(model, scale_of="matrix", inputs=False)
    changed = {name for name, weights in model.named_parameters() if not torch.equal(weights, before[name])}
    assert changed == {name for name in before if name.endswith("_proj.weight")}
    joined = [before[f"model.layers.0.self_attn.{part}_proj.weight"] for part in "qkv"]
    together = drift.rounded(torch.cat(joined), dim=None).split([len(one) for one in joined])
    assert torch.equal(model.model.layers[0].self_attn.k_proj.weight, together[1])
    weights_alone = model(ids).logits
    drift.round_layers(model, scale_of="matrix", inputs=True)
    assert not torch.equal(weights_alone, model(ids).logits)
    assert torch.allclose(usual, model(ids).logits, atol=0.2)


@pytest.mark.engine
def test_without_rounding_the_scores_are_the_engine_s(monkeypatch):
    monkeypatch.setattr(drift, "has_gpu", lambda: False)
    monkeypatch.setattr(drift, "ON_CPU", {name: drift.ON_CPU[name] for name in ("32 bits", "8 bits")})
    problem, steps = load_problems("tiny/dev", n=1)[0].text, ["Thus $7+3=10$.\n\n", r"So $\boxed{10}$."]
    plain, eight = (asyncio.run(prm.score(problem, steps)) for _, prm in drift.scorers("prm", []) if not prm.progress)
    assert plain == pytest.approx(asyncio.run(open_prm("prm", engine="transformers").score(problem, steps)), abs=1e-5)
    assert eight != plain  # by a little
    assert eight == pytest.approx(plain, abs=0.3)


def test_on_a_gpu_vllm_scores_the_same_solutions_twice(tmp_path, monkeypatch, capsys):
    opened = []

    class Closing:
        async def close(self):
            pass

    class Policy(Closing, ScriptedPolicy):
        prompt_settings, provenance, name = {}, {}, "scripted"

    class Scorer(Closing, ScriptedScorer):
        provenance = {}

    def opens(model, *, engine, problems, **settings):
        opened.append((engine, settings))
        return Scorer(by_hash)

    monkeypatch.setattr(drift, "open_policy", lambda *_, **__: Policy(lambda written, seed: r"$\boxed{1}$" + "$"))
    monkeypatch.setattr(drift, "open_prm", opens)
    monkeypatch.setattr(drift, "has_gpu", lambda: True)
    monkeypatch.setattr(drift, "store_folder", lambda _: tmp_path)
    monkeypatch.setenv("TTS_BENCH_PROBLEMS", "3")
    monkeypatch.setenv("TTS_BENCH_N", "2,4")
    drift.main()
    assert opened == [("vllm", settings) for settings in drift.ON_GPU.values()]
    lines = capsys.readouterr().out.splitlines()
    assert "3 problems, 2 solutions" in lines[0]
    assert [line.split()[-1] for line in lines[2:]] == ["%"] * 2
