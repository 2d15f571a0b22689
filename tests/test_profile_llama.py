"""The profiles of large models, which are not run here: names and types, and that all of it is pinned."""

import re

import pytest

from tts.companion.parameters import check_parameters, load_profile, notebooks
from tts.companion.plan import read_parameters
from tts.errors import InputError
from tts.models.checkpoint import open_checkpoint
from tts.models.open import open_policy, open_prm
from tts.problems import load_problems
from tts.results.collect import problems_at_once

NOTEBOOKS = notebooks()
LLAMA = load_profile("llama")
QWEN = load_profile("qwen")
GREEDY = [name.strip() for name in LLAMA["greedy_models"].split(",")]


@pytest.mark.slow  # reads every notebook
def test_every_value_fits_a_parameter_of_some_notebook():
    for profile in (LLAMA, QWEN):
        check_parameters(profile)
        assert profile.keys() <= set().union(*map(read_parameters, NOTEBOOKS))


def test_the_profile_for_one_gpu_is_pinned_too_and_needs_no_licence():
    greedy = [name.strip() for name in QWEN["greedy_models"].split(",")]
    for name in (QWEN["problems"], QWEN["policy_model"], QWEN["second_model"], QWEN["prm_model"], *greedy):
        assert re.fullmatch("(Qwen|HuggingFaceH4)/[^/@, ]+@[0-9a-f]{40}", name)
    assert greedy[:2] == [QWEN["policy_model"], QWEN["second_model"]]
    assert (QWEN["n_problems"], QWEN["n_max"]) == (100, 16)


def test_problems_in_flight_follow_from_requests_in_flight():
    assert LLAMA["concurrency"] == QWEN["concurrency"] == 0
    policy = open_policy("policy-xs", server="http://a:1, http://b:1")
    prm = open_prm("prm", server="http://c:1")
    assert (policy.room, prm.room) == (2048, 1024)  # requests: 1,024 a replica
    assert [problems_at_once(n, policy, prm) for n in (1, 4, 256)] == [1024, 256, 4]
    assert open_policy("policy-xs", server="http://a:1", max_in_flight=16).room == 16


def test_models_and_problems_are_pinned_to_commits():
    assert len(GREEDY) == 4
    for name in (LLAMA["problems"], LLAMA["policy_model"], LLAMA["second_model"], LLAMA["prm_model"], *GREEDY):
        assert re.fullmatch("[^/@, ]+/[^/@, ]+@[0-9a-f]{40}", name)
    # A policy that is a greedy baseline too is spelled in one way: notebook 08 goes by the name.
    assert GREEDY[:2] == [LLAMA["policy_model"], LLAMA["second_model"]]


@pytest.mark.parametrize(
    "call",
    [
        lambda: load_problems(LLAMA["problems"]),
        lambda: open_policy(LLAMA["policy_model"], engine="transformers"),
        lambda: open_prm(LLAMA["prm_model"], engine="transformers"),
        lambda: open_checkpoint(GREEDY[-1]),
    ],
)
def test_without_a_network_it_ends_in_one_line(call, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="check (its name and )?the network") as error:
        call()  # the tests run offline
    assert "\n" not in str(error.value)
