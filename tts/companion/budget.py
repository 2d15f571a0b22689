"""What a run with large models would download, hold on GPUs and take: ./run_all.sh --estimate --profile llama.

Everything follows from the parameters and the models' configs, so it needs neither a GPU nor weights nor a network. The
counts are those of the notebooks' own calls (tts.companion.estimate.COLLECTS), made on STAND_INS in place of problems
and multiplied.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tts.companion.estimate import in_columns, missing, short_count
from tts.companion.machine import find_gpus, known_or_opened, plan_engines
from tts.companion.parameters import names_of
from tts.companion.plan import Job
from tts.companion.setup import Setup, set_up
from tts.models.plan import GIB, Gpu, Place, count_parameters, download_bytes, token_bytes, weight_bytes
from tts.problems import Problem
from tts.results.replay import PublishedPolicy, PublishedScorer

STAND_INS = 20  # problems
H100 = [Gpu("0", 79 * GIB)]  # what is planned for where there is no GPU: one of 80 GB
# What a small Llama writes for a problem of MATH-500 (the published completions): tokens and steps of a solution; and
# the tokens that RLHFlow's format puts around a step for the verifier.
SOLUTION, STEPS, AROUND = 510, 7.5, 11
# The stated rates, of an H100: decoding reads the weights and all caches once a token at 60 % of its bandwidth, and
# vLLM takes 5 ms a step of its own; scoring multiplies at 40 % of its speed. The floor multiplies at its full speed.
BANDWIDTH, SPEED = 3.35e12, 989e12  # bytes, floating-point operations a second (dense, 16 bits)
AT_ONCE = 256  # sequences that vLLM decodes at once


@dataclass
class Work:
    """What a run asks of one model, in tokens."""

    decoded: float = 0.0
    scored: float = 0.0


def is_large(job: Job) -> bool:
    """Whether a notebook names a model of the hub, or a server."""
    return any("/" in name and not name.startswith((".", "/", "~")) for name in models_of(job.parameters))


def models_of(given: Mapping[str, object]) -> dict[str, str]:
    """The models of a notebook with these parameters, and what each plays."""
    plays: dict[str, list[str]] = defaultdict(list)
    for parameter, role in (
        ("policy_model", "policy"),
        ("second_model", "second policy"),
        ("prm_model", "verifier"),
        ("other_prms", "other verifier"),
        ("greedy_models", "greedy"),
    ):
        for name in names_of(str(given.get(parameter, ""))):
            if name != "exact" and role not in plays[name]:
                plays[name].append(role)
    return {name: ", ".join(roles) for name, roles in plays.items()}


def budget(jobs: Sequence[Job]) -> str:
    """The table for these notebooks, a row a model, from an empty store. Raises InputError where they don't fit."""
    given = {name: value for job in jobs for name, value in job.parameters.items()}
    gpus = find_gpus(str(given.get("gpus", "auto"))) or H100
    places = plan_engines(given, gpus)
    work = asyncio.run(_work(jobs))
    return table(models_of(given), work, places.of, gpus, is_here=gpus is not H100)


async def _work(jobs: Sequence[Job]) -> dict[str, Work]:
    """The tokens that each model would decode and score."""
    work: dict[str, Work] = defaultdict(Work)
    for lack in await missing(jobs, look=_look):
        of = next(job.parameters for job in jobs if job.name == lack.notebook)
        n = int(lack.gap.table.settings.get("n", 1))
        tokens = lack.records * n * SOLUTION * int(of["n_problems"]) / STAND_INS
        if lack.gap.policy:
            work[lack.gap.policy.name].decoded += tokens
        if lack.gap.prm:
            work[lack.gap.prm.name].scored += tokens * (1 + STEPS * AROUND / SOLUTION)
    return work


