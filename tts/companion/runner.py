"""What run_all.sh runs once the environment stands: execute the notebooks, and keep the results if all succeed.

    python -m tts.companion.runner [--profile NAME] [--only 01,03] [--set NAME=VALUE] [--jobs N] [--estimate]
                                   [--shard I/N] [--collect [STORE ...]]

Each notebook runs in a fresh kernel of this Python (kernels.py), in build/PROFILE/. After a run with the parameters of
the committed cells, the executed notebooks are copied to notebooks/ and their figures to figures/. A run with any other
parameters leaves its notebooks in the build folder and copies its figures to figures/full/, n256/, replay/ or local/.
The first two take hours, so runs.csv beside their figures says when, where and with which parameters each notebook ran.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from tts.answers.pool import usable_cores
from tts.companion.forecast import Forecast
from tts.companion.kernels import KEPT, NotebookFailedError, environment, run_notebooks
from tts.companion.machine import ask_nvidia
from tts.companion.parameters import COMMITTED, notebooks, repository
from tts.companion.plan import Job, plan
from tts.errors import EngineError, InputError, check_counts
from tts.models.open import cpu_says, has_gpu
from tts.results.shards import Shard
from tts.results.store import Store

# Metadata that differs from run to run.
VOLATILE = (
    "metadata.papermill",
    "metadata.language_info.version",
    "metadata.signature",
    "metadata.widgets",
    "cell.metadata.papermill",
    "cell.metadata.execution",
    "cell.metadata.ExecuteTime",
)


def main(argv: list[str] | None = None) -> int:
    """Run the notebooks; the exit status is 0, 1 (failed, or not whole), 2 (bad parameters) or 130 (interrupted)."""
    parser = argparse.ArgumentParser(prog="python -m tts.companion.runner", description="Execute the notebooks.")
    parser.add_argument("--profile", default="default", help="a file of notebooks/profiles, without .yaml")
    parser.add_argument("--only", default="", metavar="NN", help="only these notebooks, by number: 01,03")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="set one parameter, whatever the profile says"
    )
    parser.add_argument(
        "--jobs", type=int, default=at_once(), metavar="N", help="notebooks at once (default: %(default)s)"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--estimate", action="store_true", help="say what the run would make and take; make nothing")
    instead.add_argument("--shard", metavar="I/N", help="make the I-th of N parts of the results, and no figures")
    instead.add_argument("--collect", nargs="*", metavar="STORE", help="merge these stores, or those of the shards")
    options = parser.parse_args(argv)
    root = repository()
    if root is None:
        parser.error("the tts that is installed lies outside its repository: clone it and use ./run_all.sh")
    os.chdir(root)  # papermill reads a path as a format string, and a relative path has none of the user's braces
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    try:
        check_counts(**{"--jobs": options.jobs})
        shard = Shard.read(options.shard, os.environ) if options.shard is not None else None
        jobs = plan(profile=options.profile, only=options.only, changes=options.set)
        with environment(root):
            if options.estimate or shard or options.collect is not None:
                os.chdir("notebooks")  # like the kernels: a relative path in a parameter means the same here
            if options.estimate:
                from tts.companion.budget import budget, is_large  # load what notebooks load
                from tts.companion.estimate import estimate

                print((budget if any(map(is_large, jobs)) else estimate)(jobs))
                return 0
            if shard:
                from tts.companion import shards

                print(shards.make(jobs, shard))
                return 0
            if options.collect is not None:
                from tts.companion import shards

                said, is_whole = shards.collect(jobs, [root / folder for folder in options.collect])
                print(said)
                return 0 if is_whole else 1
            forecast = Forecast(jobs, at_once=options.jobs)
            run_notebooks(jobs, at_once=options.jobs, left=forecast.left)
            figures = keep(jobs)
        forecast.keep()
    except InputError as error:
        print(f"run_all: {error}", file=sys.stderr)
        return 2
    except (NotebookFailedError, EngineError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except OSError as error:  # no space or no permission: the error names the file
        print(f"\nrun_all: {error}: free some space or give access and run it again; {KEPT}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nrun_all: interrupted, nothing was copied; {KEPT}: run it again to go on", file=sys.stderr)
        return 130
    print(summary(jobs, figures, took=time.monotonic() - began, at_once=options.jobs))
    return 0


def at_once() -> int:
    """How many notebooks run side by side by default: two where two cores are free, but a GPU is for one alone."""
    return 1 if has_gpu() else min(2, usable_cores())


def canonical(notebook: Path) -> str:
    """An executed notebook as it is committed: with outputs and counts, without times, versions and stderr."""
    import nbformat
    from nbstripout import strip_output

    nodes = strip_output(
        nbformat.read(notebook, as_version=4),
        keep_output=True,
        keep_count=True,
        keep_id=True,
        extra_keys=list(VOLATILE),
        drop_output_types={"stream:stderr"},
    )
    for cell in nodes.cells:
        for number, output in enumerate(cell.get("outputs", [])):
            for mime, text in output.get("data", {}).items():
                if mime in ("text/plain", "text/html"):
                    # pandas gives each styled table a random id, and its plain form an address
                    text = re.sub(r"\bT_[0-9a-f]{5}(?![0-9a-f])", f"T_{cell.id}_{number}", text)
                    output["data"][mime] = re.sub(r" at 0x[0-9a-f]+>", ">", text)
    return nbformat.writes(nodes).rstrip("\n") + "\n"


def keep(jobs: list[Job]) -> dict[str, int]:
    """Copy the results of a run to their places and make the gallery pages; returns the figures by notebook."""
    from tts.companion.ledger_table import update_readme, write_pages
    from tts.plots.saving import gallery

    made: dict[Path, Path] = {}  # target -> what the run built
    for job in jobs:
        # Only from the subfolder that the notebook's parameters ask for.
        for path in sorted((job.figures / job.destination).glob("*.*")):
            target = Path("figures") / job.destination / path.name
            if target in made:
                raise NotebookFailedError(f"run_all: {made[target]} and {path} would both be {target}: rename one")
            made[target] = path
    for target, path in made.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for job in jobs:
        if not job.destination:
            job.source.write_text(canonical(job.built), encoding="utf-8")
    for folder in sorted({target.parent for target in made}):
        if folder.name in COMMITTED:
            note_runs(folder, [job for job in jobs if job.destination == folder.name])
        gallery(folder, notebooks=notebooks(Path()))
    if any(job.destination != "local" for job in jobs):
        write_pages("figures")
        if Path("README.md").exists():
            update_readme(Path("README.md"), "figures")
    pictures = [path for path in made.values() if path.suffix == ".png"]
    return {job.name: sum(job.figures in path.parents for path in pictures) for job in jobs}


def note_runs(folder: Path, jobs: Sequence[Job]) -> None:
    """Record in folder/runs.csv how each notebook was run, one row each. Rows of other notebooks stay."""
    import pandas as pd

    file = folder / "runs.csv"
    where, spent = device(), {store: _stored_seconds(store) for store in {job.store for job in jobs}}
    rows = [
        {
            "notebook": job.name,
            "date": datetime.now(UTC).date().isoformat(),
            "seconds": round(job.seconds),
            "stored hours": round(spent[job.store] / 3600, 1),
            "device": where,
            "parameters": ", ".join(f"{name}={value}" for name, value in job.injected.items()),
        }
        for job in jobs
    ]
    table = pd.DataFrame(rows)
    if file.exists():
        before = pd.read_csv(file)
        table = pd.concat([before[~before.notebook.isin(table.notebook)], table])
    table.sort_values("notebook").to_csv(file, index=False, lineterminator="\n")


def device() -> str:
    """What the engines run on here: the names of the GPUs if there are any, else that of the CPU."""
    if has_gpu():
        # By itself nvidia-smi lists the GPUs of other jobs too. It refuses the name of a MIG slice.
        for gpus in dict.fromkeys((os.environ.get("CUDA_VISIBLE_DEVICES", "").strip(), "")):
            with suppress(OSError, subprocess.SubprocessError):
                return " + ".join(ask_nvidia("name", gpus))
    return f"{os.cpu_count()} cores, {cpu_says('model name') or platform.machine()}"


def _stored_seconds(folder: Path) -> float:
    """The engines' working time that a store has on record (tts.results.collect); concurrent runs add up."""
    return sum(record.get("seconds", 0.0) for record in Store(folder).table("usage", {}).read().values())


