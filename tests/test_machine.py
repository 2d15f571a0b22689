"""Each notebook of each profile of large models on faked GPUs, and the table of what its run would take."""

import re

import pytest
from toys import ROOT

from tts.companion.budget import Work, budget, is_large, models_of, table
from tts.companion.machine import Places, find_gpus, plan_engines, stages_of
from tts.companion.parameters import MACHINE, check_parameters, figures_subfolder, load_profile, notebooks
from tts.companion.plan import plan
from tts.companion.setup import set_up
from tts.errors import InputError
from tts.models.open import open_policy, open_prm
from tts.models.plan import GIB, LEAST, USABLE, Gpu, Place, known_config, weight_bytes

NOTEBOOKS = [path.stem for path in notebooks()][:8]
L70 = "meta-llama/Llama-3.1-70B-Instruct@1605565b47bb9346c5515c34102e054115b4f98b"


def gpus(number, gib):
    return [Gpu(str(i), int(gib * GIB)) for i in range(number)]


@pytest.fixture(scope="module")
def jobs():
    """profile -> notebook -> its parameters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return {name: {job.name: job for job in plan(profile=name)} for name in ("llama", "qwen")}


@pytest.mark.slow  # reads every notebook
@pytest.mark.parametrize(("number", "gib"), [(1, 79), (1, 24), (8, 79)])
@pytest.mark.parametrize("profile", ["llama", "qwen"])
def test_every_notebook_has_its_places(jobs, profile, number, gib):
    machine = gpus(number, gib)
    for name in NOTEBOOKS:
        given = jobs[profile][name].parameters
        places = plan_engines(given, machine)
        fits_70b = number == 8
        assert [one.partition("@")[0] for one in places.skipped] == (
            []
            if fits_70b or profile == "qwen" or "greedy_models" not in given
            else ["meta-llama/Llama-3.1-70B-Instruct"]
        )
        baselines = [one for one in models_of(given) if models_of(given)[one] == "greedy"]
        stages = [
            [engine.model for engine in stage] for stage in stages_of(given, lambda model, _: known_config(model))
        ]
        assert {one for stage in stages for one in stage} | set(baselines) == set(models_of(given))
        for stage in [*stages, *([one] for one in baselines if one not in places.skipped)]:
            for gpu in machine:
                here = [places.of[one] for one in stage if any(gpu.name in group for group in places.of[one].groups)]
                assert len(here) == len(stage), "policy and verifier stand on the same GPUs, all of them in use"
                assert 0 < sum(place.share for place in here) <= USABLE + 1e-9
            for one in stage:
                place = places.of[one]
                weights = weight_bytes(known_config(one), place.quantization) / len(place.groups[0])
                assert weights + 2 * GIB < place.share * gib * GIB
                assert place.sequences >= LEAST
        if "prm_model" in given:
            eight_bits = gib == 24 and (profile == "llama" or name == "08_larger_models")
            assert places.of[given["prm_model"]].quantization == ("fp8" if eight_bits else "")
        if fits_70b and L70 in places.of:
            assert places.of[L70].groups == (("0", "1", "2", "3"), ("4", "5", "6", "7"))
        assert all(len(place.groups) == number for one, place in places.of.items() if one != L70)


@pytest.mark.slow
def test_a_baseline_that_does_not_fit_is_named_with_its_published_number(jobs, capsys):
    plan_engines(jobs["llama"]["08_larger_models"].parameters, gpus(1, 79))
    assert capsys.readouterr().err == (
        f"skipped: greedy_models={L70} does not fit on the GPU of 79.0 GiB, 63.2 GiB are missing: set quantization=fp8"
        "; its published greedy accuracy on MATH-500 is 65.2 % (arXiv 2502.06703)\n"
    )


@pytest.mark.slow
def test_the_shortfall_names_the_parameter(jobs):
    with pytest.raises(
        InputError, match="6.1 GiB are missing: name a smaller model as prm_model, or larger or more GPUs"
    ):
        plan_engines(jobs["llama"]["08_larger_models"].parameters, gpus(1, 16))
    short = jobs["qwen"]["04_beam_search"].parameters | {"prm_model": "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B"}
    assert plan_engines(short, gpus(1, 16)).of, "the line of the profile for short memory"


def test_where_there_is_no_gpu_nothing_is_planned(monkeypatch):
    monkeypatch.setattr("tts.companion.machine.has_gpu", lambda: False)
    assert plan_engines(load_profile("llama")) == Places()
    assert Places().arguments("any") == {}
    with pytest.raises(InputError, match="gpus='0', but this job has no NVIDIA GPU"):
        find_gpus("0")
    with pytest.raises(InputError, match="gpus='first': give \"auto\", or numbers"):
        find_gpus("first")


def test_gpus_are_those_that_the_job_may_use(monkeypatch, tmp_path):
    rows = {"": "0, 81559\n1, 81559", "1": "1, 81559", "0,1": "0, 81559\n1, 24564"}
    cases = "".join(f'*--id={ids}) echo "{said}" ;; ' for ids, said in rows.items() if ids)
    (tmp_path / "nvidia-smi").write_text(
        f'#!/bin/sh\ncase "$*" in {cases}*--id=*) exit 6 ;; *) echo "{rows[""]}" ;; esac\n'
    )
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("tts.companion.machine.has_gpu", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert find_gpus() == [Gpu("0", 81559 << 20), Gpu("1", 81559 << 20)]
    assert find_gpus("0, 1") == [Gpu("0", 81559 << 20), Gpu("1", 24564 << 20)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert find_gpus() == [Gpu("1", 81559 << 20)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1")
    with pytest.raises(InputError, match="^gpus='auto' with CUDA_VISIBLE_DEVICES=MIG-1: nvidia-smi does not say"):
        find_gpus()


def test_servers_take_no_gpu_of_this_machine():
    given = load_profile("default") | load_profile("llama")
    models = [
        engine.model for stage in stages_of({**given, "prm_server": "http://a"}, lambda *_: {}) for engine in stage
    ]
    assert models == [given["policy_model"], given["second_model"]]
    models = [
        engine.model for stage in stages_of({**given, "policy_server": "http://a"}, lambda *_: {}) for engine in stage
    ]
    assert models == [given["prm_model"]]


def test_eight_gpus_are_eight_replicas_of_policy_and_verifier_and_two_of_70b(monkeypatch):
    """As opened: each replica with its own devices, a policy and a verifier on each GPU."""
    for module in ("vllm", "open"):
        monkeypatch.setattr(f"tts.models.{module}.vllm_package", lambda: ("pytest", True))
    given = load_profile("default") | load_profile("llama")
    places = plan_engines(given, gpus(8, 79))

    def devices(opened):
        return [replica.engine._spec()["devices"] for replica in opened._engines._replicas]

    policy = open_policy("policy-xs", engine="vllm", **places.arguments(given["policy_model"]))
    prm = open_prm("prm", engine="vllm", **places.arguments(given["prm_model"]))
    assert devices(policy) == devices(prm) == [str(i) for i in range(8)]
    large = open_policy("policy-xs", engine="vllm", **places.arguments(L70))
    assert devices(large) == ["0,1,2,3", "4,5,6,7"]
    assert len({replica.engine.label for replica in policy._engines._replicas}) == 8, "problems are hashed to them"


def test_places_reach_the_engines():
    """set_up hands each model its place, a server's URLs to those it serves, and leaves out what does not fit."""
    asked = {}

    class Model:
        def __init__(self, name, **settings):
            self.name = self.fingerprint = name
            asked[name, settings["parameter"]] = settings

    given = load_profile("default") | load_profile("qwen") | {"problems": "tiny/dev", "n_problems": 20}
    setup = set_up(given, open_policy=Model, open_prm=Model, gpus=gpus(1, 24))
    prm = asked[given["prm_model"], "prm_model"]
    assert (prm["devices"], prm["quantization"]) == ((("0",),), "fp8")
    shares = [asked[given[name], name]["gpu_memory_utilization"] for name in ("policy_model", "second_model")]
    assert all(share > 0 and share + prm["gpu_memory_utilization"] <= USABLE for share in shares)
    assert len(setup.baselines) == 3
    assert not any(settings["server"] for settings in asked.values())
    given |= {"prm_server": "http://a:1", "policy_server": "http://b:1", "other_prms": "prm-weak"}
    asked.clear()
    limits = {"max_in_flight": 9, "patience": 60.0}
    set_up(given | limits, open_policy=Model, open_prm=Model, gpus=gpus(1, 24))
    assert asked[given["prm_model"], "prm_model"]["server"] == "http://a:1"
    assert "devices" not in asked[given["prm_model"], "prm_model"]
    other = asked["prm-weak", "other_prms"]
    assert (other["server"], other["devices"]) == ("", (("0",),)), "the server has one verifier"
    same = asked[given["policy_model"], "greedy_models"]
    assert (same["server"], same["engine"]) == ("http://b:1", "auto"), "the policy as a baseline is the server's too"
    assert "devices" not in same
    assert {parameter for _, parameter in asked} == {
        *("policy_model", "second_model", "prm_model", "other_prms", "greedy_models")
    }
    for settings in asked.values():
        assert {name: settings[name] for name in limits} == limits


