"""Drawing tokens: the generator against published numbers, the draw against the distribution worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from tts.models.draw import Drawing, mix, uniforms
from tts.policy import Sampling


def test_the_generator_is_splitmix64():
    """The first outputs for the seed 1234567, as published with the generator."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    states = np.uint64(1234567) + np.arange(5, dtype=np.uint64) * golden
    assert mix(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_uniform_numbers_are_uniform_over_seeds_and_places():
    seeds, places = np.arange(20_000, dtype=np.uint64), np.zeros(20_000, dtype=np.int64)
    for numbers in (
        uniforms(mix(seeds), places),  # one place, seeds in a row
        uniforms(mix(np.full(20_000, 7, dtype=np.uint64)), np.arange(20_000)),  # one seed
    ):
        assert ((numbers >= 0) & (numbers < 1)).all()
        assert len(set(numbers.tolist())) == 20_000
        assert kstest(numbers, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03


def drawn(logits, *settings, places=None):
    drawing = Drawing(settings)
    return drawing.draw(torch.tensor(logits), np.zeros(len(settings), int) if places is None else np.array(places))


def test_a_draw_by_hand():
    p = [0.1, 0.2, 0.0, 0.7]
    logits = np.log(p, where=np.array(p) > 0, out=np.full(4, -np.inf))
    number = float(uniforms(mix(np.array([5], dtype=np.uint64)), np.array([3]))[0])
    [token], [logprob] = drawn([logits.tolist()], Sampling(temperature=1.0, seed=5), places=[3])
    assert token == (0 if number < 0.1 else 1 if number < 0.3 else 3)
    assert logprob == pytest.approx(np.log(p[token]), abs=1e-6)


def test_temperature_zero_takes_the_first_of_the_largest_and_needs_no_seed():
    logits = [[1.0, 3.0, 3.0, 2.0]] * 3
    ids, logprobs = drawn(logits, *(Sampling(temperature=0.0, seed=seed) for seed in range(3)))
    assert ids.tolist() == [1, 1, 1]
    assert logprobs == pytest.approx(np.log(np.exp(3) / np.exp([1, 3, 3, 2]).sum()), abs=1e-6)


@pytest.mark.parametrize("top_p", [0.5, 0.69, 0.71, 0.9, 1.0])
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p):
    p = np.array([0.05, 0.7, 0.15, 0.1])
    n = 20_000
    settings = [Sampling(temperature=1.0, top_p=top_p, seed=seed) for seed in range(n)]
    ids, _ = drawn(np.tile(np.log(p), (n, 1)), *settings)
    inside = {0.5: [1], 0.69: [1], 0.71: [1, 2], 0.9: [1, 2, 3], 1.0: [0, 1, 2, 3]}[top_p]
    expected = np.where(np.isin(np.arange(4), inside), p, 0) / p[inside].sum()
    assert np.bincount(ids, minlength=4) / n == pytest.approx(expected, abs=0.015)


def test_rows_keep_their_own_settings_when_others_leave():
    settings = [
        Sampling(temperature=t, top_p=p, seed=s) for s, (t, p) in enumerate([(0, 1), (0.5, 1), (1, 0.6), (2, 1)])
    ]
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    places = np.array([0, 4, 2, 9])
    whole = Drawing(settings)
    ids, logprobs = whole.draw(logits, places)
    kept = np.array([1, 3])
    whole.select(kept)
    again = whole.draw(logits[kept], places[kept])
    assert again[0].tolist() == ids[kept].tolist()
    assert again[1].tolist() == logprobs[kept].tolist()


def test_a_token_without_probability_is_never_drawn():
    """Whatever the number: the last tokens may have none, and rounding may put the number at the total."""
    logits = torch.full((5000, 4), -torch.inf)
    logits[:, 1] = 0.0
    ids, _ = Drawing([Sampling(temperature=1.0, seed=seed) for seed in range(5000)]).draw(logits, np.zeros(5000, int))
    assert set(ids.tolist()) == {1}


def test_logits_that_are_no_numbers_give_a_logprob_that_is_none():
    ids, logprobs = drawn([[float("nan")] * 4], Sampling(temperature=1.0))
    assert 0 <= ids[0] < 4
    assert np.isnan(logprobs[0])
