"""What set_up refuses before it opens a model, and what it knows of the models that it opens."""

import asyncio
import json
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fakes import ScriptedPolicy, ScriptedScorer, by_hash, dice
from toys import ROOT

from tts.analysis.cost import size_of
from tts.companion.parameters import load_profile
from tts.companion.plan import plan
from tts.companion.setup import set_up
from tts.errors import InputError
from tts.models.plan import Gpu
from tts.problems import load_problems


@pytest.mark.parametrize("name", ["n_max", "second_n_max", "verifier_n_max", "beyond_n_max"])
def test_a_budget_below_that_of_the_smallest_search_is_named(name):
    with pytest.raises(InputError, match=f"^{name} is 3: the smallest budget of a search is 4$"):
        set_up(load_profile("default") | {name: 3})


def test_a_first_look_leaves_something_to_do():
    for changes, message in (
        ({"first_look": 16}, "first_look is 16: it must be below 16, the largest N of samples "),
        ({"beyond_n_max": 4}, "first_look is 4: it must be below 4, "),
        ({"first_look": 9, "beyond_n_max": 15}, "first_look is 9: it must be below 8, "),
        ({"first_look": 0}, "first_look is 0"),
    ):
        with pytest.raises(InputError, match=f"^{message}"):
            opened(**changes)
    assert opened(first_look=8, n_problems=10)


def opened(**changes):
    """set_up of the default profile with changes; its models are opened, not loaded."""
    return set_up(load_profile("default") | {"engine": "transformers"} | changes)


@pytest.mark.parametrize(
    ("changes", "mirrors"),
    [
        ({}, True),
        ({"n_problems": 20, "n_max": 16, "n_seeds": 2, "beam_width": 2}, True),
        ({"prm_model": "prm-weak"}, False),
        ({"policy_model": "policy-m"}, False),
        ({"problems": "tiny/dev"}, False),
        ({"temperature": 1.0}, False),
        ({"reduction": "min"}, False),
    ],
)
def test_only_the_default_world_mirrors_the_real_experiment(changes, mirrors):
    assert opened(**changes).mirrors is mirrors


def test_a_rival_knows_how_many_times_as_large_it_is():
    """The third baseline against the first policy, the fourth against the second, by the weights of their configs."""
    setup = opened(n_problems=10)
    greedy = {one.name: pd.DataFrame({"correct": [True, False]}) for one in setup.baselines}
    weights = [size_of(one).weights + size_of(one).head for one in setup.baselines]
    name, right, times = setup.rival(greedy, 2)
    assert (name, right.tolist()) == (setup.baselines[2].name, [1.0, 0.0])
    assert times == weights[2] / weights[0] > 1
    assert setup.rival(greedy, 3, policy=setup.second_policy).times == weights[3] / weights[1] > 1
    assert setup.rival({name: greedy[name]}, 2) is None
    setup.baselines[2] = SimpleNamespace(name=name)  # a policy of unknown size
    assert np.isnan(setup.rival(greedy, 2).times)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verifier_problems": 0}, "^verifier_problems is 0"),
        ({"head_solutions": 0}, "^head_solutions is 0"),
        ({"train_problems": 0}, "^train_problems is 0"),
        ({"other_prms": "exact, exact"}, "^other_prms has exact twice"),
        ({"other_prms": "no-such"}, "^other_prms='no-such' is unknown"),
    ],
)
def test_verifiers_to_compare(change, message):
    with pytest.raises(InputError, match=message):
        set_up(load_profile("default") | change)


def test_what_verifiers_are_compared_on():
    """The first problems, as many as there are, with the first seed."""
    given = load_profile("default") | {"other_prms": "exact", "n_problems": 20, "n_seeds": 3, "seed": 5}
    for asked, found in ((8, 8), (100, 20)):
        setup = set_up(given | {"verifier_problems": asked})
        assert setup.compared["problems"] == setup.problems[:found]
        assert setup.compared["seeds"] == {5: given["n_max"]}
        assert setup.compared["search_n_max"] == given["verifier_n_max"]
    del given["verifier_n_max"]  # as in the notebooks that go beyond the writeup
    assert set_up(given | {"beyond_n_max": 8}).compared["search_n_max"] == 8


def test_samples_of_baselines_are_scored_after_the_baseline_is_closed():
    """Of those that are no policy of the notebook; so a large one and the verifier need not fit beside each other."""
    events = []

    class Named:
        provenance, prompt_settings = {"engine": "script"}, {}

        async def close(self):
            events.append(f"{self.name} closes")

    class Baseline(Named, ScriptedPolicy):
        def __init__(self, name, **_):
            super().__init__(dice("a\n\n", "\\boxed{1}$"))
            self.name = self.fingerprint = name

        async def sample(self, *arguments, **settings):
            events.append(f"{self.name} samples")
            return await super().sample(*arguments, **settings)

    class Verifier(Named, ScriptedScorer):
        def __init__(self, name, **_):
            super().__init__(by_hash)
            self.name = self.fingerprint = name

        async def score(self, *arguments, **settings):
            events.append(f"{self.name} scores")
            return await super().score(*arguments, **settings)

    given = load_profile("default") | {"n_problems": 10}
    setup = set_up(given, open_policy=Baseline, open_prm=Verifier)
    tables = asyncio.run(setup.samples_of_baselines(2))
    assert {name: len(table) for name, table in tables.items()} == {"policy-m": 20, "policy-l": 20}
    assert all(table.scores.map(len).gt(0).all() for table in tables.values())
    order = list(dict.fromkeys(events))
    assert order.index("policy-m closes") < order.index("prm scores")
    assert order[0] == "policy-m samples"
    assert events[-1] == "prm closes"


