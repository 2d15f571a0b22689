"""A small copy of the repository with toy notebooks, to run run_all.sh and the runner in for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parents[1]
PARAMETERS = 'n_max: int = 64  # samples\ntemperature: float = 0.8  # of the samples\nproblems: str = "toy"'
FIGURE = """
import json, sys
from pathlib import Path
from tts.companion.parameters import figures_folder
folder = figures_folder(globals())
folder.mkdir(parents=True, exist_ok=True)
(folder / "NAME.png").write_bytes(b"picture %d" % n_max)
(folder / "NAME.json").write_text(json.dumps({"caption": "c", "alt": "a"}))
print("half way", file=sys.stderr)
"""


def make_repository(folder: Path) -> Path:
    """The files that run_all.sh and the runner need, without notebooks."""
    (folder / "notebooks" / "profiles").mkdir(parents=True)
    for package in ("tts", "tts/models"):  # the code; tiny/models has the weights
        ignored = shutil.ignore_patterns("__pycache__", "models", "data")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    for path in (ROOT / "run_all.sh", *ROOT.glob("requirements-*.txt")):
        shutil.copy(path, folder)
    profiles = {
        "default": "n_max: 64\ntemperature: 0.8\nproblems: toy\n",
        "full": "n_max: 256\n",
        "smoke": "n_max: 4\n",
        "misspelt": "n_maxx: 4\n",
        "wrong_type": "n_max: many\n",
    }
    for name, text in profiles.items():
        (folder / "notebooks" / "profiles" / f"{name}.yaml").write_text(text)
    return folder


def make_notebook(repository: Path, name: str, *cells: str, parameters: str = PARAMETERS, figure: bool = True) -> Path:
    """A notebook of one parameters cell, the cells given, and one that writes a figure of the notebook's name."""
    sources = [*cells, *([FIGURE.replace("NAME", name)] if figure else [])]
    nodes = [new_markdown_cell("# Toy"), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    nodes += [new_code_cell(source) for source in sources]
    for number, node in enumerate(nodes):
        node["id"] = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    path = repository / "notebooks" / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=nodes, metadata={"kernelspec": kernel}), path)
    return path


def run(
    repository: Path,
    *arguments: str,
    cwd: Path | None = None,
    program: Sequence[str] = ("-m", "tts.companion.runner"),
    **environment: str,
) -> subprocess.CompletedProcess:
    """The runner of that copy (or another program) in this Python, as run_all.sh calls it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TTS_")}
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=cwd or repository,
        env=clean | {"PYTHONPATH": str(repository)} | environment,
        capture_output=True,
        text=True,
        timeout=900,  # a hang, not a slow machine
        check=False,
    )


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder: relative path -> content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
