"""What run_all.sh does once the environment stands: execute the notebooks, keep what they made only if all succeeded.

    python -m tts.companion.runner [--profile NAME] [--only 01,03] [--set NAME=VALUE]

Each notebook runs in a fresh kernel of this very Python, in build/PROFILE/. A run with the parameters of the committed
cells ends with the executed notebooks copied to notebooks/ and their figures to figures/; a run with any other
parameters leaves its notebooks in the build folder and its figures in figures/full/ or figures/local/. The full grid is
hours of work, so figures/full/runs.csv says when, where and with which parameters each notebook ran last.
"""

from __future__ import annotations

import argparse
import ast
import json
import logging
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tts.companion.parameters import (
    Parameters,
    figures_subfolder,
    fits,
    load_profile,
    new_names,
    repository,
    store_folder,
)
from tts.errors import InputError
from tts.models.host import temporary_directory

# `nbstripout --keep-output --keep-count --drop-output-type stream:stderr`: what differs from run to run goes.
VOLATILE = (
    "metadata.papermill",
    "metadata.language_info.version",
    "metadata.signature",
    "metadata.widgets",
    "cell.metadata.papermill",
    "cell.metadata.execution",
    "cell.metadata.ExecuteTime",
)

ENGINE_LOGS = Path("build") / "engines"
KERNEL_START = 600  # seconds that a kernel may take to start: packages may lie on a slow network disk


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell."""

    name: str
    type: str
    value: object
    help: str


@dataclass
class Job:
    """One notebook of a run, and what became of it."""

    source: Path
    parameters: Parameters  # what is injected: only what differs from the cell
    destination: str  # of its figures under figures/: "" for the committed run, "full" or "local"
    built: Path
    figures: Path
    seconds: float = 0.0
    slowest: list[tuple[float, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The notebook's name, without .ipynb."""
        return self.source.stem


class NotebookFailedError(RuntimeError):
    """A notebook did not run to its end; the message says where and why, for the terminal."""


