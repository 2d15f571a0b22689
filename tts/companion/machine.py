"""What this machine gives a notebook's engines: its GPUs, and each engine's place on them (tts.models.plan)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tts.companion.parameters import MACHINE, names_of, prms_of
from tts.errors import InputError
from tts.models.checkpoint import open_checkpoint
from tts.models.exact import EXACT
from tts.models.open import has_gpu
from tts.models.plan import Engine, Gpu, Place, known_config, place
from tts.results.published import GREEDY, GREEDY_SOURCE, short_name


@dataclass
class Places:
    """Where a notebook's engines run. Empty where there is no GPU, or where nothing of it runs on this machine."""

    of: dict[str, Place] = field(default_factory=dict)  # by the name of the model
    skipped: dict[str, str] = field(default_factory=dict)  # greedy baselines that don't fit: name -> why, in one line

    def arguments(self, model: str) -> dict[str, object]:
        """The arguments of open_policy or open_prm for the model of this name; none where nothing is planned for it."""
        if model not in self.of:
            return {}
        found = self.of[model]
        return {
            "devices": found.groups,
            "gpu_memory_utilization": found.share,
            "quantization": found.quantization,
        }


def find_gpus(gpus: str = "auto") -> list[Gpu]:
    """The GPUs that a run may use, from nvidia-smi; none where there is none. gpus: see tts.companion.parameters."""
    wanted = gpus.strip()
    if wanted != "auto" and not re.fullmatch(r"\d+(\s*,\s*\d+)*", wanted):
        raise InputError(f'gpus={gpus!r}: give "auto", or numbers as nvidia-smi has them, such as "0, 1"')
    if not has_gpu():
        if wanted != "auto":
            raise InputError(f"gpus={gpus!r}, but this job has no NVIDIA GPU: see nvidia-smi and CUDA_VISIBLE_DEVICES")
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").replace(" ", "")
    chosen = visible if wanted == "auto" else re.sub(r"\s", "", wanted)
    try:
        rows = [row.split(",") for row in ask_nvidia("index,memory.total", chosen)]
        found = [Gpu(index, int(memory) << 20) for index, memory in rows]
    except (OSError, ValueError, subprocess.SubprocessError):
        found = []
    if not found:
        named = f"gpus={gpus!r}" + (f" with CUDA_VISIBLE_DEVICES={visible}" if visible else "")
        raise InputError(f"{named}: nvidia-smi does not say how much memory these have: give numbers of whole GPUs")
    return found


def ask_nvidia(fields: str, gpus: str = "") -> list[str]:
    """What nvidia-smi says of these GPUs ("" for all), a line each. OSError or SubprocessError where it fails."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    command += [f"--id={gpus}"] if gpus else []
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return [line.strip() for line in said.splitlines() if line.strip()]


def stages_of(given: Mapping[str, object], config_of: Callable[[str, str], Mapping]) -> list[list[Engine]]:
    """The engines of this machine that a notebook with these parameters holds at the same time, set by set.

    config_of: (name of a model, its parameter) -> its config.
    """
    policies, verifiers = [], []
    if not given.get("policy_server"):
        policies = [(given[name], name) for name in ("policy_model", "second_model") if given.get(name)]
    if "prm_model" in given:
        first, *others = prms_of(given["prm_model"], given.get("other_prms", ""))
        named = [] if given.get("prm_server") else [(first, "prm_model")]
        verifiers = [one for one in named + [(name, "other_prms") for name in others] if one[0] != EXACT]
    alone = [[Engine(name, parameter, config_of(name, parameter))] for name, parameter in policies]
    scoring = [[Engine(name, parameter, config_of(name, parameter), True)] for name, parameter in verifiers]
    if not alone or not scoring:
        return alone or scoring
    first, *others = alone
    return [first + verifier for verifier in scoring] + [policy + scoring[0] for policy in others]


def plan_engines(given: Mapping[str, object], gpus: Sequence[Gpu] | None = None) -> Places:
    """Where the engines of a notebook with these parameters run, before anything is downloaded.

    gpus: those of this machine by default. A greedy baseline that does not fit is skipped, with a line on stderr.
    Raises InputError, one line, where the policies and verifiers don't fit.
    """
    settings = MACHINE | {name: given[name] for name in MACHINE if name in given}
    gpus = find_gpus(settings["gpus"]) if gpus is None else gpus
    if not gpus:
        return Places()
    asked = {name: settings[name] for name in ("tensor_parallel", "quantization")}
    shares = {name: settings[name] for name in ("policy_share", "prm_share")}
    stages = stages_of(settings | dict(given), known_or_opened)
    of = {engine.model: where for engine, where in place(stages, gpus, **asked, **shares).items()} if stages else {}
    skipped = {}
    for name in names_of(given.get("greedy_models", "")):
        if name in of or (settings["policy_server"] and name in (given["policy_model"], given.get("second_model"))):
            continue
        baseline = Engine(name, "greedy_models", known_or_opened(name, "greedy_models"))
        try:
            of[name] = place([[baseline]], gpus, **asked)[baseline]
        except InputError as error:
            skipped[name] = str(error)
            number = ""
            if short_name(name) in GREEDY:
                accuracy, _ = GREEDY[short_name(name)]
                number = f"; its published greedy accuracy on MATH-500 is {100 * accuracy:.1f} % ({GREEDY_SOURCE})"
            print(f"skipped: {error}{number}", file=sys.stderr)
    return Places(of, skipped)


def known_or_opened(model: str, parameter: str) -> Mapping[str, object]:
    """The config of a model, from the profiles' table or else from its directory or the hub."""
    known = known_config(model)
    return known if known else open_checkpoint(model, parameter=parameter, chat=False).config
