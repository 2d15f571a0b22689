"""The architecture: which module may import which, what stays light, how much stands on top. Read from the sources."""

import ast
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

import tts

ROOT = Path(tts.__file__).parents[1]

# From the bottom up. A module belongs to the layer of the longest name here that it begins with ("x.*": what is inside
# x, without x itself). It may import from the layers below, and from its own where that makes no circle.
LAYERS = [
    ["tts.errors", "tts.seeds", "tts.tiny"],  # what all may use; of the embedded world only the paths of its files
    [f"tts.tiny.{name}" for name in ("notation", "work", "families", "problems", "checker")],  # the embedded problems
    ["tts.problems", "tts.policy", "tts.prm", "tts.reductions", "tts.voting"],  # the values, protocols and rules
    ["tts.tree"],  # a search and its step
    ["tts.strategies"],  # the four of them
    ["tts.compute_optimal"],  # the choice between them, as it would be deployed
    ["tts.answers"],  # from a solution's text to the key that votes
    ["tts.models"],  # policies and scorers: those with weights, and the exact one
    ["tts.solve"],  # one call from a problem to an answer
    ["tts.analysis"],  # arrays in, numbers out
    ["tts.results"],  # what was made stays on disk
    ["tts.plots"],  # from numbers to figures
    ["tts.experiment"],  # all methods over all budgets and seeds
    ["tts.companion"],  # what ties notebooks, profiles, figures and README together
    ["tts.tiny.*"],  # how the embedded models were made: no other module needs it
]
PACKAGE = "tts"  # its __init__ shows what users need: no module may import from it, since every import runs it first
ENGINES = {"torch", "transformers", "vllm"}
WITH_ENGINES = ("tts.models", "tts.tiny")
HEAVY = ENGINES | {"pandas", "matplotlib"}  # `import tts` loads none of them
PAPER = "errors seeds problems policy prm reductions voting tree strategies compute_optimal __init__".split()
PAPER_LINES = 950


# --- Reading --------------------------------------------------------------------------------------


def sources(folder=ROOT / "tts"):
    """Module -> its source, for all files of the package."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


def imported(module, source, *, package):
    """Every name that a source imports, anywhere in it: in functions, under TYPE_CHECKING, through import_module."""
    home = module if package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), home)
            yield from (f"{base}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant))


def arrows(modules):
    """(module, module that it imports) for all of them; importing x.y.z also runs x.y, unless it is inside it."""
    packages = {name.rpartition(".")[0] for name in modules}
    for module, source in modules.items():
        for name in imported(module, source, package=module in packages):
            target = name if name in modules else name.rpartition(".")[0]  # a module, or something that is in one
            if target in modules:
                yield module, target
            while (target := target.rpartition(".")[0]) in modules.keys() - {PACKAGE}:
                if not f"{module}.".startswith(f"{target}."):
                    yield module, target


def layer(module):
    """The number of a module's layer, from the bottom up."""
    if module == PACKAGE:
        return len(LAYERS)
    names = {name: number for number, names in enumerate(LAYERS) for name in names}
    inside = [f"{module[:i]}.*" for i, letter in enumerate(module) if letter == "."]
    fits = [name for name in [module, *inside, *(name.removesuffix(".*") for name in inside)] if name in names]
    assert fits, f"{module} has no layer: put it into LAYERS"
    return names[max(fits, key=len)]


def rising(modules):
    """The arrows that run up."""
    return sorted({f"{one} -> {other}" for one, other in arrows(modules) if layer(one) < layer(other)})


def circles(modules):
    """The circles, one for each arrow that closes one."""
    below, state, path, found = {module: set() for module in modules}, {}, [], []
    for one, other in arrows(modules):
        below[one].add(other)

    def visit(module):
        state[module] = "open"
        path.append(module)
        for other in sorted(below[module]):
            if state.get(other) == "open":
                found.append(" -> ".join([*path[path.index(other) :], other]))
            elif other not in state:
                visit(other)
        path.pop()
        state[module] = "closed"

    for module in sorted(modules):
        if module not in state:
            visit(module)
    return found