def main(argv: list[str] | None = None) -> int:
    """Run the notebooks; the exit status is 0, 1 (a notebook failed), 2 (bad parameters) or 130 (interrupted)."""
    parser = argparse.ArgumentParser(
        prog="python -m tts.companion.runner", description="Execute the notebooks in order."
    )
    parser.add_argument("--profile", default="default", help="a file of notebooks/profiles, without .yaml")
    parser.add_argument("--only", default="", metavar="NN", help="these notebooks alone, by number: 01,03")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="one parameter in place of the profile's"
    )
    options = parser.parse_args(argv)
    root = repository()
    if root is None:
        parser.error("tts is not in its repository: clone it and use ./run_all.sh")
    os.chdir(root)  # papermill takes braces in a path for a format: relative paths have none of ours
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in ("PYTHONHOME", "PYTHONSTARTUP", "MPLBACKEND", "MATPLOTLIBRC"):  # the caller's have no say in figures
        os.environ.pop(name, None)
    jobs: list[Job] = []
    try:
        jobs = plan(profile=options.profile, only=options.only, changes=options.set)
        with environment(root):
            for job in jobs:
                execute(job)
        figures = keep(jobs)
    except InputError as error:
        print(f"run_all: {error}", file=sys.stderr)
        return 2
    except NotebookFailedError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except OSError as error:  # no space, no permission: what Python says names the file
        print(
            f"\nrun_all: {error}: make room or give access, then run it again; what is stored is kept", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print(
            "\nrun_all: interrupted, nothing was copied; what is stored is kept: run it again to go on", file=sys.stderr
        )
        return 130
    print(summary(jobs, figures, _stores(jobs)))
    return 0


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook's cell tagged `parameters`, checked to be what papermill can inject and inspect."""
    import nbformat
    import papermill

    nodes = nbformat.read(notebook, as_version=4)
    tagged = [cell for cell in nodes.cells if "parameters" in cell.metadata.get("tags", [])]
    if any("injected-parameters" in cell.metadata.get("tags", []) for cell in nodes.cells):
        raise InputError(
            f"{notebook.name} has a cell `injected-parameters`, it overrides what you edit: delete that cell"
        )
    if not tagged:
        return {}
    logging.getLogger("papermill").setLevel(logging.ERROR)
    found = papermill.inspect_notebook(nodes)  # a path would be taken for a format
    where = f"{notebook.name}, parameters cell"
    parameters = {}
    try:
        statements = ast.parse(tagged[0].source).body
    except SyntaxError as error:
        raise InputError(f"{where}: {error.msg} in line {error.lineno}: {error.text}") from None
    for statement in statements:
        line = ast.unparse(statement)
        name = getattr(getattr(statement, "target", None), "id", None)
        try:
            value = ast.literal_eval(statement.value) if isinstance(statement, ast.AnnAssign) else None
        except ValueError:
            name = None
        if name is None or name not in found or found[name]["inferred_type_name"] == "None":
            raise InputError(f"{where}: {line!r} is no parameter: write one `name: type = literal  # help` a line")
        parameters[name] = Parameter(name, found[name]["inferred_type_name"], value, found[name]["help"])
        _check_type(parameters[name], value, where=where)
    return parameters


def plan(*, profile: str, only: str = "", changes: Sequence[str] = ()) -> list[Job]:
    """Which notebooks run with what, everything checked that can be checked before a kernel starts.

    changes: "name=value" each, the value as YAML; they take the place of the profile's.
    """
    asked = _read_changes(changes)
    profiled = load_profile(profile)
    sources = sorted(Path("notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not sources:
        raise InputError("there is no notebook notebooks/NN_name.ipynb")
    cells = {source: read_parameters(source) for source in sources}
    _check_profile(f"profile {profile}", profiled, cells)
    _check_profile("--set", asked, cells)
    numbers = [number.strip().zfill(2) for number in only.split(",") if number.strip()]
    for number in numbers:
        if not any(source.name.startswith(f"{number}_") for source in sources):
            known = ", ".join(source.name[:2] for source in sources)
            raise InputError(f"--only {only}: there is no notebook {number}, choose from {known}")
    build = Path("build") / profile
    jobs = []
    for source in sources:
        if numbers and source.name[:2] not in numbers:
            continue
        cell = {name: parameter.value for name, parameter in cells[source].items()}
        # In the default profile the cell rules: a reader's edit of it is a run of its own.
        wanted = ({} if profile == "default" else profiled) | asked
        injected = {name: value for name, value in wanted.items() if name in cell and cell[name] != value}
        jobs.append(
            Job(
                source=source,
                parameters=injected,
                destination=figures_subfolder(cell | injected),
                built=build / source.name,
                figures=build / "figures" / source.stem,
            )
        )
    return jobs


def _read_changes(changes: Sequence[str]) -> Parameters:
    import yaml

    known = load_profile("default") if changes else {}
    found = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals or not name:
            raise InputError(f"--set {change}: give name=value, such as n_max=128")
        try:
            found[name] = value if isinstance(known.get(name), str) else yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"--set {change}: {value!r} can't be read, give such as {known.get(name)!r}") from None
    return new_names(found, where="--set")


def _check_profile(where: str, changes: Mapping[str, object], cells: Mapping[Path, Mapping[str, Parameter]]) -> None:
    known = load_profile("default")
    for name, value in changes.items():
        having = [cell[name] for cell in cells.values() if name in cell]
        for parameter in having:
            _check_type(parameter, value, where=where)
        if not having and (where != "profile default" or name not in known):
            listed = sorted({f"{item.name}: {item.type}" for cell in cells.values() for item in cell.values()})
            raise InputError(f"{where}: no notebook has a parameter {name!r}; there are {', '.join(listed) or 'none'}")


def _check_type(parameter: Parameter, value: object, *, where: str) -> None:
    if not fits(value, parameter.type):
        about = f" ({parameter.help})" if parameter.help else ""
        raise InputError(f"{where}: {parameter.name} is {value!r}, give a {parameter.type}{about}")


@contextmanager
def environment(root: Path) -> Iterator[None]:
    """What the kernels run in: this Python, this tree, nobody's start-up files; at the end the engines are stopped."""
    with tempfile.TemporaryDirectory(prefix="tts-", dir=temporary_directory()) as scratch:  # sockets lie in it
        kernel = Path(scratch) / "kernels" / "python3"
        kernel.mkdir(parents=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "--log-level=CRITICAL", "-f", "{connection_file}"]
        about = {
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "metadata": {"supported_encryption": ["curve"]},
        }
        (kernel / "kernel.json").write_text(json.dumps({"argv": argv, **about}))
        ours = {
            "JUPYTER_PATH": scratch,
            "IPYTHONDIR": str(Path(scratch) / "ipython"),
            "PYTHONPATH": str(root),
            # tqdm asks for a widget that no saved notebook could show
            "PYTHONWARNINGS": "ignore:IProgress not found",
            "TTS_ENGINES": os.environ.get("TTS_ENGINES") or str(Path(scratch) / "engines"),
        }
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        try:
            yield
        except BaseException:
            for log in Path(os.environ["TTS_ENGINES"]).glob("*.log"):  # messages name them, and they'd go with scratch
                (root / ENGINE_LOGS).mkdir(parents=True, exist_ok=True)
                shutil.copy(log, root / ENGINE_LOGS)
            raise
        finally:
            if not before["TTS_ENGINES"]:
                _stop_engines()
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def _stop_engines() -> None:
    if Path(os.environ["TTS_ENGINES"]).exists():  # made by the first host
        subprocess.run([sys.executable, "-m", "tts.models.host", "stop"], check=False, timeout=60)


def execute(job: Job) -> None:
    """Run one notebook into the build folder, showing what it writes to stderr (its progress) as it comes."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    shutil.rmtree(job.figures, ignore_errors=True)
    job.figures.mkdir(parents=True)
    job.built.unlink(missing_ok=True)
    os.environ["TTS_FIGURES"] = str(job.figures.resolve())
    print(f"== {job.name}", flush=True)
    started = time.monotonic()
    try:
        papermill.execute_notebook(
            str(job.source),
            str(job.built),
            parameters=job.parameters,
            kernel_name="python3",
            cwd="notebooks",
            start_timeout=KERNEL_START,
            progress_bar=sys.stderr.isatty(),
            stderr_file=sys.stderr,
        )
    except PapermillExecutionError as error:
        raise NotebookFailedError(_failure(job, error.exec_count, error.source, error.traceback)) from None
    except DeadKernelError:
        raise NotebookFailedError(_failure(job, None, "", ["the kernel died: out of memory, perhaps?"])) from None
    except RuntimeError as error:  # it never answered
        why = [f"the kernel did not start: {error}", f"does `{sys.executable} -m ipykernel_launcher --version` work?"]
        raise NotebookFailedError(_failure(job, None, "", why)) from None
    finally:
        job.seconds = time.monotonic() - started
    job.slowest = _cell_times(job)
    print(f"   {job.name}: {job.seconds:.1f} s", flush=True)


def _failure(job: Job, number: int | None, source: str, traceback: list[str]) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(traceback)).rstrip().splitlines()
    cell = source.strip().splitlines()
    shown = cell[:12] + ["..."] * (len(cell) > 12)
    return "\n".join(
        [
            f"run_all: {job.source} failed" + (f" in cell [{number}]:" if number else ":"),
            *(f"    | {line}" for line in shown),
            *(f"    {line}" for line in plain[-8:]),
            f"The notebook up to there: {job.built}"
            + (f"; the engines' logs: {ENGINE_LOGS}" if any(Path(os.environ["TTS_ENGINES"]).glob("*.log")) else ""),
            "Nothing was copied to notebooks/ or figures/. What is stored is kept: run it again to go on.",
        ]
    )


def _cell_times(job: Job) -> list[tuple[float, str]]:
    import nbformat

    times = []
    for cell in nbformat.read(job.built, as_version=4).cells:
        seconds = cell.metadata.get("papermill", {}).get("duration")
        if cell.cell_type == "code" and seconds:
            lines = [line for line in cell.source.splitlines() if line.strip() and not line.startswith("#")]
            times.append((seconds, f"{job.name} [{cell.execution_count}] {lines[0] if lines else ''}"))
    return sorted(times, reverse=True)[:3]


def canonical(notebook: Path) -> str:
    """The executed notebook as it is committed: outputs and counts stay, times, versions and stderr go."""
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
                    # pandas draws a random id for each styled table, and an address is in its plain form
                    text = re.sub(r"\bT_[0-9a-f]{5}(?![0-9a-f])", f"T_{cell.id}_{number}", text)
                    output["data"][mime] = re.sub(r" at 0x[0-9a-f]+>", ">", text)
    return nbformat.writes(nodes).rstrip("\n") + "\n"


def keep(jobs: list[Job]) -> dict[str, int]:
    """Copy what the run made to where it belongs, and make the gallery pages; returns figures by notebook."""
    from tts.companion.ledger_table import update_readme
    from tts.plots.saving import gallery

    made: dict[Path, Path] = {}  # target -> what the run built
    for job in jobs:
        # A notebook that follows its parameters writes to the subfolder that they ask for; nothing else is copied.
        for path in sorted((job.figures / job.destination).glob("*.*")):
            target = Path("figures") / job.destination / path.name
            if target in made:
                raise NotebookFailedError(f"run_all: {made[target]} and {path} are both {target}: rename one")
            made[target] = path
    for target, path in made.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for job in jobs:
        if not job.destination:
            job.source.write_text(canonical(job.built), encoding="utf-8")
    for folder in sorted({target.parent for target in made}):
        if folder.name == "full":
            note_runs(folder, [job for job in jobs if job.destination == "full"])
        gallery(folder, notebooks=sorted(Path("notebooks").glob("[0-9][0-9]_*.ipynb")))
    if Path("README.md").exists() and any(job.destination in ("", "full") for job in jobs):
        update_readme(Path("README.md"), "figures")
    pictures = [path for path in made.values() if path.suffix == ".png"]
    return {job.name: sum(job.figures in path.parents for path in pictures) for job in jobs}


def note_runs(folder: Path, jobs: Sequence[Job]) -> None:
    """Write down in folder/runs.csv how each notebook was run, one row each; rows of other notebooks stay."""
    import pandas as pd

    file = folder / "runs.csv"
    where, spent = device(), {store: _stored_seconds(store) for store in _stores(jobs)}
    rows = [
        {
            "notebook": job.name,
            "date": datetime.now(UTC).date().isoformat(),
            "seconds": round(job.seconds),
            "stored hours": round(sum(spent[store] for store in _stores([job])) / 3600, 1),
            "device": where,
            "parameters": ", ".join(f"{name}={value}" for name, value in job.parameters.items()),
        }
        for job in jobs
    ]
    table = pd.DataFrame(rows)
    if file.exists():
        before = pd.read_csv(file)
        table = pd.concat([before[~before.notebook.isin(table.notebook)], table])
    table.sort_values("notebook").to_csv(file, index=False, lineterminator="\n")


def device() -> str:
    """What the engines run on here: the GPU if there is one, else the CPU, with its name."""
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
        return " + ".join(name.strip() for name in names if name.strip())
    except (OSError, subprocess.CalledProcessError):
        pass
    try:
        named = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        named = None
    return f"{os.cpu_count()} cores, {named.group(1).strip() if named else platform.machine()}"


def _stored_seconds(folder: Path) -> float:
    """Engines' working time on record in a store (tts.results.collect writes it); runs beside each other add up."""
    from tts.results.store import Store

    return sum(record.get("seconds", 0.0) for record in Store(folder).table("usage", {}).read().values())


def summary(jobs: list[Job], figures: Mapping[str, int], stores: list[Path]) -> str:
    """The table that a run ends with."""
    width = max(len(job.name) for job in jobs)
    lines = [f"\n{'notebook':<{width}}  seconds  figures  written to"]
    for job in jobs:
        to = str(Path("figures") / job.destination) + "/" if figures[job.name] else "-"
        lines.append(f"{job.name:<{width}}  {job.seconds:7.1f}  {figures[job.name]:7d}  {to}")
    total = sum(job.seconds for job in jobs)
    lines.append(f"{'all':<{width}}  {total:7.1f}  {sum(figures.values()):7d}")
    slowest = sorted((item for job in jobs for item in job.slowest), reverse=True)[:3]
    lines += ["most of the time went to", *(f"  {seconds:7.1f} s  {cell[:100]}" for seconds, cell in slowest)]
    lines += [f"store: {_size(folder)} in {folder}" for folder in stores]
    if any(job.destination for job in jobs):
        lines.append(f"other parameters than the committed ones: executed notebooks stay in {jobs[0].built.parent}/")
    return "\n".join(lines)


def _stores(jobs: list[Job]) -> list[Path]:
    values = set()
    for job in jobs:
        cell = {name: parameter.value for name, parameter in read_parameters(job.source).items()} | job.parameters
        values.add(str(cell.get("store", "store")))
    return sorted({store_folder(value) for value in values})


def _size(folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