@pytest.mark.parametrize(
    ("problems", "known"), [("HuggingFaceH4/MATH-500@abc", True), ("HuggingFaceH4/MATH-500", True), ("tiny/dev", False)]
)
def test_a_baseline_that_does_not_fit_has_its_published_number(problems, known, tmp_path):
    """Labelled with its source, at its own place; on other problems than the number's it is left out."""

    class Named(ScriptedPolicy):
        provenance, prompt_settings = {"engine": "script"}, {}

        def __init__(self, name, **_):
            super().__init__(dice("a\n\n", "\\boxed{1}$"))
            self.name = self.fingerprint = name

        async def close(self):
            """Nothing to close."""

    class Verifier(ScriptedScorer):
        provenance = {}

        def __init__(self, name, **_):
            super().__init__(by_hash)
            self.name = self.fingerprint = name

        async def close(self):
            """Nothing to close."""

    large = "meta-llama/Llama-3.1-70B-Instruct@abc"
    given = load_profile("default") | {"problems": problems, "greedy_models": f"policy-m, {large}, policy-l"}
    setup = set_up(
        given | {"store": str(tmp_path)},
        open_policy=Named,
        open_prm=Verifier,
        load_problems=lambda name, n=0: load_problems("tiny/dev", n=10),
        gpus=[Gpu("0", 79 << 30)],
    )
    label = "Llama-3.1-70B-Instruct (arXiv 2502.06703)"
    names = ["policy-m", label, "policy-l"] if known else ["policy-m", "policy-l"]
    greedy = asyncio.run(setup.greedy())
    assert list(greedy) == [one.name for one in setup.baselines] == names
    assert setup.published == ({label: 0.652} if known else {})
    assert list(asyncio.run(setup.samples_of_baselines(2))) == ["policy-m", "policy-l"], "it has no samples"
    words = setup._repr_markdown_()
    assert "greedy decoding of `policy-m`, `policy-l`." in words
    assert (f"a published number (arXiv 2502.06703): {label}." in words) is known
    if known:
        assert greedy[label].correct.tolist() == [0.652] * 10
        lines = setup.lines(greedy).set_index("method")
        assert lines.accuracy[f"greedy {label}"] == pytest.approx(0.652)
        assert lines.label[f"greedy {label}"].startswith(label)
        assert setup.rival(greedy, 1).right.mean() == pytest.approx(0.652)