def engines_in(modules):
    """The imports of an engine where none belongs."""
    return sorted(
        f"{module} imports {name}"
        for module, source in modules.items()
        if not f"{module}.".startswith(tuple(f"{home}." for home in WITH_ENGINES))
        for name in imported(module, source, package=False)
        if name.split(".")[0] in ENGINES
    )


def lines_of(modules, names):
    """How many lines these files on top have together."""
    return sum(len(modules[f"{PACKAGE}.{name}".removesuffix(".__init__")].splitlines()) for name in names)


def on_top(modules):
    """The names of the files that stand directly in the package."""
    packages = {name.rpartition(".")[0] for name in modules}
    return {name.rpartition(".")[2] for name in modules if name.count(".") == 1 and name not in packages} | {"__init__"}


def loaded_by(code):
    """The heavy libraries that a fresh process has loaded after this code."""
    code += f"\nimport sys; print(*({HEAVY!r} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    return set(run.stdout.split())


# --- The package as it is --------------------------------------------------------------------------


def test_arrows_run_down_only():
    assert rising(sources()) == []


def test_there_is_no_circle():
    assert circles(sources()) == []


def test_every_layer_has_modules():
    layers = {name: layer(name.removesuffix(".*")) for names in LAYERS for name in names}
    assert layers["tts.tiny"] == 0, "'tts.tiny.*' is for what is inside"
    assert {layer(module) for module in sources()} == set(range(len(LAYERS) + 1))


def test_only_models_and_the_embedded_world_import_an_engine():
    assert engines_in(sources()) == []


def test_importing_tts_stays_light():
    assert loaded_by("import tts") == set()


def test_the_exact_verifier_needs_no_engine():
    lines = [
        "import asyncio, tts",
        "[problem] = tts.load_problems('tiny/dev', n=1)",
        "asyncio.run(tts.open_prm('exact').score(problem.text, ['1']))",
    ]
    assert loaded_by("\n".join(lines)) == set()


def test_what_tts_shows():
    assert tts.__all__ == [
        "Problem",
        "Sampling",
        "beam_search",
        "best_of_n",
        "compute_optimal",
        "dvts",
        "load_problems",
        "majority",
        "open_policy",
        "open_prm",
        "reduce_scores",
        "solve",
    ]
    assert all(hasattr(tts, name) for name in tts.__all__)


def test_the_paper_is_on_top_and_short():
    assert on_top(sources()) == {*PAPER, "solve", "experiment"}
    assert lines_of(sources(), PAPER) <= PAPER_LINES


# --- The checks can fail --------------------------------------------------------------------------

EXAMPLE = {
    "tts": "from tts.tree import Search",
    "tts.errors": "",
    "tts.tiny": "",
    "tts.tiny.train": "from . import DATA\nfrom ..analysis.curves import vote",
    "tts.problems": "from tts.tiny import DATA",
    "tts.tree": "from tts import errors\nimport tts.problems",
    "tts.models": "",
    "tts.models.open": "def f():\n    import torch\n    from tts.models.formats.text import Text",
    "tts.models.formats": "from tts.models.formats.text import Text",
    "tts.models.formats.text": "from tts.tree import Search",
    "tts.analysis": "",
    "tts.analysis.curves": "from tts.analysis import grading",
    "tts.analysis.grading": "import pandas",
}


def changed(**sources):
    """The made-up package with more lines in some modules ("tree" is tts.tree, "models_open" tts.models.open)."""
    names = {f"tts.{name.replace('_', '.')}": source for name, source in sources.items()}
    return EXAMPLE | {name: f"{EXAMPLE.get(name, '')}\n{source}" for name, source in names.items()}


