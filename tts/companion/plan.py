"""What a run will do: which notebooks, each with which parameters; all that can be checked before a kernel starts."""

from __future__ import annotations

import ast
import logging
import re
import sys
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tts.companion.parameters import (
    MACHINE,
    OLD_NAMES,
    Parameters,
    check_ranges,
    check_trained,
    figures_subfolder,
    fits,
    load_profile,
    names_of,
    nearest,
    notebooks,
    store_folder,
    type_name,
)
from tts.errors import InputError

APART = {"09", "10"}  # notebooks that a run takes only where --only names them


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
    cell: Parameters  # what its parameters cell says
    injected: Parameters  # what takes the place of that: only the values that differ
    built: Path
    figures: Path
    started: float = 0.0  # by time.monotonic
    seconds: float = 0.0  # once it has ended
    slowest: list[tuple[float, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The notebook's name, without .ipynb."""
        return self.source.stem

    @property
    def apart(self) -> bool:
        """Whether a run takes it only where --only names it."""
        return self.name[:2] in APART

    @property
    def parameters(self) -> Parameters:
        """What the notebook runs with."""
        return self.cell | self.injected

    @property
    def destination(self) -> str:
        """The folder of its figures below figures/: "" for the default run, else full, n256, replay or local."""
        return figures_subfolder(self.parameters)

    @property
    def store(self) -> Path:
        """The folder of its results."""
        return store_folder(str(self.parameters.get("store", "store")))


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


def plan(*, profile: str, only: str = "", changes: Sequence[str] = (), with_apart: bool = False) -> list[Job]:
    """The notebooks to run, each with its parameters; all that can be checked before a kernel starts is checked.

    only: their numbers, such as "01,03"; "" is all but those that stand apart (APART), with_apart=True those too.
    changes: "name=value" each, the value as YAML; they override the profile.
    """
    sources = notebooks(Path())
    if not sources:
        raise InputError("there is no notebook notebooks/NN_name.ipynb")
    cells = {source: read_parameters(source) for source in sources}
    names = {name for cell in cells.values() for name in cell}
    asked = _read_changes(changes, names)
    profiled = _current_names(f"profile {profile}", load_profile(profile), names)
    _check_profile(f"profile {profile}", profiled, cells)
    _check_profile("--set", asked, cells)
    numbers = [number.zfill(2) for number in names_of(only)]
    for number in numbers:
        if not any(source.name.startswith(f"{number}_") for source in sources):
            known = ", ".join(source.name[:2] for source in sources)
            raise InputError(f"--only {only}: there is no notebook {number}, choose from {known}")
    build = Path("build") / profile
    jobs = []
    for source in sources:
        number = source.name[:2]
        if number not in numbers if numbers else number in APART and not with_apart:
            continue
        cell = {name: parameter.value for name, parameter in cells[source].items()}
        # In the default profile the cell decides, so that a reader's edit of it takes effect.
        wanted = ({} if profile == "default" else profiled) | asked
        if wanted.get("replay") and "replay" not in cell and number in numbers:
            raise InputError(f"--only {only}: notebook {number} needs what no published completion has: leave it out")
        committed = MACHINE | cell  # papermill injects what a cell doesn't have, too
        injected = {name: value for name, value in wanted.items() if committed.get(name, value) != value}
        check_ranges(MACHINE | cell | injected)
        if "train_problems" in cell and number in numbers:  # a report looks at every notebook, whatever the profile
            check_trained(cell | injected)
        figures = build / "figures" / source.stem
        jobs.append(Job(source, cell, injected, built=build / source.name, figures=figures))
    for name in asked:
        having = [source.name[:2] for source, cell in cells.items() if name in cell]
        if having and not numbers and not any(name in job.cell for job in jobs):
            raise InputError(f"--set {name}: only notebook {having[0]} has it, which runs with --only {having[0]}")
    return jobs


def _read_changes(changes: Sequence[str], names: Container[str]) -> Parameters:
    import yaml

    for change in changes:
        if not re.match("[^=]+=", change):
            raise InputError(f"--set {change}: give name=value, such as n_max=128")
    asked = _current_names("--set", dict(change.split("=", 1) for change in changes), names)
    known = load_profile("default") | MACHINE if asked else {}
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
        if not having and name in MACHINE:
            having = [Parameter(name, type_name(MACHINE[name]), MACHINE[name], "a setting of the machine")]
        for parameter in having:
            _check_type(parameter, value, where=where)
        if not having and (where != "profile default" or name not in known):
            listed = sorted({f"{item.name}: {item.type}" for cell in cells.values() for item in cell.values()})
            meant = nearest(name, {item.name for cell in cells.values() for item in cell.values()} | set(MACHINE))
            guess = f", did you mean {meant}?" if meant else ";"
            raise InputError(
                f"{where}: no notebook has a parameter {name!r}{guess} there are {', '.join(listed) or 'none'}"
            )


def _check_type(parameter: Parameter, value: object, *, where: str) -> None:
    if not fits(value, parameter.type):
        about = f" ({parameter.help})" if parameter.help else ""
        raise InputError(f"{where}: {parameter.name} is {value!r}, but its type is {parameter.type}{about}")