@pytest.mark.slow
def test_settings_of_the_machine_are_known_everywhere_and_change_no_notebook(monkeypatch):
    monkeypatch.chdir(ROOT)
    [job] = plan(profile="smoke", only="01", changes=["gpus=0", "prm_share=0.5", "max_in_flight=0"])
    assert not MACHINE.keys() & job.cell.keys()
    assert {name: job.injected[name] for name in MACHINE if name in job.injected} == {"gpus": "0", "prm_share": 0.5}
    with pytest.raises(InputError, match="tensor_parallel is 'two', but its type is int"):
        plan(profile="smoke", only="01", changes=["tensor_parallel=two"])
    with pytest.raises(InputError, match="gpus = 0 has type int: its type is str, as in 'auto'"):
        check_parameters({"gpus": 0})
    default = load_profile("default")
    assert figures_subfolder(default | {"gpus": "0", "prm_share": 0.5}) == ""
    assert figures_subfolder(default | {"quantization": "fp8"}) == "local"


# --- The table ---------------------------------------------------------------------------------------------------


def test_the_table_by_hand():
    """One row a model. 1B: 1e9 tokens; a step of 256 reads 2.47 GB of weights and 256 x 455 tokens of 32 KiB."""
    one, large = "meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.1-70B-Instruct"
    text = table(
        {one: "policy", large: "greedy"},
        {one: Work(decoded=1e9)},
        {one: Place((("0",), ("1",)), 0.5, "", 300)},
        gpus(2, 79),
        is_here=True,
    )
    step = (2 * 1_235_814_400 + 256 * 455 * 32768) / (0.6 * 3.35e12) + 0.005
    hours, least = 1e9 * step / 256 / 3600 / 2, 1e9 * 2 * 1_235_814_400 / 989e12 / 3600 / 2
    head, first, second, total, *notes = text.splitlines()
    assert re.split("  +", head) == "model,plays,download GB,GPUs,GiB on each,decoded,scored,hours,floor".split(",")
    assert re.split("  +", first) == [
        one,
        "policy",
        "2.5",
        "2 x 1",
        "39.5",
        "1,000.0 M",
        "-",
        f"{hours:.2f}",
        f"{least:.2f}",
    ]
    assert re.split("  +", second) == [large, "greedy", "(141.1)", "does not fit"]
    assert re.split("  +", total) == ["all", "2.5", "1,000.0 M", "-", f"{hours:.2f}", f"{least:.2f}"]
    assert notes[1].startswith("Planned for 2 GPUs of 79 GiB (those of this machine).")
    assert notes[-1] == "With what does not fit, 143.6 GB would be downloaded."


