"""Open a policy or a PRM by name, and choose the engine that runs it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tts.errors import InputError, check_counts
from tts.models.checkpoint import LONGEST_PRM, Checkpoint, open_checkpoint
from tts.models.engines import PATIENCE, Engines, Replica
from tts.models.exact import EXACT, ExactScorer
from tts.models.formats import find_format
from tts.models.transformers_policy import TransformersPolicy
from tts.models.transformers_scorer import TransformersScorer
from tts.models.vllm import VllmClient, VllmPolicy, vllm_package
from tts.models.vllm_scorer import VllmScorer
from tts.policy import Policy
from tts.prm import StepScorer
from tts.problems import Problem

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")
ENGINES = ("auto", "vllm", "transformers")


def open_policy(
    model: str,
    *,
    name: str = "",
    parameter: str = "policy_model",
    engine: str = "auto",
    revision: str = "main",
    system_prompt: str = "",
    dtype: str = "auto",
    max_context: int = 0,
    max_num_seqs: int = 0,
    gpu_memory_utilization: float = 0.9,
    devices: Sequence[Sequence[str]] = (),
    quantization: str = "",
    server: str = "",
    max_in_flight: int = 0,
    patience: float = PATIENCE,
) -> Policy:
    """A policy by name. The model is checked but not loaded: the engine starts at the first sample().

    model                   the short name of an embedded model, a directory in the hub's format, or a hub id as
                            "owner/name" or "owner/name@revision"
    name                    what figures and records call it; "" for the model's own name
    parameter               the notebook's parameter that names the model, for error messages
    engine                  "vllm", "transformers", or "auto": transformers for a small model (up to 64 MiB) where there
                            is no GPU, because it is faster there; otherwise see choose_engine
    revision                of a hub id that names none; it is pinned to its current commit
    system_prompt           "" for none
    dtype                   "auto" (float32 on a CPU, the weights' own type on a GPU), or one of DTYPES
    max_context             tokens of prompt and completion; 0 for the model's own limit, 4,096 at most
    max_num_seqs            requests decoded at once; 0 for the engine's own number
    gpu_memory_utilization  the share of the GPU's memory that vLLM takes
    devices                 the GPUs of each replica that vLLM runs here, by nvidia-smi's numbers: [["0"], ["1"]] is two
                            replicas, [["0", "1"]] one whose tensors two GPUs share. Empty for one on the first GPU
    quantization            "fp8" for weights of 8 bits (vLLM), "" for the model's own
    server                  URLs of vLLM's own servers with this model, one a replica, with commas between
                            (docs/servers.md); "" for an engine on this machine. They are asked at the first sample()
    max_in_flight           requests at vLLM at once, a replica, the others wait in order; 0 for 1,024
    patience                seconds without an answer and without a token from vLLM after which a request goes to
                            another replica, or fails. Downloading the model and starting vLLM are not counted
    Raises InputError if anything is wrong with these, before a model is loaded.
    """
    _check_settings(dtype, gpu_memory_utilization, devices, quantization, max_in_flight, patience)
    check_counts(0, max_num_seqs=max_num_seqs)
    urls = _split_urls(server, "policy_server", engine)
    chosen = "vllm" if urls else choose_engine(engine)[0]
    checkpoint = open_checkpoint(model, parameter=parameter, revision=revision, max_context=max_context, name=name)
    if engine == "auto" and checkpoint.is_small and not has_gpu() and not urls:
        chosen = "transformers"
    if dtype == "float64" and chosen == "vllm":
        raise InputError("dtype='float64' is for engine='transformers' alone: choose float32, or that engine")
    if not urls:
        _check_quantization(quantization, chosen, checkpoint)
    if chosen == "vllm":
        replicas = _servers(urls, checkpoint, "policy_server") or [
            VllmClient(
                checkpoint,
                dtype=dtype,
                max_num_seqs=max_num_seqs,
                gpu_memory_utilization=gpu_memory_utilization,
                devices=group,
                quantization=quantization,
            )
            for group in devices or [()]
        ]
        engines = Engines(replicas, max_in_flight=max_in_flight or 4 * max_num_seqs, patience=patience)
        return VllmPolicy(checkpoint, system_prompt=system_prompt, engines=engines)
    return TransformersPolicy(checkpoint, system_prompt=system_prompt, dtype=dtype, max_num_seqs=max_num_seqs)


def open_prm(
    model: str,
    *,
    name: str = "",
    parameter: str = "prm_model",
    problems: Sequence[Problem] = (),
    format: str = "auto",  # noqa: A002 - the field's word, and nothing in here formats
    engine: str = "auto",
    revision: str = "main",
    dtype: str = "auto",
    max_context: int = 0,
    batch_tokens: int = 0,
    prefix_cache: bool = True,
    gpu_memory_utilization: float = 0.45,
    devices: Sequence[Sequence[str]] = (),
    quantization: str = "",
    server: str = "",
    max_in_flight: int = 0,
    patience: float = PATIENCE,
) -> StepScorer:
    """A step scorer by name. The model is checked but not loaded: the engine starts at the first score().

    model         the short name of an embedded model, a directory in the hub's format, a hub id as "owner/name" or
                  "owner/name@revision", or "exact" for the step checker of the embedded problems, which has no model
                  and heeds none of the settings of one
    problems      those that it will score, if they are known: "exact" refuses any that are not embedded
    format        how it reads steps: a name in tts.models.formats.FORMATS, or "auto" to find it from config and
                  tokenizer; with "auto" the first score() refuses a model that answers like a plain policy
    engine        "vllm", "transformers", or "auto": transformers for a small model (up to 64 MiB), where it is
                  faster, and for formats that vLLM can't read; otherwise see choose_engine
    max_context   tokens of problem and solution; 0 for the model's own limit, 8,192 at most: a format adds tokens to
                  each step
    batch_tokens  tokens of a batch with its padding (transformers); 0 for the engine's own number
    prefix_cache  keep what was computed for partial solutions, so that the next step costs only its own tokens
    gpu_memory_utilization  the share of the GPU's memory that vLLM takes, in addition to the policy's share
    name, parameter, revision, dtype, devices, quantization, server, max_in_flight, patience  as in open_policy
    Raises InputError if anything is wrong with these, before a model is loaded.
    """
    _check_settings(dtype, gpu_memory_utilization, devices, quantization, max_in_flight, patience)
    check_counts(0, batch_tokens=batch_tokens)
    if model == EXACT:
        return ExactScorer(name=name, parameter=parameter, problems=problems)
    urls = _split_urls(server, "prm_server", engine)
    chosen = "vllm" if urls else choose_engine(engine)[0]
    checkpoint = open_checkpoint(
        model,
        parameter=parameter,
        revision=revision,
        max_context=max_context,
        longest=LONGEST_PRM,
        name=name,
        chat=False,
    )
    prm_format = find_format(checkpoint, format)
    named = format != "auto" or "prm_format" in checkpoint.config  # a format that is named is not checked
    if engine == "auto" and not urls and (checkpoint.is_small or prm_format.head == "value" or dtype == "float64"):
        chosen = "transformers"
    if not urls:
        _check_quantization(quantization, chosen, checkpoint)
    if chosen == "vllm":
        if prm_format.head == "value" or dtype == "float64":
            what = f"format {prm_format.name}" if prm_format.head == "value" else "dtype='float64'"
            raise InputError(f"{what} is for engine='transformers' alone: choose that engine for {checkpoint.name}")
        if urls and prm_format.head == "classes":
            raise InputError(
                f"prm_server: format {prm_format.name} is not read through servers: leave prm_server empty"
            )
        replicas = _servers(urls, checkpoint, "prm_server") or [
            VllmClient(
                checkpoint,
                dtype=dtype,
                max_num_seqs=0,
                gpu_memory_utilization=gpu_memory_utilization,
                devices=group,
                quantization=quantization,
                prefix_cache=prefix_cache,
                scores=True,
                classes=prm_format.head == "classes",
            )
            for group in devices or [()]
        ]
        engines = Engines(replicas, max_in_flight=max_in_flight, patience=patience)
        return VllmScorer(checkpoint, prm_format, engines=engines, check_policy=not named)
    return TransformersScorer(
        checkpoint,
        prm_format,
        dtype=dtype,
        batch_tokens=batch_tokens,
        prefix_cache=prefix_cache,
        check_policy=not named,
    )


def _split_urls(server: str, parameter: str, engine: str) -> list[str]:
    """The URLs of a parameter, with commas between. Raises InputError for one that is none or stands twice."""
    urls = [url.strip().rstrip("/") for url in server.split(",") if url.strip()]
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query:
            raise InputError(
                f"{parameter}: {url!r} is no server: give URLs such as http://node1:8000, with commas between"
            )
    if len(set(urls)) < len(urls):
        raise InputError(f"{parameter}: {max(urls, key=urls.count)} stands there twice: name each replica once")
    if urls and engine == "transformers":
        raise InputError(f"{parameter} names vLLM's servers, but engine='transformers': leave one of them out")
    return urls


def _servers(urls: Sequence[str], checkpoint: Checkpoint, parameter: str) -> list[Replica]:
    """The servers at these URLs."""
    if not urls:
        return []
    from tts.models.server import Server  # its HTTP client takes half a second to import

    return [Server(url, checkpoint, parameter=parameter) for url in urls]


def _check_settings(
    dtype: str,
    gpu_memory_utilization: float,
    devices: Sequence[Sequence[str]],
    quantization: str,
    max_in_flight: int,
    patience: float,
) -> None:
    check_counts(0, max_in_flight=max_in_flight)
    if not patience > 0:
        raise InputError(f"patience={patience}: give seconds, more than 0")
    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r} is unknown: choose one of {', '.join(DTYPES)}")
    if not 0 < gpu_memory_utilization <= 1:
        raise InputError(f"gpu_memory_utilization={gpu_memory_utilization}: give a share above 0, at most 1")
    if quantization not in ("", "fp8"):
        raise InputError(f'quantization={quantization!r} is unknown: give "fp8", or "" for the model\'s own precision')
    named = [] if isinstance(devices, str) else [gpu for group in devices for gpu in group]
    if isinstance(devices, str) or any(isinstance(group, str) or not group for group in devices):
        raise InputError(f'devices={devices!r}: give the GPUs of each replica, such as [["0"], ["1"]]')
    if len(set(named)) < len(named):
        raise InputError(f"devices={devices!r}: GPU {max(named, key=named.count)} stands there twice: name each once")


def _check_quantization(quantization: str, chosen: str, checkpoint: Checkpoint) -> None:
    if quantization and not (chosen == "vllm" and vllm_package()[1]):
        raise InputError(f"{checkpoint.label}: quantization={quantization!r} is for vLLM on a GPU alone: leave it out")


def choose_engine(engine: str) -> tuple[str, str]:
    """The engine that serves this machine and why, in one line: ("vllm", "vLLM on the CPU").

    "auto" takes vLLM where it is installed and can run (Linux with an NVIDIA GPU, or a CPU with AVX2), else
    transformers; a name is taken at its word. Imports neither. Raises InputError for an unknown name, or for "vllm"
    where it is not installed.
    """
    if engine not in ENGINES:
        raise InputError(f"engine={engine!r} is unknown: choose one of {', '.join(ENGINES)}")
    package, for_gpu = vllm_package()
    if engine == "transformers":
        return engine, "transformers, as asked"
    if engine == "vllm":
        if not package:
            raise InputError("engine='vllm', but vLLM is not installed here: install it or use engine='transformers'")
        return engine, "vLLM, as asked"
    if not package:
        return "transformers", "transformers, because vLLM is not installed"
    if for_gpu:
        if has_gpu():
            return "vllm", "vLLM on the GPU"
        return "transformers", "transformers, because the installed vLLM needs a GPU and there is none"
    if {"avx2", "avx512f"} & set(cpu_says("flags").split()):
        return "vllm", "vLLM on the CPU"
    return "transformers", "transformers, because vLLM needs a CPU with AVX2, and this one lacks it"


def has_gpu(root: str = "/") -> bool:
    """Whether there is an NVIDIA GPU that this process may use, found without importing torch.

    CUDA_VISIBLE_DEVICES hides the GPUs from a job that was given none: it is empty, -1 or NoDevFiles there. A batch
    system may also refuse access to the device files. root: where /dev and /proc lie.
    """
    if not re.match(r"\d|GPU-|MIG-", os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip()):
        return False
    files = list(Path(root, "dev").glob("nvidia[0-9]*"))
    if files:
        return any(os.access(file, os.R_OK | os.W_OK) for file in files)
    wsl = Path(root, "dev/dxg").exists() and shutil.which("nvidia-smi") is not None
    return wsl or any(Path(root, "proc/driver/nvidia/gpus").glob("*"))  # the files are made when first used


def cpu_says(name: str) -> str:
    """What Linux says of the first core under this name, such as "flags"; "" where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
