"""The writeup's published completions: the schema of its data sets, and reading them from the hub or from a folder.

    OWNER/POLICY-METHOD-completions   a data set each for best-of-N, beam-search and DVTS (METHODS); split `train`
        a config a run, named for its settings (Config.parse); other names, such as n-merged, are ignored
            a row a problem: problem, answer, unique_id, completions (list[str]), scores (list[list[float]], a score a
            step), completion_tokens (best-of-N), agg_scores, pred_weighted@n, pred_maj@n, pred_naive@n; our own exports
            (tts.results.export) also have finished (list[bool])
        NAME--evals beside it: n, acc_naive, acc_weighted, acc_maj

A folder in OWNER's place has the same names: POLICY-METHOD-completions/CONFIG/, with Parquet files or JSON lines in it,
or a file CONFIG.parquet or CONFIG.jsonl. Nothing is ever written to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tts.errors import InputError, first_line
from tts.problems import Problem
from tts.tree import STEP_END, split_steps

METHODS = {"best_of_n": "best-of-N", "beam_search": "beam-search", "dvts": "DVTS"}  # as in the data sets' names
EVALS = "--evals"
SUFFIXES = (".parquet", ".jsonl")
OTHERS = ("completion_tokens", "finished")  # columns that some configs have
BATCH = 8  # rows in memory at once: with 1,024 completions a row has 2 MB

# Greedy accuracy on MATH-500 in [0, 1], zero-shot with a chain of thought, and parameters by the model cards.
GREEDY_SOURCE = "arXiv 2502.06703"
GREEDY = {
    "Llama-3.2-1B-Instruct": (0.260, 1.24e9),
    "Llama-3.2-3B-Instruct": (0.414, 3.21e9),
    "Llama-3.1-8B-Instruct": (0.498, 8.03e9),
    "Llama-3.1-70B-Instruct": (0.652, 70.6e9),
}

_NAME = re.compile(
    r"(?P<data>.+?)--T-(?P<temperature>\d+\.?\d*)--top_p-(?P<top_p>\d+\.?\d*)--n-(?P<n>\d+)"
    r"(--max_tokens-(?P<max_tokens>\d+)--bsz-\d+|--m-(?P<width>\d+)--iters-(?P<depth>\d+)--look-(?P<lookahead>\d+))"
    r"--seed-(?P<seed>\d+)--agg_strategy-last"
)


class NotPublishedError(InputError):
    """What was asked for is not among the published completions, or can't be used; a run may go on without it."""


@dataclass(frozen=True)
class Config:
    """One published run: its settings, as its name has them, and where its rows are."""

    method: str  # a key of METHODS
    name: str
    dataset: str  # "owner/name" of the hub, or the folder
    n: int
    seed: int
    temperature: float
    top_p: float
    max_tokens: int  # of best-of-N; 0 where the name has none
    width: int  # M, iterations and lookahead of a search; 0 for best-of-N
    depth: int
    lookahead: int
    files: tuple[Path, ...] = ()  # none on the hub
    revision: str = ""  # of a hub data set: its commit

    @classmethod
    def parse(cls, method: str, name: str, dataset: str, **where: object) -> Config | None:
        """The config of this name; None where it is not the name of a run of this method."""
        found = _NAME.fullmatch(name)
        if not found or (found["width"] is None) != (method == "best_of_n"):
            return None
        counts = {key: int(found[key] or 0) for key in ("n", "seed", "max_tokens", "width", "depth", "lookahead")}
        shares = {key: float(found[key]) for key in ("temperature", "top_p")}
        return cls(method, name, dataset, **counts, **shares, **where)

    def __str__(self) -> str:
        """What messages call it: the data set, N and seed."""
        return f"{Path(self.dataset).name}, n-{self.n}, seed {self.seed}"


def short_name(model: str) -> str:
    """A policy's name in the data sets' names: "Llama-3.2-1B-Instruct" of "meta-llama/Llama-3.2-1B-Instruct@main"."""
    return model.partition("@")[0].rpartition("/")[2]


