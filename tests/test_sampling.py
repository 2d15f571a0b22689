"""The settings of a draw are checked when they are made, and say which one is wrong."""

from dataclasses import FrozenInstanceError, replace

import pytest

from tts.errors import InputError
from tts.policy import Sampling


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -0.1}, r"temperature is -0\.1: it must be 0 \(greedy\) or more"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_p": 0.0}, r"top_p is 0\.0: it must be above 0 and at most 1"),
        ({"top_p": -0.5}, r"top_p is -0\.5"),
        ({"top_p": 1.5}, r"top_p is 1\.5"),
        ({"top_p": float("nan")}, "top_p is nan"),
        ({"max_tokens": 0}, "max_tokens is 0: it must be a whole number, 1 or more"),
        ({"max_tokens": -3}, "max_tokens is -3"),
        ({"max_tokens": 2.5}, r"max_tokens is 2\.5"),
        ({"seed": 1.5}, r"seed is 1\.5: it must be a whole number"),
        ({"seed": None}, "seed is None"),
        ({"seed": "1"}, "seed is '1'"),
    ],
)
def test_a_bad_value_is_named_in_one_line(setting, message):
    with pytest.raises(InputError, match=f"^{message}") as caught:
        Sampling(**setting)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=f"^{message}"):
        replace(Sampling(), **setting)  # a copy is checked too


def test_the_limits_themselves_are_allowed():
    assert Sampling(temperature=0, top_p=1, max_tokens=1, seed=-1) == Sampling(0.0, 1.0, 1, -1)
    assert Sampling() == Sampling(temperature=0.8, top_p=1.0, max_tokens=2048, seed=0)


def test_it_is_a_value():
    assert len({Sampling(), Sampling(), Sampling(seed=1)}) == 2
    with pytest.raises(FrozenInstanceError):
        Sampling().seed = 1
