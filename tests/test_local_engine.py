"""The local engine's own forward pass, packs and prefixes against transformers' plain passes."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
import torch
from engine_models import save_model, save_tokenizer
from tokenizers import Tokenizer
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from tts.models.checkpoint import open_checkpoint
from tts.models.llama import Llama, is_kin
from tts.models.open import open_policy
from tts.models.packs import Cohort, decode
from tts.models.reading import FlatReader, Reader, Row, make_batches
from tts.policy import Sampling

pytestmark = pytest.mark.engine

KIN = {
    "llama": {},
    "llama with biases": {"attention_bias": True},
    "llama with one key head": {"num_key_value_heads": 1},
    "llama with long positions": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {},
}
OTHERS = {
    "mistral": {"sliding_window": 6},
    "llama": {"mlp_bias": True},
    "llama ": {"hidden_act": "gelu"},
    "gemma2": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
}


def save(folder, kind, **settings):
    save_tokenizer(folder)
    size = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "eos_token_id": 5}
    sizes |= {"vocab_size": size, "initializer_range": 0.3, "pad_token_id": 0}
    config = CONFIG_MAPPING[kind.split()[0]]
    AutoModelForCausalLM.from_config(config(**sizes | settings), dtype=torch.float32).save_pretrained(folder)
    return open_checkpoint(str(folder))


def load(checkpoint):
    return AutoModelForCausalLM.from_pretrained(checkpoint.path, dtype=torch.float32).eval()


@pytest.fixture(params=KIN)
def pair(request, tmp_path):
    """(transformers' model, ours)"""
    checkpoint = save(tmp_path / "model", request.param, **KIN[request.param])
    assert is_kin(load(checkpoint), checkpoint)
    return load(checkpoint), Llama(load(checkpoint), checkpoint)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_architectures_are_left_to_transformers(tmp_path, kind):
    checkpoint = save(tmp_path / "model", kind, **OTHERS[kind])
    assert not is_kin(load(checkpoint), checkpoint)


def known(usual, ids):
    """Keys and values of transformers' own pass, [layers, 2, heads, tokens, size]."""
    with torch.no_grad():
        cache = usual(input_ids=torch.tensor([ids])).past_key_values
    return torch.stack([torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers])


def test_reading_in_any_cuts_is_reading_at_once(pair):
    usual, ours = pair
    dice = random.Random(0)
    reader = FlatReader(ours, lambda hidden: ours.logits(hidden).double().log_softmax(-1)[:, 7])
    rows = [tuple(dice.choices(range(5, 200), k=dice.randint(2, 40))) for _ in range(9)]
    pasts = [None] * 5 + [reader.read([Row(ids[: len(ids) // 2], None, (), keep=True)])[0][1] for ids in rows[5:]]
    pasts[8] = reader.read([Row(rows[8][:-1], pasts[8], (), keep=True)])[0][1]  # a chain
    wanted = [
        Row(ids, past, tuple(range(past.end if past else 0, len(ids), 2)), keep=i % 2 == 0)
        for i, (ids, past) in enumerate(zip(rows, pasts, strict=True))
    ]
    for row, (scores, segment) in zip(wanted, reader.read(wanted), strict=True):
        with torch.no_grad():
            logprobs = usual(input_ids=torch.tensor([row.ids])).logits[0].double().log_softmax(-1)
        assert scores == pytest.approx(logprobs[list(row.positions), 7].tolist(), abs=1e-4)
        assert (segment is not None) == row.keep
        if segment:
            whole = torch.zeros(len(ours), 2, ours.key_heads, len(row.ids), ours.size)
            segment.copy_to(whole)
            torch.testing.assert_close(whole, known(usual, row.ids), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("width", [1, 3, 4])
def test_packs_decode_what_each_row_decodes_alone(pair, width):
    """Cohorts of different ages, with full and half-full packs, from which rows leave; beyond the first columns."""
    usual, ours = pair
    dice = random.Random(1)
    reader = FlatReader(ours, lambda hidden: hidden[:, 0])
    prefixes = [tuple(dice.choices(range(5, 200), k=k)) for k in (1, 7, 12)]
    segments = [reader.read([Row(ids, None, (), keep=True)])[0][1] for ids in prefixes]
    first = Cohort([(segments[1], width), (segments[0], 1), (segments[2], min(2, width))], reader.token, width=width)
    rows = [[*prefixes[1]] for _ in range(width)] + [[*prefixes[0]]] + [[*prefixes[2]] for _ in range(min(2, width))]
    cohorts, members = [first], [rows]
    for step in range(24):
        if step == 3:
            cohorts.append(Cohort([(None, 1), (segments[0], width)], reader.token, width=width))
            members.append([[], *([*prefixes[0]] for _ in range(width))])
        if step == 8:  # half of the rows are done
            kept = list(range(0, len(members[0]), 2))
            cohorts[0].select(torch.tensor(kept))
            members[0] = [members[0][i] for i in kept]
        rows = [row for of_cohort in members for row in of_cohort]
        ids = [dice.randrange(5, 200) for _ in rows]
        with torch.inference_mode():
            logits = decode(ours, cohorts, torch.tensor(ids))
        for row, token in zip(rows, ids, strict=True):
            row.append(token)
        if step % 4 == 3 or step == 8:
            for row, found in zip(rows, logits, strict=True):
                with torch.no_grad():
                    torch.testing.assert_close(found, usual(torch.tensor([row])).logits[0, -1], atol=1e-3, rtol=1e-3)
    cut = cohorts[0].cut(0)
    torch.testing.assert_close(cut, known(usual, members[0][0])[:, :, :, -24:], atol=1e-4, rtol=1e-3)


def test_a_batch_has_little_padding_and_keeps_to_its_tokens():
    rows = [Row(tuple(range(k)), None, (), keep=False) for k in [1, 2, 3, 5, 8, 13, 21, 34, 55] * 20]
    batches = make_batches(rows, 400)
    assert sorted(map(id, itertools.chain(*batches))) == sorted(map(id, rows))
    for batch in batches:
        padded, real = len(batch) * max(len(row.ids) for row in batch), sum(len(row.ids) for row in batch)
        assert padded <= 400
        assert padded <= 400 // 8 or real >= padded * 5 / 6 - 55
    assert make_batches([Row(tuple(range(999)), None, (), keep=False)], 400)[0]  # a row that is too long goes alone


def test_a_step_is_continued_from_the_cache_and_counted(tmp_path):
    policy = open_policy(str(save_model(tmp_path / "model")), engine="transformers", dtype="float64")
    prompt = policy.prompt("find the value")

    async def run():
        steps = await asyncio.gather(
            *(policy.sample(prompt, Sampling(seed=s, max_tokens=40), stop="e") for s in range(8))
        )
        begun = [one for one in steps if one.finish == "stop"]
        before = policy.counts.copy()
        again = [
            await policy.sample((*prompt, *one.token_ids), Sampling(seed=9, max_tokens=20), stop="\n") for one in begun
        ]
        counts = policy.counts - before
        await policy.close()
        fresh = [await policy.sample((*prompt, *one.token_ids), Sampling(seed=9, max_tokens=20)) for one in begun]
        await policy.close()
        return begun, again, counts, fresh

    begun, again, counts, fresh = asyncio.run(run())
    assert len(begun) > 2
    assert counts["prefilled"] == len(begun)  # the last token of each prefix: the others came from the cache
    assert counts["cached"] == sum(len(prompt) + len(one.token_ids) - 1 for one in begun)
    for one, other in zip(again, fresh, strict=True):
        assert other.token_ids[: len(one.token_ids)] == one.token_ids


def test_a_model_whose_logits_are_not_those_of_its_kin_is_decoded_as_it_is(tmp_path, monkeypatch, capsys):
    from transformers import LlamaForCausalLM

    folder = save_model(tmp_path / "model")
    usual = asyncio.run(drawn(folder))
    own = LlamaForCausalLM.forward

    def scaled(self, *arguments, **settings):
        output = own(self, *arguments, **settings)
        output.logits = output.logits * 3
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", scaled)
    capsys.readouterr()
    assert asyncio.run(drawn(folder)) != usual
    assert "rows can't share what this architecture (LlamaForCausalLM) keeps" in capsys.readouterr().err


async def drawn(folder):
    policy = open_policy(str(folder), engine="transformers")
    found = await asyncio.gather(*(policy.sample((1, 2, 20), Sampling(seed=s, max_tokens=30)) for s in range(5)))
    await policy.close()
    return [one.token_ids for one in found]


def test_plain_and_flat_readers_agree(tmp_path):
    checkpoint = save(tmp_path / "model", "llama")
    usual, dice = load(checkpoint), random.Random(0)

    def forward(at, **inputs):
        output = usual(**inputs)
        return output.logits[at].double().log_softmax(-1)[:, 7], output.past_key_values

    plain = Reader(forward, usual.device)
    ours = Llama(load(checkpoint), checkpoint)
    flat = FlatReader(ours, lambda hidden: ours.logits(hidden).double().log_softmax(-1)[:, 7])
    for _ in range(3):
        ids = [tuple(dice.choices(range(5, 200), k=dice.randint(8, 30))) for _ in range(6)]
        pasts = [[r.read([Row(one[:5], None, (), keep=True)])[0][1] for one in ids[:3]] for r in (plain, flat)]
        found = []
        for reader, known_to_it in zip((plain, flat), pasts, strict=True):
            rows = [Row(one, past, (len(one) - 1,), keep=True) for one, past in zip(ids, [*known_to_it, *[None] * 3])]
            found.append([scores[0] for scores, _ in reader.read(rows)])
        assert found[0] == pytest.approx(found[1], abs=1e-4)
