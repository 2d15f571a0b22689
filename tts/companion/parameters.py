"""Parameters of the notebooks: profiles, types, and the folders that a run with them reads and writes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from tts.errors import InputError, check_counts
from tts.models.exact import EXACT
from tts.policy import Sampling
from tts.reductions import REDUCTIONS, reduce_scores
from tts.tiny import base_of

T = TypeVar("T")

Parameters = dict[str, object]

# Profiles beside the default whose figures are committed, each profile's in a folder of its own below figures/.
COMMITTED = ("full", "n256")

# Names that parameters had before: profiles and --set may still use them.
OLD_NAMES = {"width": "beam_width", "weaker_prm": "other_prms"}

# Settings of the machine, not of the experiment: no results depend on them, so no notebook lists them. A profile, --set
# or a line that a reader adds to a parameters cell gives those that shall differ.
MACHINE: Parameters = {
    "gpus": "auto",  # those that CUDA_VISIBLE_DEVICES leaves; or numbers as nvidia-smi has them, such as "0, 1"
    "policy_share": 0.0,  # of a GPU's memory for a policy beside a verifier; 0: planned (tts.models.plan)
    "prm_share": 0.0,  # the same for a verifier
    "tensor_parallel": 0,  # GPUs that share a model's tensors; 0: planned
    "quantization": "",  # "fp8" for all engines, "none"; "": fp8 for a verifier that does not fit otherwise
    "policy_server": "",  # URLs of vLLM servers that have the policy already; "": engines on this machine
    "prm_server": "",  # the same for the verifier
    "max_in_flight": 0,  # requests at a replica at once; 0: four times what the engine decodes at once
    # Seconds without progress after which a request goes to another replica and, where there is none, a problem counts
    # as failed. Downloads and the start of an engine may take as long as they take.
    "patience": 1800.0,
}

_ROOT = Path(__file__).resolve().parents[2]


def repository() -> Path | None:
    """The repository that this package lies in, or None where it was installed without it."""
    return _ROOT if (_ROOT / "notebooks" / "profiles").is_dir() else None


def notebooks(root: Path | None = None) -> list[Path]:
    """The numbered notebooks of the repository, or of the one at root, in their order; none where there is none."""
    return sorted(((root or repository() or Path()) / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def load_profile(name: str, *, folder: Path | None = None) -> Parameters:
    """The parameters that the profile `name` sets, from folder/name.yaml. The profile `default` lists them all."""
    import yaml

    folder = folder or (repository() or Path()) / "notebooks" / "profiles"
    known = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if name not in known:
        raise InputError(f"profile {name!r} is not known: choose one of {', '.join(known) or f'none in {folder}'}")
    path = known[name]
    try:
        parameters = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise InputError(f"profile {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if parameters is None:
        return {}
    if not isinstance(parameters, dict) or not all(isinstance(key, str) for key in parameters):
        raise InputError(f"profile {path} is not a mapping: write one `name: value` a line")
    return parameters


def type_name(value: object) -> str:
    """The type as a parameters cell writes it: "int", "str", "list[int]"."""
    if isinstance(value, list):
        inner = {type_name(item) for item in value}
        return f"list[{inner.pop()}]" if len(inner) == 1 else "list"
    return type(value).__name__


def fits(value: object, expected: str) -> bool:
    """Whether value has the type `expected`, written as in a parameters cell. An int is a float too, True is no int."""
    found = type_name(value)
    if expected.startswith("list[") and found.startswith("list"):
        return all(fits(item, expected[5:-1]) for item in value)
    return found == expected or (expected == "float" and found == "int") or (expected == "list" and found[:4] == "list")


def nearest(name: str, names: Iterable[str]) -> str:
    """The name of names that was probably meant by a misspelt one, or ""."""
    return next(iter(get_close_matches(name, names, 1, cutoff=0.8)), "")


def check_parameters(parameters: Mapping[str, object]) -> None:
    """Raise InputError where a notebook's variable (of its `globals()`) has another type than in the default profile,
    or a setting of MACHINE another type than its default, or where a name is nearly a parameter's.

    Other names are ignored. Ranges: check_ranges.
    """
    known = load_profile("default") | MACHINE
    for name, value in parameters.items():
        plain = isinstance(value, bool | int | float | str) and not name.startswith("_")
        if plain and name not in known and (meant := nearest(name, known)):
            raise InputError(f"{name} = {value!r}: there is no parameter {name}, did you mean {meant}?")
    for name, default in known.items():
        if name in parameters and not fits(parameters[name], type_name(default)):
            found, wanted = type_name(parameters[name]), type_name(default)
            raise InputError(f"{name} = {parameters[name]!r} has type {found}: its type is {wanted}, as in {default!r}")


def check_ranges(given: Mapping[str, object]) -> None:
    """Raise InputError where the value of a parameter is out of range, or two of them don't go together.

    given: the settings of MACHINE and a notebook's own parameters, with the right types (check_parameters).
    """
    counts = "n_max second_n_max n_seeds seeds_n_max n_difficulty probe first_look beam_width depth".split()
    counts += ["verifier_problems", "lookahead_problems", "head_solutions", "train_problems"]
    check_counts(**{name: given[name] for name in counts if name in given})
    counts = ("n_problems", "lookahead", "concurrency", "max_in_flight")
    check_counts(0, **{name: given[name] for name in counts if name in given})
    if not given["patience"] > 0:
        raise InputError(f"patience is {given['patience']}: give the seconds without progress that a problem may take")
    if "reduction" in given:
        reduce_scores([1.0], given["reduction"])
    Sampling(**{name: given[name] for name in ("temperature", "top_p", "max_tokens", "seed") if name in given})
    searched = ["second_n_max", "verifier_n_max", "beyond_n_max", *(["n_max"] if "depth" in given else [])]
    for name in searched:
        if given.get(name, 4) < 4:
            raise InputError(f"{name} is {given[name]}: the smallest budget of a search is 4")
    if "first_look" in given:
        from tts.analysis.curves import powers_of_two  # with pandas and scipy, so not for every run_all.sh

        largest = max(n for n in powers_of_two(given["n_max"]) if n <= given["beyond_n_max"])
        if not given["first_look"] < largest:
            raise InputError(
                f"first_look is {given['first_look']}: it must be below {largest}, "
                "the largest N of samples (1, 2, 4, ... n_max) up to beyond_n_max"
            )
    if "probe" in given and given["probe"] > given["n_difficulty"]:
        raise InputError(f"probe is {given['probe']}: it must be at most n_difficulty, {given['n_difficulty']}")


def check_trained(given: Mapping[str, object]) -> None:
    """Raise InputError where a notebook that trains its policy (notebook 10) can't do so with these parameters."""
    base_of(given["policy_model"])
    if given["prm_model"] == EXACT:
        raise InputError("prm_model is exact: it can't score training problems, give another verifier")


