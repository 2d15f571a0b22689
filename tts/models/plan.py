"""Which engine fits on which GPU, from configs alone: before any weights are downloaded, and without a GPU.

An engine takes three things of each of its GPUs: its weights, BESIDE for activations and CUDA graphs, and the keys and
values of the sequences in flight. Engines that work at the same time share USABLE of each GPU, or all but OUTSIDE where
that is less, so that all of them have room for equally many sequences.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import product
from math import floor
from pathlib import Path

from tts.errors import InputError
from tts.models.config import read_setting
from tts.models.flops import LLAMA_KIND, Size, count_size, meta_model

GIB = 1 << 30
BESIDE = 2 * GIB  # of each engine on each GPU: activations of the largest batch, CUDA graphs, buffers
USABLE = 0.92  # of a GPU's memory, by all engines together: each has a CUDA context too, which its share does not count
# At least so much of a GPU is left for what no share counts. At work a 1B policy and an 8B verifier held 1.6 GiB more
# than their shares on an H100 (docs/on_a_gpu.md); USABLE alone leaves less than that on GPUs below 20 GiB.
OUTSIDE = 7 * GIB // 4
TOKENS = 1024  # of a sequence in flight: a problem of MATH and half of the longest solution
BYTES = {"float32": 4, "float64": 8}  # of a number in a file of weights; of any other type 2
QUANTIZATIONS = ("", "none", "fp8")
# Sequences in flight that there must be room for, and the precision of verifiers: the first that fits is taken. So a
# verifier keeps its own precision where 16 sequences fit, and 8 are the least that an engine is started for.
LEAST = 8
ORDER = [(64, ""), (32, ""), (16, ""), (64, "fp8"), (32, "fp8"), (16, "fp8"), (LEAST, ""), (LEAST, "fp8")]


@dataclass(frozen=True)
class Gpu:
    """A GPU that may be used."""

    name: str  # as CUDA_VISIBLE_DEVICES names it
    memory: int  # bytes, all of it


@dataclass(frozen=True)
class Engine:
    """A model to serve. Equal names are one engine."""

    model: str  # as its parameter names it
    parameter: str = field(compare=False)  # which that is, for messages
    config: Mapping[str, object] = field(compare=False, repr=False)
    is_verifier: bool = False

    @cached_property
    def weights(self) -> dict[str, int]:
        """Bytes of its weights by quantization."""
        return {quantization: weight_bytes(self.config, quantization) for quantization in ("", "fp8")}

    @cached_property
    def token(self) -> int:
        """Bytes of a token's keys and values; 128 KiB where they are not known, as of a Llama of 8B."""
        return token_bytes(self.config) or 1 << 17


@dataclass(frozen=True)
class Place:
    """Where an engine runs."""

    groups: tuple[tuple[str, ...], ...]  # the GPUs of each replica: more than one share its tensors
    share: float  # of each GPU's memory
    quantization: str  # "" for the model's own precision
    sequences: int  # in flight that each replica has room for, TOKENS each


def known_config(model: str) -> Mapping[str, object] | None:
    """The config of a model of the profiles, without asking the hub; None for any other.

    known.json holds what sizes follow from; tests/test_models_plan.py compares it with what the hub says of them. A
    commit after "@" is not heeded: no commit changes a model's shape.
    """
    return _known().get(model.partition("@")[0])


@cache
def _known() -> dict[str, dict]:
    return json.loads(Path(__file__).with_name("known.json").read_text(encoding="utf-8"))


def count_parameters(config: Mapping[str, object]) -> int:
    """The numbers in a model's weights; tied ones count once. Raises InputError where they can't be known."""
    text = config.get("text_config") or config
    kind = text.get("model_type")
    if kind not in LLAMA_KIND:
        return sum(weights.numel() for weights in meta_model(config).parameters())
    size = Size.of(config)
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    width, layers, heads, inner = (read_setting(config, name) for name in names)
    one = read_setting(config, "head_dim") or width // heads
    groups = read_setting(config, "num_key_value_heads") or heads
    of_layer = 2 * width  # two norms
    if kind == "qwen2" or text.get("attention_bias"):
        of_layer += (heads + 2 * groups) * one + (width if kind != "qwen2" else 0)
    if kind == "qwen3":
        of_layer += 2 * one  # the norms of queries and keys
    if text.get("mlp_bias"):
        of_layer += 2 * inner + width
    return size.weights + layers * of_layer + width + _heads(config, size.head, width)


def _heads(config: Mapping[str, object], words: int, width: int) -> int:
    """The embeddings, and what makes the model's output; words: numbers in the matrix of embeddings."""
    architecture = (config.get("architectures") or [""])[0]
    if architecture == "Qwen2ForProcessRewardModel":  # two layers in place of the logits
        return words + width * width + width + 2 * width + 2
    beside = width + 1 if architecture == "Qwen2ForPrmModel" else 0  # one value, beside the logits
    return (1 if read_setting(config, "tie_word_embeddings") else 2) * words + beside


