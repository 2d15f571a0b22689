"""What a run costs, in tokens and FLOPs: by hand and against brute force."""

import asyncio

from fakes import PROBLEM, ScriptedPolicy, ScriptedScorer, by_hash, dice

from tts.analysis.cost import Usage, independent, measured, searched
from tts.models.flops import Size
from tts.strategies import beam_search, best_of_n

SMALL, LARGE = Size(weights=100, head=10, attention=4), Size(weights=1000, head=20, attention=8)


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
    search = asyncio.run(beam_search(PROBLEM, policy, scorer, n=8))
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
        found = asyncio.run(beam_search(PROBLEM, policy, ScriptedScorer(by_hash), n=4, lookahead=lookahead))
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
    search = asyncio.run(best_of_n(PROBLEM, ScriptedPolicy(dice("a$")), ScriptedScorer(by_hash), n=2))
    assert independent(2, [solution.tokens for solution in search.solutions], policy=SMALL).decoded == 4