@pytest.mark.slow  # reads every notebook
@pytest.mark.parametrize(("given", "named"), [("weaker_prm=prm-weak", "prm-weak"), ("weaker_prm=", "")])
def test_the_old_name_of_other_prms(given, named, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    jobs = plan(profile="smoke", only="03,04", changes=[given])
    assert [job.parameters["other_prms"] for job in jobs] == [named] * 2
    assert capsys.readouterr().err == "run_all: --set: the parameter weaker_prm is now called other_prms\n"


def test_the_committed_run_has_no_banner_and_any_other_says_what_is_changed():
    committed = opened()
    assert committed.changed == {"engine": "transformers"}  # that of these tests
    usual = set_up(load_profile("default"))
    assert usual.changed == {}
    assert usual._repr_markdown_().startswith("This run takes 500 problems of `tiny/test`, `policy-xs` to N = 64")
    words = opened(n_problems=10)._repr_markdown_()
    assert words.startswith("> **This is not the committed run**: `n_problems = 10`, `engine = 'transformers'`.")
    assert "Figures go to `figures/local/`." in words
    assert repr(usual) == usual._repr_markdown_(), "a committed notebook holds it: no path of this machine"


def test_captions_say_what_was_run():
    setup = opened(n_problems=10, n_seeds=2, seeds_n_max=16)
    seeds = "means over 2 seeds up to N = 16."
    of_all = "Run: policy-xs on 10 problems of tiny/test, N to 64, verifier prm with the reduction last, M = 4, "
    assert setup.ran() == of_all + seeds
    assert setup.ran(without=["seeds"]) == of_all[:-2] + "."
    assert setup.ran(without=["verifier", "M", "seeds"]) == "Run: policy-xs on 10 problems of tiny/test, N to 64."
    assert setup.ran(without=["reduction"]) == of_all.replace(" with the reduction last", "") + seeds


def test_a_caption_is_of_the_policies_problems_and_verifiers_of_its_figure():
    setup = opened(n_problems=10, other_prms="exact, prm-weak", verifier_problems=5)
    about = " with the reduction last, M = 4."
    second = setup.ran({"policy-s": 16})
    assert second == f"Run: policy-s on 10 problems of tiny/test, N to 16, verifier prm{about}"
    both = setup.ran({"policy-xs": 64, "policy-s": 16})
    assert both == f"Run: policy-xs (N to 64) and policy-s (N to 16) on 10 problems of tiny/test, verifier prm{about}"
    three = setup.ran(dict.fromkeys(["policy-xs", "policy-s", "policy-m"], 8), without=["verifier", "M"])
    assert three == "Run: policy-xs, policy-s and policy-m on 10 problems of tiny/test, N to 8."
    verifiers = setup.ran(problems=5, others=True)
    of_five = "Run: policy-xs on 5 problems of tiny/test, N to 64, verifiers prm, exact and prm-weak"
    assert verifiers == of_five + about


def test_a_strategy_is_bound_to_those_settings_that_it_takes():
    async def mine(problem, policy, prm, *, n, sampling, depth=3):
        return depth

    bound = opened(n_problems=10, depth=7).bind(mine)
    assert bound.keywords == {"depth": 7}, "beam_width is none of its settings"


def test_a_caption_has_how_it_was_drawn_where_that_differs():
    setup = opened(n_problems=10, temperature=0.5, seed=7)
    assert setup.ran(without=["verifier", "M"]).endswith("N to 64, seed = 7, temperature = 0.5.")


def test_a_figure_saved_in_jupyterlab_is_on_the_page_of_its_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("TTS_FIGURES")
    monkeypatch.setattr("tts.companion.setup.figures_folder", lambda given: tmp_path / "local")
    points = pd.DataFrame({"n": [1, 2], "accuracy": [0.2, 0.3]})
    fig, ax = plt.subplots()
    ax.plot(points.n, points.accuracy)
    opened(n_problems=10).save_figure(fig, "05_majority_voting", points, "A line.")
    page = (tmp_path / "local" / "README.md").read_text()
    assert "## 05_majority_voting" in page
    assert "01_majority_voting.ipynb" in page


def test_the_seeds_of_a_caption_are_those_of_the_first_policy():
    setup = opened(n_problems=10, n_seeds=2, seeds_n_max=16)
    assert "seeds" not in setup.ran({"policy-s": 16})
    both = setup.ran({"policy-xs": 64, "policy-s": 16})
    assert both.endswith("M = 4, means over 2 seeds of policy-xs up to N = 16.")


def test_a_caption_says_what_was_run_where_something_was(tmp_path):
    setup = opened(n_problems=10)
    setup.folder = tmp_path
    data = pd.DataFrame({"method": ["majority"], "accuracy": [0.5]})
    looks = {"majority": {"label": "samples"}}
    asked = {"default": {}, "other": {"about": "Run: x."}, "toy": {"about": ""}, "named": {"looks": looks}}
    for name, settings in asked.items():
        setup.save_figure(plt.figure(), name, data, "It shows.", **settings)
    setup.save_figure(plt.figure(), "diagram", None, "It shows.")
    words = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert words["default"]["caption"] == f"It shows. {setup.ran()}"
    assert words["other"]["caption"] == "It shows. Run: x."
    assert words["toy"]["caption"] == words["diagram"]["caption"] == "It shows."
    assert words["named"]["alt"] == "It shows. Chart. samples: 50%."
    plt.close("all")


def test_labels_of_greedy_lines_say_how_large_a_baseline_is():
    setup = opened(n_problems=10)
    greedy = {one.name: pd.DataFrame({"correct": [True, False]}) for one in setup.baselines}
    lines = setup.lines(greedy)
    assert lines.method.tolist() == [f"greedy {name}" for name in greedy]
    first, second, third, _ = lines.label
    assert first == setup.baselines[0].name
    assert second.startswith(f"{setup.baselines[1].name}, ")
    assert third == f"{setup.baselines[2].name}, {setup.rival(greedy, 2).times:.1f} times as large"
    of_second = setup.lines(greedy, policy=setup.second_policy).label
    assert of_second[1] == setup.baselines[1].name
    assert setup.lines({}).empty


def test_where_a_notebook_has_no_n_max_its_searches_limit_counts():
    given = {name: value for name, value in load_profile("default").items() if name not in ("n_max", "first_look")}
    setup = set_up(given | {"engine": "transformers", "beyond_n_max": 20, "n_seeds": 1})
    assert (setup.budgets, setup.seeds) == ([4, 16], {0: 16})


def test_what_is_trained_is_an_embedded_policy_and_its_problems_can_be_scored(monkeypatch):
    """Of notebook 10 alone: the others take any models, and so does a script with all parameters."""
    monkeypatch.chdir(ROOT)
    for change, said in (
        ("policy_model=meta-llama/Llama-3.2-1B-Instruct", "policy_model is meta-llama/Llama-3.2-1B-Instruct: it can't"),
        ("prm_model=exact", "prm_model is exact: it can't score training problems"),
    ):
        with pytest.raises(InputError, match=f"^{said}"):
            plan(profile="default", only="10", changes=[change])
        assert len(plan(profile="default", only="01,09", changes=[change])) == 2
        assert len(plan(profile="default", with_apart=True, changes=[change])) == 10