def test_the_made_up_package_is_in_order():
    assert rising(EXAMPLE) == circles(EXAMPLE) == engines_in(EXAMPLE) == []
    found = set(arrows(EXAMPLE))
    assert {
        ("tts.tree", "tts.errors"),
        ("tts.tree", "tts.problems"),
        ("tts.tiny.train", "tts.analysis.curves"),
    } <= found
    assert ("tts.tiny.train", "tts.tiny") in found
    assert ("tts.models.open", "tts.models.formats") in found, "importing what is inside runs the package"
    assert ("tts.models.formats", "tts.models") not in found, "but not for a module inside it"
    assert ("tts.problems", "tts.tiny") in found


@pytest.mark.parametrize(
    ("source", "arrow"),
    [
        ("from tts.tree import Search", "tts.problems -> tts.tree"),
        ("import tts.tree", "tts.problems -> tts.tree"),
        ("from tts import tree", "tts.problems -> tts.tree"),
        ("from . import tree", "tts.problems -> tts.tree"),
        ("from .analysis.curves import vote", "tts.problems -> tts.analysis.curves"),
        ("def f():\n    from tts.tree import Search", "tts.problems -> tts.tree"),
        ("if TYPE_CHECKING:\n    from tts.tree import Search", "tts.problems -> tts.tree"),
        ("import importlib\nimportlib.import_module('tts.tree')", "tts.problems -> tts.tree"),
        ("__import__('tts.tree')", "tts.problems -> tts.tree"),
        ("from tts.tiny.train import main", "tts.problems -> tts.tiny.train"),
        ("from tts import Search", "tts.problems -> tts"),
        ("import tts", "tts.problems -> tts"),
    ],
)
def test_an_arrow_that_runs_up_is_seen(source, arrow):
    assert arrow in rising(changed(problems=source))


def test_a_circle_is_seen():
    same_layer = changed(analysis_grading="def f():\n    from tts.analysis.curves import vote")
    assert rising(same_layer) == []
    assert circles(same_layer) == ["tts.analysis.curves -> tts.analysis.grading -> tts.analysis.curves"]
    with_package = changed(models_formats_text="def f():\n    from tts.models.formats import Text")
    assert circles(with_package) == ["tts.models.formats -> tts.models.formats.text -> tts.models.formats"]
    longer = changed(errors="from tts.tree import Search")
    assert circles(longer) == ["tts.tree -> tts.errors -> tts.tree"]


def test_a_module_without_a_layer_is_named():
    with pytest.raises(AssertionError, match="tts.other has no layer"):
        rising(EXAMPLE | {"tts.other": "import tts.errors"})
    with pytest.raises(AssertionError, match="tts.errors_too has no layer"):
        layer("tts.errors_too")


@pytest.mark.parametrize(
    "source", ["import torch", "def f():\n    from transformers.models import llama", "import_module('vllm')"]
)
def test_an_engine_where_none_belongs_is_seen(source):
    assert len(engines_in(changed(tree=source))) == 1
    assert engines_in(changed(tiny_train=source, models=source)) == []
    assert len(engines_in(EXAMPLE | {"tts.models_too": source})) == 1


def test_heavy_imports_lines_and_files_are_seen():
    assert loaded_by("import pandas") == {"pandas"}
    assert lines_of(EXAMPLE, ["__init__", "tree", "problems"]) == 1 + 2 + 1
    assert on_top(EXAMPLE) == {"__init__", "errors", "problems", "tree"}
    assert on_top(EXAMPLE | {"tts.other": ""}) == {"__init__", "errors", "problems", "tree", "other"}


def test_all_files_are_read(tmp_path):
    for name in ("__init__.py", "tree.py", "models/__init__.py", "models/formats/text.py"):
        (tmp_path / "tts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tts" / name).write_text(f"# {name}")
    assert sources(tmp_path / "tts") == {
        "tts": "# __init__.py",
        "tts.tree": "# tree.py",
        "tts.models": "# models/__init__.py",
        "tts.models.formats.text": "# models/formats/text.py",
    }