@pytest.mark.slow
def test_what_the_profiles_would_take(jobs, monkeypatch):
    """The downloads as the writeup's models have them, and the counts of what notebook 01 and 02 sample."""
    monkeypatch.setattr("tts.companion.budget.find_gpus", lambda gpus: [])
    assert all(map(is_large, jobs["llama"].values()))
    assert not is_large(
        plan_job := jobs["llama"]["01_majority_voting"].__class__(None, load_profile("default"), {}, None, None)
    ), plan_job
    text = budget([jobs["qwen"][name] for name in NOTEBOOKS[:2]])
    rows = {
        line.split()[0].partition("/")[2]: re.split("  +", line)
        for line in text.splitlines()
        if "/" in line.split(" ")[0]
    }
    # 100 problems x 16 samples of 510 tokens, and one greedy solution each; 11 more around each of 7.5 steps.
    assert rows["Qwen2.5-1.5B-Instruct"][5] == f"{100 * 17 * 510 / 1e3:,.0f} k"
    assert rows["Qwen2.5-Math-PRM-7B"][6] == f"{100 * 16 * (510 + 82.5) / 1e3:,.0f} k"
    assert text.splitlines()[5].split()[1] == "38.7"  # GB
    assert "there is none here" in text
    text = budget([jobs["llama"]["08_larger_models"]])
    assert re.search(r"^all +41\.0 ", text, re.MULTILINE)
    assert text.endswith("With what does not fit, 182.1 GB would be downloaded.")
