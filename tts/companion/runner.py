"""What run_all.sh runs once the environment stands: execute the notebooks, and keep the results if all succeed.

    python -m tts.companion.runner [--profile NAME] [--only 01,03] [--set NAME=VALUE]

Each notebook runs in a fresh kernel of this Python, in build/PROFILE/. After a run with the parameters of the committed
cells, the executed notebooks are copied to notebooks/ and their figures to figures/. A run with any other parameters
leaves its notebooks in the build folder and copies its figures to figures/full/ or figures/local/. The full grid takes
hours, so figures/full/runs.csv records when, where and with which parameters each notebook last ran.
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
import threading
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tts.companion.parameters import (
    OLD_NAMES,
    Parameters,
    figures_subfolder,
    fits,
    load_profile,
    repository,
    store_folder,
)
from tts.errors import InputError
from tts.models.host import stop_hosts, temporary_directory
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

KEPT = "what is stored is kept"
ENGINE_LOGS = Path("build") / "engines"
KERNEL_START = 600  # seconds that a kernel may take to start: on a busy network disk the imports take minutes
KERNEL_NOTICE = 30  # seconds until a line says that the kernel is still starting


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell."""

    name: str
    type: str
    value: object
    help: str


@dataclass
class Job:
    """One notebook of a run, and its results."""

    source: Path
    parameters: Parameters  # those to inject: only the ones that differ from the cell
    destination: str  # the folder of its figures below figures/: "" for the committed run, "full" or "local"
    built: Path
    figures: Path
    seconds: float = 0.0
    slowest: list[tuple[float, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The notebook's name, without .ipynb."""
        return self.source.stem


class NotebookFailedError(RuntimeError):
    """A notebook failed. The message, for the terminal, says where and why."""


def main(argv: list[str] | None = None) -> int:
    """Run the notebooks; the exit status is 0, 1 (a notebook failed), 2 (bad parameters) or 130 (interrupted)."""
    parser = argparse.ArgumentParser(prog="python -m tts.companion.runner", description="Execute the notebooks.")
    parser.add_argument("--profile", default="default", help="a file of notebooks/profiles, without .yaml")
    parser.add_argument("--only", default="", metavar="NN", help="only these notebooks, by number: 01,03")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="set one parameter, whatever the profile says"
    )
    options = parser.parse_args(argv)
    root = repository()
    if root is None:
        parser.error("the tts that is installed lies outside its repository: clone it and use ./run_all.sh")
    os.chdir(root)  # papermill reads a path as a format string, and a relative path has none of the user's braces
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
    except OSError as error:  # no space or no permission: the error names the file
        print(f"\nrun_all: {error}: free some space or give access and run it again; {KEPT}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nrun_all: interrupted, nothing was copied; {KEPT}: run it again to go on", file=sys.stderr)
        return 130
    print(summary(jobs, figures, _stores(jobs)))
    return 0


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook's cell tagged `parameters`, checked: papermill can inject them."""
    import nbformat
    import papermill

    nodes = nbformat.read(notebook, as_version=4)
    tagged = [cell for cell in nodes.cells if "parameters" in cell.metadata.get("tags", [])]
    if any("injected-parameters" in cell.metadata.get("tags", []) for cell in nodes.cells):
        raise InputError(f"{notebook.name} has a cell `injected-parameters`, which overrides your edits: delete it")
    if not tagged:
        return {}
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # its errors are raised too
    found = papermill.inspect_notebook(nodes)  # given a path, papermill would read it as a format string
    where = f"{notebook.name}, parameters cell"
    parameters = {}
    try:
        statements = ast.parse(tagged[0].source).body
    except SyntaxError as error:
        raise InputError(f"{where}: {error.msg} in line {error.lineno}: {error.text}") from None
    for statement in statements:
        try:
            name, value, annotation = statement.target.id, statement.value, ast.unparse(statement.annotation)
            parameters[name] = Parameter(name, annotation, ast.literal_eval(value), found[name]["help"])
        except (AttributeError, KeyError, ValueError):
            line = ast.unparse(statement)
            raise InputError(
                f"{where}: {line!r} is no parameter: write one `name: type = literal  # help` a line"
            ) from None
        _check_type(parameters[name], parameters[name].value, where=where)
    return parameters


def plan(*, profile: str, only: str = "", changes: Sequence[str] = ()) -> list[Job]:
    """The notebooks to run, each with its parameters; all that can be checked before a kernel starts is checked.

    changes: "name=value" each, the value as YAML; they override the profile.
    """
    sources = sorted(Path("notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not sources:
        raise InputError("there is no notebook notebooks/NN_name.ipynb")
    cells = {source: read_parameters(source) for source in sources}
    names = {name for cell in cells.values() for name in cell}
    asked = _read_changes(changes, names)
    profiled = _current_names(f"profile {profile}", load_profile(profile), names)
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
        # In the default profile the cell decides, so that a reader's edit of it takes effect.
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


def _read_changes(changes: Sequence[str], names: Container[str]) -> Parameters:
    import yaml

    for change in changes:
        if not re.match("[^=]+=", change):
            raise InputError(f"--set {change}: give name=value, such as n_max=128")
    asked = _current_names("--set", dict(change.split("=", 1) for change in changes), names)
    known = load_profile("default") if asked else {}
    for name, value in asked.items():
        try:
            asked[name] = value if isinstance(known.get(name), str) else yaml.safe_load(value)
        except yaml.YAMLError:
            example = f"{name}={known.get(name)}"
            raise InputError(f"--set {name}={value}: the value can't be read, give one such as {example}") from None
    return asked


def _current_names(where: str, changes: Parameters, names: Container[str]) -> Parameters:
    """changes, with each old name of a parameter replaced and a line on stderr about it."""
    for old, new in OLD_NAMES.items():
        if old in changes and old not in names:
            if new in changes:
                raise InputError(f"{where}: {old} is the old name of {new}, and both are given: remove {old}")
            print(f"run_all: {where}: the parameter {old} is now called {new}", file=sys.stderr)
            changes[new] = changes.pop(old)
    return changes


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
        raise InputError(f"{where}: {parameter.name} is {value!r}, but its type is {parameter.type}{about}")


@contextmanager
def environment(root: Path) -> Iterator[None]:
    """What kernels run in: this Python, this repository, no settings of the user. Engines are stopped at the end."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="tts-", dir=temporary_directory()) as scratch:
        folder = Path(scratch)
        kernel = folder / "kernels" / "python3"
        kernel.mkdir(parents=True)
        about = {
            "argv": [sys.executable, "-m", "ipykernel_launcher", "--log-level=CRITICAL", "-f", "{connection_file}"],
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "metadata": {"supported_encryption": ["curve"]},
        }
        (kernel / "kernel.json").write_text(json.dumps(about))
        (folder / "matplotlibrc").touch()
        for name in [name for name in os.environ if name.startswith("PYTHON")]:  # PYTHONOPTIMIZE would skip asserts
            del os.environ[name]
        os.environ |= {
            "JUPYTER_PATH": scratch,
            "JUPYTER_DATA_DIR": scratch,
            "IPYTHONDIR": str(folder / "ipython"),
            "MATPLOTLIBRC": str(folder / "matplotlibrc"),
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "PYTHONNOUSERSITE": "1",
            "PYTHONPATH": str(root),
            "PYTHONUTF8": "1",
            "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm asks for a widget that no saved notebook could show
            "TTS_ENGINES": before.get("TTS_ENGINES") or str(folder / "engines"),
        }
        engines = Path(os.environ["TTS_ENGINES"])
        try:
            yield
        except BaseException:
            for log in engines.glob("*.log"):  # messages name them, and they would go with the temporary folder
                (root / ENGINE_LOGS).mkdir(parents=True, exist_ok=True)
                shutil.copy(log, root / ENGINE_LOGS)
            raise
        finally:
            if not before.get("TTS_ENGINES") and engines.exists():  # the first host makes the folder
                stop_hosts()
            os.environ.clear()
            os.environ.update(before)


def execute(job: Job) -> None:
    """Run one notebook into the build folder, showing its stderr (its progress) as it comes."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    shutil.rmtree(job.figures, ignore_errors=True)
    job.figures.mkdir(parents=True)
    job.built.unlink(missing_ok=True)
    os.environ["TTS_FIGURES"] = str(job.figures.resolve())
    print(f"== {job.name}", flush=True)
    notice = f"   waiting for the kernel to start ({sys.executable} -m ipykernel_launcher), {KERNEL_START} s at most"
    waiting = threading.Timer(KERNEL_NOTICE, print, [notice], {"file": sys.stderr, "flush": True})
    waiting.start()
    started = time.monotonic()
    try:
        papermill.execute_notebook(
            str(job.source),
            str(job.built),
            parameters=job.parameters,
            kernel_name="python3",
            cwd="notebooks",
            progress_bar=sys.stderr.isatty(),
            stderr_file=sys.stderr,
            start_timeout=KERNEL_START,
            on_notebook_start=lambda **_: waiting.cancel(),
        )
    except PapermillExecutionError as error:
        raise NotebookFailedError(_failure(job, error.exec_count, error.source, error.traceback)) from None
    except DeadKernelError:
        raise NotebookFailedError(_failure(job, None, "", ["the kernel died: out of memory, perhaps?"])) from None
    except RuntimeError as error:  # jupyter_client's, while the kernel starts
        why = f"the kernel did not start ({error}): read what it wrote above; if .venv is damaged, remove it"
        raise NotebookFailedError(_failure(job, None, "", [why])) from None
    finally:
        waiting.cancel()
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
            f"The notebook up to that cell: {job.built}"
            + (f"; the engines' logs: {ENGINE_LOGS}" if any(Path(os.environ["TTS_ENGINES"]).glob("*.log")) else ""),
            f"Nothing was copied to notebooks/ or figures/; {KEPT}: run it again to go on.",
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
    from tts.companion.ledger_table import update_readme
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
        if folder.name == "full":
            note_runs(folder, [job for job in jobs if job.destination == "full"])
        gallery(folder, notebooks=sorted(Path("notebooks").glob("[0-9][0-9]_*.ipynb")))
    if Path("README.md").exists() and any(job.destination in ("", "full") for job in jobs):
        update_readme(Path("README.md"), "figures")
    pictures = [path for path in made.values() if path.suffix == ".png"]
    return {job.name: sum(job.figures in path.parents for path in pictures) for job in jobs}


def note_runs(folder: Path, jobs: Sequence[Job]) -> None:
    """Record in folder/runs.csv how each notebook was run, one row each. Rows of other notebooks stay."""
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
    """What the engines run on here: the names of the GPUs if there are any, else that of the CPU."""
    from tts.models.open import has_gpu

    if has_gpu():
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").strip()
        # By itself nvidia-smi lists the GPUs of other jobs too. It refuses the name of a MIG slice.
        for command in ([*query, f"--id={visible}"], query) if visible else (query,):
            try:
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
    """The engines' working time that a store has on record (tts.results.collect); concurrent runs add up."""
    return sum(record.get("seconds", 0.0) for record in Store(folder).table("usage", {}).read().values())


def summary(jobs: list[Job], figures: Mapping[str, int], stores: list[Path]) -> str:
    """The table that ends a run."""
    width = max(len(job.name) for job in jobs)
    lines = [f"\n{'notebook':<{width}}  seconds  figures  written to"]
    for job in jobs:
        to = str(Path("figures") / job.destination) + "/" if figures[job.name] else "-"
        lines.append(f"{job.name:<{width}}  {job.seconds:7.1f}  {figures[job.name]:7d}  {to}")
    total = sum(job.seconds for job in jobs)
    lines.append(f"{'all':<{width}}  {total:7.1f}  {sum(figures.values()):7d}")
    slowest = sorted((item for job in jobs for item in job.slowest), reverse=True)[:3]
    lines += ["most of the time went to", *(f"  {seconds:7.1f} s  {cell[:100]}" for seconds, cell in slowest)]
    lines += [f"store: {Store(folder).bytes() / 1e6:.1f} MB in {folder}" for folder in stores]
    if any(job.destination for job in jobs):
        lines.append(f"the parameters are not the committed ones: the notebooks stay in {jobs[0].built.parent}/")
    return "\n".join(lines)


def _stores(jobs: list[Job]) -> list[Path]:
    values = set()
    for job in jobs:
        cell = {name: parameter.value for name, parameter in read_parameters(job.source).items()} | job.parameters
        values.add(str(cell.get("store", "store")))
    return sorted({store_folder(value) for value in values})


if __name__ == "__main__":
    sys.exit(main())