def _look(given: Mapping[str, object]) -> Setup:
    """A notebook's set-up with stand-ins for problems and models."""
    share = min(1.0, given.get("verifier_problems", 0) / given["n_problems"])
    fewer = {"n_problems": STAND_INS} | ({"verifier_problems": round(share * STAND_INS)} if share else {})
    return set_up(
        {**given, **fewer},
        open_policy=lambda model, **_: PublishedPolicy(model),
        open_prm=lambda model, **_: PublishedScorer(model),
        load_problems=_stand_ins,
        gpus=[],
    )


def _stand_ins(source: str, *, n: int) -> list[Problem]:
    return [Problem(id=str(i), text=f"{source} {i}", answer=str(i)) for i in range(n)]


def table(
    models: Mapping[str, str],
    work: Mapping[str, Work],
    places: Mapping[str, Place],
    gpus: Sequence[Gpu],
    *,
    is_here: bool,
) -> str:
    """The table; models: name -> what it plays. A model without a place is left out of the sums."""
    rows = [("model", "plays", "download GB", "GPUs", "GiB on each", "decoded", "scored", "hours", "floor")]
    sums, left_out = [0.0] * 5, 0.0
    for name, role in models.items():
        config, place = known_or_opened(name, "policy_model"), places.get(name)
        short, size = name.partition("@")[0], download_bytes(config) / 1e9
        if place is None:
            left_out += size
            rows.append((short, role, f"({size:.1f})", "does not fit", *[""] * 5))
            continue
        ways, of = len(place.groups[0]), work.get(name, Work())
        replicas = f"{len(place.groups)} x {ways}" if len(place.groups) * ways > 1 else "1"
        hours = [
            (decoding(config, place) * of.decoded + scoring(config) * of.scored),
            floor(config) * (of.decoded + of.scored),
        ]
        hours = [seconds / 3600 / used for seconds, used in zip(hours, (len(place.groups), len(place.groups) * ways))]
        memory = f"{place.share * gpus[0].memory / GIB:.1f}" + (
            f" ({place.quantization})" if place.quantization else ""
        )
        numbers = [size, of.decoded, of.scored, *hours]
        sums = [total + number for total, number in zip(sums, numbers)]
        rows.append((short, role, f"{size:.1f}", replicas, memory, *_shown(numbers[1:])))
    rows.append(("all", "", f"{sums[0]:.1f}", "", "", *_shown(sums[1:])))
    where = f"{len(gpus)} GPU{'s' * (len(gpus) > 1)} of {min(gpu.memory for gpu in gpus) / GIB:.0f} GiB"
    notes = [
        "",
        f"Planned for {where}"
        + (" (those of this machine)." if is_here else " (there is none here: as on one H100 of 80 GB)."),
        "Tokens are those of a whole run from an empty store: 510 a solution, and 11 around each of its 7.5 steps",
        "where a verifier reads it. Hours are these tokens over stated rates, not measured ones: decoding at 60 % of",
        "an H100's bandwidth and 5 ms a step, scoring at 40 % of its speed. The floor: each token once at full speed.",
    ]
    if left_out:
        notes.append(f"With what does not fit, {sums[0] + left_out:.1f} GB would be downloaded.")
    return "\n".join([*in_columns(rows), *notes])


def _shown(numbers: Sequence[float]) -> tuple[str, ...]:
    *tokens, hours, least = numbers
    return *map(short_count, tokens), f"{hours:,.2f}", f"{least:,.2f}"


def decoding(config: Mapping[str, object], place: Place) -> float:
    """Seconds that one replica takes for a token, with as many sequences at once as it has room for."""
    at_once = max(1, min(place.sequences, AT_ONCE))
    ways = len(place.groups[0])
    read = weight_bytes(config, place.quantization) + at_once * (SOLUTION / 2 + 200) * token_bytes(config)
    return (read / ways / (0.6 * BANDWIDTH) + 0.005) / at_once


def scoring(config: Mapping[str, object]) -> float:
    """Seconds that a verifier takes to read a token."""
    return floor(config) / 0.4


def floor(config: Mapping[str, object]) -> float:
    """Seconds of arithmetic of a token at an H100's full speed."""
    return 2 * count_parameters(config) / SPEED