def find_configs(source: str, policy: str, method: str) -> list[Config]:
    """The published runs of a policy with a method (a key of METHODS), by N and seed; none where there is no data set.

    source: a folder, or the hub's owner of the data sets. Raises InputError, one line, where neither answers.
    """
    name = f"{short_name(policy)}-{METHODS[method]}-completions"
    folder = as_folder(source)
    if folder is None:
        dataset = f"{source}/{name}"
        names, revision = _on_hub(dataset)
        found = [Config.parse(method, one, dataset, revision=revision) for one in names]
    else:
        files = _in_folder(folder / name)
        found = [Config.parse(method, one, str(folder / name), files=paths) for one, paths in files.items()]
    return sorted((one for one in found if one), key=lambda one: (one.n, one.seed))


def as_folder(source: str) -> Path | None:
    """The folder that source names, or None for an owner on the hub."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if "/" in source or source.startswith((".", "~")):
        raise InputError(f"replay: there is no folder {source}: give one, or an owner on the hub such as HuggingFaceH4")
    return None


def _in_folder(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Config -> its files."""
    found: dict[str, tuple[Path, ...]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir():
            found[path.name] = tuple(sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES))
        elif path.suffix in SUFFIXES:
            found[path.name.removesuffix(path.suffix)] = (path,)
    return {name: files for name, files in found.items() if files}


def _on_hub(dataset: str) -> tuple[list[str], str]:
    """The names of a hub data set's configs, and its commit."""
    import datasets  # slow to import, and few need it
    import huggingface_hub

    try:
        revision = huggingface_hub.HfApi().dataset_info(dataset, timeout=20).sha
        return datasets.get_dataset_config_names(dataset, revision=revision), revision
    except Exception as error:  # every release raises others; the user needs the one line
        raise InputError(_why_not(dataset, error)) from None


def _why_not(dataset: str, error: Exception) -> str:
    from huggingface_hub.errors import RepositoryNotFoundError

    if isinstance(error, RepositoryNotFoundError):
        wrong = "is not on the hub, or private, or has moved: name its owner of today in `replay`"
    else:
        wrong = f"can't be read from the hub ({first_line(error)}): check the network"
    return f"replay: the data set {dataset} {wrong}, or give a folder with its files"


# --- Rows ---------------------------------------------------------------------------------------------------------


def rows(config: Config, columns: Sequence[str]) -> Iterator[dict[str, object]]:
    """The rows of a config in their order, a few in memory at once: those of columns that it has.

    Raises NotPublishedError, one line, for a file that is cut off or can't be read.
    """
    try:
        if not config.files:
            yield from _hub_rows(config.dataset, config.name, config.revision, columns)
        for file in config.files:
            yield from _file_rows(file, columns)
    except NotPublishedError as error:
        raise NotPublishedError(f"{config}: {error}") from None


def evals(config: Config) -> list[dict[str, object]]:
    """The rows of the config's sibling `--evals`: n, acc_naive, acc_weighted, acc_maj; none where it has none."""
    columns = ("n", "acc_naive", "acc_weighted", "acc_maj")
    if config.files:
        files = _in_folder(Path(config.dataset)).get(config.name + EVALS, ())
        return [row for file in files for row in _file_rows(file, columns)]
    try:
        return list(_hub_rows(config.dataset, config.name + EVALS, config.revision, columns))
    except NotPublishedError:
        return []


def _hub_rows(dataset: str, name: str, revision: str, columns: Sequence[str]) -> Iterator[dict[str, object]]:
    import datasets

    try:
        table = datasets.load_dataset(dataset, name, split="train", revision=revision or None)
    except Exception as error:
        raise NotPublishedError(_why_not(dataset, error)) from None
    table = table.select_columns([column for column in columns if column in table.column_names])
    for batch in table.with_format("arrow").iter(batch_size=BATCH):
        yield from batch.to_pylist()