def summary(jobs: list[Job], figures: Mapping[str, int], *, took: float, at_once: int) -> str:
    """The table that ends a run, which took so many seconds with so many notebooks at once."""
    width = max(len(job.name) for job in jobs)
    lines = [f"\n{'notebook':<{width}}  seconds  figures  written to"]
    for job in jobs:
        to = str(Path("figures") / job.destination) + "/" if figures[job.name] else "-"
        lines.append(f"{job.name:<{width}}  {job.seconds:7.1f}  {figures[job.name]:7d}  {to}")
    total = sum(job.seconds for job in jobs)
    lines.append(f"{'all':<{width}}  {total:7.1f}  {sum(figures.values()):7d}")
    side_by_side = min(at_once, len(jobs))
    lines.append(
        f"the run took {took:.1f} s" + (f", with {side_by_side} notebooks at once" if side_by_side > 1 else "")
    )
    slowest = sorted((item for job in jobs for item in job.slowest), reverse=True)[:3]
    lines += ["most of the time went to", *(f"  {seconds:7.1f} s  {cell[:100]}" for seconds, cell in slowest)]
    stores = sorted({job.store for job in jobs})
    lines += [f"store: {Store(folder).bytes() / 1e6:.1f} MB in {folder}" for folder in stores]
    if any(job.destination for job in jobs):
        lines.append(f"the parameters are not the committed ones: the notebooks stay in {jobs[0].built.parent}/")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