def figures_folder(parameters: Mapping[str, object], *, profiles: Path | None = None) -> Path:
    """Where a notebook with these variables (its `globals()`) writes its figures.

    Only a run with all parameters of the default profile or of one in COMMITTED writes committed figures. The base is
    $TTS_FIGURES, or the repository's figures/, or ./figures: default -> base, `full` -> base/full, `n256` -> base/n256,
    a replay of published completions -> base/replay, anything else -> base/local.
    """
    base = Path(os.environ.get("TTS_FIGURES") or (repository() or Path()) / "figures")
    return base / figures_subfolder(parameters, profiles=profiles)


def figures_subfolder(parameters: Mapping[str, object], *, profiles: Path | None = None) -> str:
    """The part of figures_folder below the base: empty, a name in COMMITTED, replay or local."""
    if parameters.get("replay"):
        return "replay"
    default = load_profile("default", folder=profiles)
    if parameters.get("quantization") == "fp8":  # the one setting of the machine that moves numbers
        return "local"
    ours = {name: parameters[name] for name in default if name in parameters}
    if ours.items() <= default.items():
        return ""
    for profile in COMMITTED:
        with suppress(InputError):  # a repository may be without it
            if ours.items() <= (default | load_profile(profile, folder=profiles)).items():
                return profile
    return "local"


def store_folder(value: str = "store") -> Path:
    """The folder of the results: $TTS_STORE if set, else value. A relative path starts at the repository's root."""
    folder = Path(os.environ.get("TTS_STORE") or value)
    try:
        return (repository() or Path()) / folder.expanduser()
    except RuntimeError:  # no such user, or one without a home
        raise InputError(f"store: {folder} begins with a home folder that is not known: give the whole path") from None


def names_of(text: str) -> list[str]:
    """The names in a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def widths_of(width: int, others: str) -> list[int]:
    """The beam widths M to choose from: width first, then those in others, such as "2, 8" (or "" for none)."""
    return _once("other_widths", width, _counts("other_widths", others, such_as="2, 8"))


def lookaheads_of(text: str) -> list[int]:
    """The greedy steps k that searches look ahead, in text such as "1, 2" (or "" for none); 0 comes first."""
    return _once("lookaheads", 0, _counts("lookaheads", text, such_as="1, 2"))


def _counts(name: str, text: str, *, such_as: str) -> list[int]:
    words = _listed(name, text)
    if not all(word.isdecimal() and int(word) >= 1 for word in words):
        raise InputError(f'{name} is "{text}": give whole numbers of 1 or more, such as "{such_as}", or nothing')
    return [int(word) for word in words]


def reductions_of(reduction: str, others: str) -> list[str]:
    """The reductions to choose from (tts.reductions): reduction first, then those in others, such as "min, prod"."""
    words = _listed("other_reductions", others)
    for word in words:
        if word not in REDUCTIONS:
            raise InputError(f"other_reductions has {word!r}: choose from {', '.join(REDUCTIONS)}, or give nothing")
    return _once("other_reductions", reduction, words)


def prms_of(prm: str, others: str) -> list[str]:
    """The verifiers to compare: prm first, then those in others, such as "exact, prm-weak" (or "" for none)."""
    return _once("other_prms", prm, _listed("other_prms", others))


def _listed(name: str, text: str) -> list[str]:
    words = names_of(text)
    if text.strip() and len(words) <= text.count(","):
        raise InputError(f'{name} is "{text}": there is nothing between two commas')
    return words


def _once(name: str, first: T, others: list[T]) -> list[T]:
    """first, then the others. Naming first among them again is fine; any other repetition is an error."""
    for value in others:
        if others.count(value) > 1:
            raise InputError(f"{name} has {value} twice: name each once")
    return [first, *(value for value in others if value != first)]