def _file_rows(file: Path, columns: Sequence[str]) -> Iterator[dict[str, object]]:
    import pyarrow
    import pyarrow.parquet

    try:
        if file.suffix == ".parquet":
            with pyarrow.parquet.ParquetFile(file) as table:
                known = [column for column in columns if column in table.schema_arrow.names]
                for batch in table.iter_batches(BATCH, columns=known):
                    yield from batch.to_pylist()
            return
        with file.open("rb") as lines:
            for line in lines:
                fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
                yield {name: msgspec.json.decode(fields[name]) for name in columns if name in fields}
    except (OSError, pyarrow.ArrowException, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotPublishedError(
            f"{file.name} can't be read ({' '.join(first_line(error).split())}): is it whole? download it again"
        ) from None


def check(config: Config, problems: Mapping[str, Problem], benchmark: Mapping[str, Problem]) -> int:
    """How many rows of a local config are of problems that the benchmark lacks; problems: those of the run by id.

    Raises NotPublishedError, one line, unless the config is whole, as solved_rows() does. Of Parquet only small columns
    are read. A config of the hub is not downloaded for this: it is checked when it is read, and 0 here.
    """
    if not config.files:
        return 0
    texts = {problem.text.strip() for problem in benchmark.values()}
    found = _matched(config, problems, ("scores",), needed=("scores",))
    return sum(problem is None and row["problem"].strip() not in texts for problem, row in found)


def solved_rows(
    config: Config, problems: Mapping[str, Problem], columns: Sequence[str] = ()
) -> Iterator[tuple[Problem, dict[str, object]]]:
    """(problem, its row) for each of problems: completions, scores and, where there, more columns (OTHERS and columns).

    Raises NotPublishedError as rows() does, and where the config lacks scores or one of the problems, has one twice,
    has another text for one, or another number of completions or scores than N.
    """
    needed = ("completions", "scores")
    found = _matched(config, problems, (*needed, *OTHERS, *columns), needed=needed)
    yield from ((problem, row) for problem, row in found if problem is not None)


def _matched(
    config: Config, problems: Mapping[str, Problem], columns: Sequence[str], *, needed: Sequence[str]
) -> Iterator[tuple[Problem | None, dict[str, object]]]:
    """(problem, row), with None for a row of another problem."""
    by_text = {problem.text.strip(): problem for problem in problems.values()}
    seen: set[str] = set()
    for row in rows(config, ("unique_id", "problem", *columns)):
        if lacking := [name for name in ("problem", *needed) if row.get(name) is None]:
            raise NotPublishedError(f"{config}: there is no column `{lacking[0]}`")
        text = row["problem"].strip()
        problem = problems.get(str(row.get("unique_id"))) or by_text.get(text)
        if problem is None:
            yield None, row
            continue
        where = f"{config}, problem {problem.id}"
        if text != problem.text.strip():
            raise NotPublishedError(f"{where}: its text is not that of `problems`")
        if problem.id in seen:
            raise NotPublishedError(f"{where} is there twice")
        seen.add(problem.id)
        sizes = {name: len(row[name]) for name in needed}
        # Our own searches may return less than N; the reference's never do.
        if len(set(sizes.values())) > 1 or max(sizes.values()) > config.n:
            raise NotPublishedError(f"{where} has {' and '.join(f'{size} {name}' for name, size in sizes.items())}")
        if config.method == "best_of_n" and sizes["scores"] < config.n:
            raise NotPublishedError(f"{where} has {sizes['scores']} completions, not {config.n}")
        yield problem, row
    if missing := [problem for problem in problems if problem not in seen]:
        raise NotPublishedError(
            f"{config}: {len(missing)} of {len(problems)} problems are missing, such as {missing[0]}"
        )


# --- What a completion says ---------------------------------------------------------------------------------------


def steps_and_scores(text: str, scores: Sequence[float], *, depth: int = 0) -> tuple[list[str], list[float]] | None:
    """A completion's steps as tts.tree cuts them, and a score each; None where the scores fit no way of cutting it.

    The reference scores what stands between two blank lines, also where that is nothing: such scores are left out. A
    search writes its last step (number `depth`) to the end of the solution, however many blank lines that has.
    """
    steps, pieces = split_steps(text), text.split(STEP_END)
    if len(scores) == len(pieces):
        scores = [score for piece, score in zip(pieces, scores, strict=True) if piece.strip()]
    if depth and len(scores) == depth < len(steps):
        steps = [*steps[: depth - 1], "".join(steps[depth - 1 :])]
    return (steps, list(scores)) if len(scores) == len(steps) else None


def shares_parent(children: Sequence[str]) -> bool:
    """Whether these completions can be the children of one step: equal but for their last step.

    A child that ended its turn at once has no step of its own: its text is the parent's.
    """
    before = ["".join(split_steps(text)[:-1]) for text in children]
    parent = max(before, key=len, default="")
    return all(parent in (text, rest) for text, rest in zip(children, before, strict=True))


def finished(row: Mapping[str, object]) -> list[bool]:
    """Which completions of a search's row are finished; where the row does not say, as their texts tell.

    The reference leaves the blank line that ends an unfinished step in the text, and takes a box for the end.
    """
    return row.get("finished") or [not text.endswith(STEP_END) or "\\boxed" in text for text in row["completions"]]