def weight_bytes(config: Mapping[str, object], quantization: str = "") -> int:
    """Bytes of the weights on a GPU in 16 bits; with "fp8" in 8 bits for the layers' matrices, not for embeddings."""
    total = 2 * count_parameters(config)
    if quantization != "fp8":
        return total
    kind = (config.get("text_config") or config).get("model_type")
    return total - (Size.of if kind in LLAMA_KIND else count_size)(config).weights


def download_bytes(config: Mapping[str, object]) -> int:
    """Bytes of the files of weights on the hub, in the type that config.json names."""
    return BYTES.get(str(config.get("dtype") or config.get("torch_dtype")), 2) * count_parameters(config)


def token_bytes(config: Mapping[str, object], *, number: int = 2) -> int:
    """Bytes of a token's keys and values in all layers; number: bytes of each of their numbers. 0 if not known."""
    names = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size", "head_dim")
    layers, heads, groups, width, size = (read_setting(config, name) for name in names)
    if not (layers and heads and (size or width)):
        return 0
    return 2 * number * layers * (groups or heads) * (size or width // heads)


def place(
    stages: Sequence[Sequence[Engine]],
    gpus: Sequence[Gpu],
    *,
    policy_share: float = 0.0,
    prm_share: float = 0.0,
    tensor_parallel: int = 0,
    quantization: str = "",
) -> dict[Engine, Place]:
    """Where each engine goes, the same in all stages; the engines of a stage work at the same time.

    On several GPUs every replica of a policy has one of the verifier beside it, where they fit on one GPU; else each
    kind has half of the GPUs, or several GPUs share a model's tensors.
    policy_share, prm_share, tensor_parallel: 0 for planned. quantization: "" for fp8 where a verifier does not fit
    otherwise, "none", or "fp8" for all engines.
    Raises InputError, one line with the GiB that are missing and the parameter to change, if something does not fit.
    """
    settings = {
        "policy_share": policy_share,
        "prm_share": prm_share,
        "tensor_parallel": tensor_parallel,
        "quantization": quantization,
    }
    _check(gpus, **settings)
    gaps = []
    for layout in _layouts(stages, gpus, settings, ORDER):
        if (gap := max(layout.gap(stage) for stage in stages)) <= 0:
            return layout.places(stages)
        gaps.append(gap)
    raise InputError(_shortfall(stages, gpus, settings, min(gaps, default=0)))


def _check(
    gpus: Sequence[Gpu], *, policy_share: float, prm_share: float, tensor_parallel: int, quantization: str
) -> None:
    for name, share in (("policy_share", policy_share), ("prm_share", prm_share)):
        if not 0 <= share < 1:
            raise InputError(f"{name}={share}: give a share of a GPU's memory below 1, or 0 to have it planned")
    if policy_share + prm_share > 1:
        raise InputError(
            f"policy_share={policy_share} and prm_share={prm_share} are more than a whole GPU: lower one, or give 0"
        )
    if not 0 <= tensor_parallel <= len(gpus):
        raise InputError(
            f"tensor_parallel={tensor_parallel}, but gpus are {len(gpus)}: give that at most, or 0 to have it planned"
        )
    if quantization not in QUANTIZATIONS:
        raise InputError(f'quantization={quantization!r} is unknown: give "fp8", "none", or "" to have it planned')


@dataclass(frozen=True)
class _Layout:
    """One way to place the engines."""

    policies: tuple[tuple[str, ...], ...]  # groups of GPUs
    verifiers: tuple[tuple[str, ...], ...]
    memory: int  # of each GPU
    sequences: int  # that there must be room for
    policy_quantization: str
    prm_quantization: str
    policy_share: float
    prm_share: float

    def _groups(self, engine: Engine) -> tuple[tuple[str, ...], ...]:
        return self.verifiers if engine.is_verifier else self.policies

    def _quantization(self, engine: Engine) -> str:
        return self.prm_quantization if engine.is_verifier else self.policy_quantization

    def _fixed(self, engine: Engine) -> float:
        return self.prm_share if engine.is_verifier else self.policy_share

    def _split(self, engine: Engine) -> tuple[float, float]:
        """(bytes that an engine takes of a GPU before it has a sequence, bytes of a token)."""
        ways = len(self._groups(engine)[0])
        return engine.weights[self._quantization(engine)] / ways + BESIDE, engine.token / ways

    def _beside(self, stage: Sequence[Engine]) -> list[list[Engine]]:
        """The engines of a stage by the GPUs that they share."""
        places: dict[tuple, list[Engine]] = {}
        for engine in stage:
            places.setdefault(self._groups(engine), []).append(engine)
        return list(places.values())

    def _budgets(self, engines: Sequence[Engine]) -> Iterator[tuple[list[Engine], float]]:
        """(engines, the bytes of a GPU that they have): one by one where the share is given, the others together."""
        given = {engine: self._fixed(engine) for engine in engines}
        yield from (([engine], share * self.memory) for engine, share in given.items() if share)
        if planned := [engine for engine, share in given.items() if not share]:
            yield planned, min(USABLE * self.memory, self.memory - OUTSIDE) - sum(given.values()) * self.memory

    def gap(self, stage: Sequence[Engine]) -> float:
        """The bytes of a GPU that are missing; 0 or less where the stage fits. Infinite if a model can't be split."""
        if any(read_setting(one.config, "num_attention_heads") % len(self._groups(one)[0]) for one in stage):
            return float("inf")
        return max(
            sum(base + self.sequences * TOKENS * token for base, token in map(self._split, engines)) - budget
            for beside in self._beside(stage)
            for engines, budget in self._budgets(beside)
        )

    def places(self, stages: Sequence[Sequence[Engine]]) -> dict[Engine, Place]:
        """The shares: what each engine can have in the stage where it has least."""
        found: dict[Engine, Place] = {}
        for engines, budget in (
            one for stage in stages for beside in self._beside(stage) for one in self._budgets(beside)
        ):
            splits = {engine: self._split(engine) for engine in engines}
            tokens = (budget - sum(base for base, _ in splits.values())) / sum(token for _, token in splits.values())
            for engine, (base, token) in splits.items():
                share = self._fixed(engine) or floor(1000 * (base + tokens * token) / self.memory) / 1000
                if engine not in found or share < found[engine].share:
                    place = Place(self._groups(engine), share, self._quantization(engine), int(tokens / TOKENS))
                    found[engine] = place
        return found


def _layouts(
    stages: Sequence[Sequence[Engine]],
    gpus: Sequence[Gpu],
    settings: Mapping[str, object],
    order: Sequence[tuple[int, str]],
) -> Iterator[_Layout]:
    """All ways to place the engines, the best one first."""
    names = [gpu.name for gpu in gpus]
    half = len(names) // 2
    asked, ways = settings["quantization"], settings["tensor_parallel"]
    splits = [ways] if ways else [2**i for i in range(len(names).bit_length()) if 2**i <= len(names)]
    for (sequences, quantization), split in product(order, splits):
        if quantization and asked:
            continue  # only where nothing is asked for is it planned
        of_all = "fp8" if asked == "fp8" else ""
        together = _chunks(names, split)
        pairs = [(together, together)]
        if half >= split and any(len({one.is_verifier for one in stage}) > 1 for stage in stages):
            pairs.append((_chunks(names[:half], split), _chunks(names[half:], split)))
        for policies, verifiers in pairs:
            yield _Layout(
                policies,
                verifiers,
                min(gpu.memory for gpu in gpus),
                sequences,
                of_all,
                of_all or quantization,
                settings["policy_share"],
                settings["prm_share"],
            )


def _chunks(names: Sequence[str], size: int) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(names[i : i + size]) for i in range(0, len(names) - size + 1, size))


