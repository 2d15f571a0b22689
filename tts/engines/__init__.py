"""Engines: what runs a model. Only the modules in here (and tts.tiny) import torch, transformers or vllm."""

from __future__ import annotations

import importlib.util
import platform
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
    installed = importlib.util.find_spec("vllm") is not None
    if engine == "transformers":
        return engine, "transformers, as asked"
    if engine == "vllm":
        if not installed:
            raise InputError("engine='vllm', but vLLM is not installed here: install it or use engine='transformers'")
        return engine, "vLLM, as asked"
    if not installed:
        return "transformers", "transformers, because vLLM is not installed"
    if has_gpu():
        return "vllm", "vLLM on the GPU"
    if platform.system() == "Linux" and "avx512f" in _cpu_flags():
        return "vllm", "vLLM on the CPU (AVX-512)"
    return (
        "transformers",
        f"transformers, because vLLM needs an NVIDIA GPU or AVX-512 and this {platform.machine()} has neither",
    )


def has_gpu() -> bool:
    """Whether the NVIDIA driver shows a device, found without importing torch."""
    return any(Path("/proc/driver/nvidia/gpus").glob("*")) or Path("/dev/nvidia0").exists()


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
