"""Remake requirements-*.txt from pyproject.toml: everything that the direct dependencies need, each at one version.

python .ci/pins.py cpu portable        from the packages installed in this environment
python .ci/pins.py gpu REPORT.json     from pip's own resolution on any Linux machine, nothing installed:
    pip install --dry-run --ignore-installed --report REPORT.json -c requirements-cpu.txt '.[gpu,test]'
    (less the pins of the constraint file that vllm's own contradict: torch, triton, apache-tvm-ffi)
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from packaging.markers import Environment, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]

# Required by the metadata of what we install, but by nothing that we run (tried: vLLM serves without them).
LEFT_OUT = {
    "cpu": {
        "torchvision": "its build for GPUs breaks `import transformers` beside the CPU build of torch",
        "torchaudio": "as torchvision",
        "torchcodec": "as torchvision",
        "triton": "1 GB of GPU compiler",
        "opencv-python-headless": "images only",
    },
    "portable": {},
    "gpu": {},
}
ELSEWHERE = {"appnope": ("0.1.4", [])}  # not installed on the Linux machine that makes the files
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"}
MACOS = {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"}
ABOUT = {
    "cpu": ("vLLM on the CPU: Linux, x86_64 with AVX2; torch comes from PyTorch's index of CPU builds.", [LINUX]),
    "portable": ("No vLLM, the transformers engine instead: macOS, and Linux where vLLM can't serve.", [LINUX, MACOS]),
    "gpu": ("vLLM on an NVIDIA GPU: Linux, x86_64.", [LINUX]),
}

Catalogue = Mapping[str, tuple[str, list[str]]]  # canonical name -> version, what it requires


def installed() -> Catalogue:
    """What this environment has."""
    return ELSEWHERE | {
        canonicalize_name(found.metadata["Name"]): (found.version, found.requires or [])
        for found in importlib.metadata.distributions()
    }


def resolved(report: Path) -> Catalogue:
    """What pip's installation report would install."""
    found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    return {canonicalize_name(item["name"]): (item["version"], item.get("requires_dist", [])) for item in found}


def direct(kind: str) -> list[Requirement]:
    """The direct dependencies of a kind of machine, the tests' included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [Requirement(line) for line in [*project["dependencies"], *extras[kind], *extras["test"]]]


def closure(kind: str, catalogue: Catalogue) -> list[str]:
    """The lines `name==version` of everything needed, with a marker where one platform alone needs it."""
    platforms = ABOUT[kind][1]
    wanted: dict[str, list[int]] = {}  # name -> the platforms that need it
    pinned = {canonicalize_name(item.name): str(item.specifier) for item in direct(kind) if not item.marker}
    for number, platform in enumerate(platforms):
        for python in ("3.11", "3.12"):
            for name in _reachable(kind, catalogue, {**default_environment(), **platform, "python_version": python}):
                if number not in wanted.setdefault(name, []):
                    wanted[name].append(number)
    lines = [f"{item}" for item in direct(kind) if item.marker]
    for name, where in wanted.items():
        if any(canonicalize_name(item.name) == name for item in direct(kind) if item.marker):
            continue
        marker = "" if len(where) == len(platforms) else f'; sys_platform == "{platforms[where[0]]["sys_platform"]}"'
        lines.append(f"{name}{pinned.get(name) or '==' + catalogue[name][0]}{marker}")
    return sorted(lines)


def _reachable(kind: str, catalogue: Catalogue, environment: Environment) -> set[str]:
    seen: set[tuple[str, str]] = set()
    todo = [(item, "") for item in direct(kind)]
    while todo:
        item, extra = todo.pop()
        name = canonicalize_name(item.name)
        if name in LEFT_OUT[kind] or (item.marker and not item.marker.evaluate({**environment, "extra": extra})):
            continue
        if name not in catalogue:
            raise SystemExit(f"pins: {name} is needed on {environment['sys_platform']} and is not in the catalogue")
        for wanted in ("", *item.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                todo += [(Requirement(line), wanted) for line in catalogue[name][1]]
    return {name for name, _ in seen}


def text(kind: str, catalogue: Catalogue) -> str:
    """The whole requirements file."""
    left_out = "".join(f"# Left out: {name} ({why}).\n" for name, why in LEFT_OUT[kind].items())
    return (
        f"# {ABOUT[kind][0]}\n"
        "# Made by `python .ci/pins.py` from pyproject.toml; installed by run_all.sh with --no-deps.\n"
        + left_out
        + "\n".join(closure(kind, catalogue))
        + "\n"
    )


def main(arguments: list[str]) -> None:
    """Write the files of the kinds named."""
    report = next((Path(item) for item in arguments if item.endswith(".json")), None)
    for kind in arguments:
        if kind in ABOUT:
            (ROOT / f"requirements-{kind}.txt").write_text(text(kind, resolved(report) if report else installed()))


if __name__ == "__main__":
    main(sys.argv[1:])