def _shortfall(
    stages: Sequence[Sequence[Engine]], gpus: Sequence[Gpu], settings: Mapping[str, object], missing: float
) -> str:
    engines = {engine: None for stage in stages for engine in stage}
    largest = max(engines, key=lambda engine: engine.weights[""])
    named = " and ".join(f"{engine.parameter}={engine.model}" for engine in engines)
    memory = min(gpu.memory for gpu in gpus) / GIB
    where = f"the GPU of {memory:.1f} GiB" if len(gpus) == 1 else f"{len(gpus)} GPUs of {memory:.1f} GiB"
    changes = (
        {"tensor_parallel": 0},
        {"policy_share": 0, "prm_share": 0},
        {"quantization": ""},
        {"quantization": "fp8"},
    )
    todo = f"name a smaller model as {largest.parameter}, or larger or more GPUs as gpus"
    for change in changes:
        changed = {**settings, **change}
        tried = [] if changed == settings else _layouts(stages, gpus, changed, ORDER)
        if any(all(layout.gap(stage) <= 0 for stage in stages) for layout in tried):
            todo = "set " + " and ".join(
                f"{name}={value if value != '' else repr('')}" for name, value in change.items()
            )
            break
    lack = "can't be split over them" if missing == float("inf") else f"{max(missing / GIB, 0.1):.1f} GiB are missing"
    return f"{named} do{'es' * (len(engines) == 1)} not fit on {where}, {lack}: {todo}"
