"""run_all.sh: its words, its set-up (against a Python that only writes down what it was asked), and a real run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from test_packaging import KINDS, pinned, pins
from toys import ROOT, files, make_notebook, make_repository

# Stands for python3.11: makes environments in which it is itself the Python, and notes every call and its variables.
STAND_IN = """#!/bin/bash
printf '%s\\n' "$*" | head -n 1 >>"$CALLS"
env | grep -E '^(PIP_|PYTHON|HOME=)' >>"$CALLS.env"
case "$*" in
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  *Python.h*) [ -z "${NO_HEADERS:-}" ] || exit 1 ;;
  *" install "*"$FAILING"*) [ -z "$FAILING" ] || { echo "ERROR: ${SAYING:-No space left on device}"; exit 1; } ;;
esac
"""


@pytest.fixture
def repository(tmp_path):
    return make_repository(tmp_path / "a repo")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """The folder with the stand-in; the calls it got are in `calls` beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("python3.11", "nvidia-smi"):
        (folder / name).write_text(STAND_IN if name[0] == "p" else "#!/bin/bash\nexit 1\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("FAILING", "")
    return folder


def run_all(repository, *arguments, cwd="/", script=None, **environment):
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TTS_") and name not in ("VIRTUAL_ENV", "CONDA_PREFIX")
    }
    return subprocess.run(
        ["bash", str(script or repository / "run_all.sh"), *arguments],
        cwd=cwd,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=900,  # a hang, not a slow machine
        check=False,
    )


def calls(repository):
    """What the stand-in was asked to do since the last look, without mere checks."""
    path = repository.parent / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line for line in lines if not line.startswith(("-c", "-m pip --version"))]


def test_help_sets_nothing_up(repository, stand_in):
    done = run_all(repository, "--help")
    assert done.returncode == 0
    assert "--profile NAME" in done.stdout
    assert done.stdout == run_all(repository, "test", "-h").stdout
    assert calls(repository) == []
    assert not (repository / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bogus"], "'bogus' is not known here; see ./run_all.sh --help"),
        (["collect", "--jobs", "2"], "'--jobs' is not known here; see ./run_all.sh --help"),
        (["collect", "--shard", "1/2"], "'--shard' is not known here; see ./run_all.sh --help"),
        (["--jobs"], "--jobs needs a value; see ./run_all.sh --help"),
        (["clean", "--estimate"], "'--estimate' is not known here; see ./run_all.sh --help"),
        (["--profile"], "--profile needs a value; see ./run_all.sh --help"),
        (["--profile", "nope"], "profile 'nope' is not known: choose one of default full misspelt smoke wrong_type "),
        (["--machine", "toaster"], "machine 'toaster' is not known: choose cpu, gpu or portable"),
        (["clean", "--all"], "'--all' is not known here; see ./run_all.sh --help"),
        (["--store"], "'--store' is not known here; see ./run_all.sh --help"),
    ],
)
def test_bad_usage_is_one_line_and_sets_nothing_up(repository, stand_in, arguments, message):
    done = run_all(repository, *arguments)
    assert (done.returncode, done.stderr) == (2, f"run_all: {message}\n")
    assert calls(repository) == []


def test_sets_up_once(repository, stand_in):
    first = run_all(repository, "--machine", "portable", "--only", "03")
    assert first.returncode == 0, first.stderr
    assert "as asked: this machine runs without vLLM" in first.stderr
    asked = calls(repository)
    assert asked[0] == "-m venv .venv"
    assert ["--no-deps" in line for line in asked[1:-1]] == [True, True, True]
    assert "--retries 0 --extra-index-url" in asked[1]  # torch alone
    assert asked[2].endswith("-r requirements-portable.txt")
    assert asked[3].endswith("--no-build-isolation -e .")
    assert asked[-1] == "-m tts.companion.runner --profile default --only 03"

    second = run_all(repository, "--machine", "portable")
    assert second.stderr == ""
    assert calls(repository) == ["-m tts.companion.runner --profile default --only "]

    more = ["--set", "n_max=4", "--jobs", "3", "--estimate", "--set", "seed=a b"]
    run_all(repository, "--machine", "portable", *more)
    asked = " ".join(["--profile", "default", "--only", "", *more])
    assert calls(repository) == [f"-m tts.companion.runner {asked}"]

    (repository / "requirements-portable.txt").write_text("torch==9\n")  # other pins: installed, nothing made anew
    assert run_all(repository, "--machine", "portable").returncode == 0
    assert [line.split()[1] for line in calls(repository)] == ["pip", "pip", "pip", "tts.companion.runner"]


def test_gpu_torch_comes_from_the_ordinary_index(repository, stand_in):
    (stand_in / "nvidia-smi").write_text("#!/bin/bash\necho GPU 0: one\n")
    done = run_all(repository, CUDA_VISIBLE_DEVICES="0")
    assert done.returncode == 0, done.stderr
    if sys.platform == "linux":
        assert "NVIDIA GPU found: vLLM is the engine" in done.stderr
        asked = calls(repository)
        assert not any("index" in line for line in asked)
        assert asked[2].endswith("-r requirements-gpu.txt")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere vLLM never serves")
@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles", "none"])
def test_a_job_that_was_given_no_gpu_has_none(repository, stand_in, hidden):
    (stand_in / "nvidia-smi").write_text("#!/bin/bash\necho GPU 0: one\n")
    kind = "cpu" if "avx2" in Path("/proc/cpuinfo").read_text().split() else "portable"
    assert run_all(repository, CUDA_VISIBLE_DEVICES=hidden).returncode == 0
    assert calls(repository)[2].endswith(f"-r requirements-{kind}.txt")


def test_variables_of_the_user_change_neither_what_is_installed_nor_what_is_imported(repository, stand_in, tmp_path):
    """But those that say where packages come from stay, and a user id without an account gets a home."""
    redirecting = {"PIP_USER": "1", "PIP_TARGET": "/t", "PIP_PREFIX": "/p", "PIP_CONSTRAINT": "/c", "PYTHONPATH": "/m"}
    redirecting |= {"PYTHONHOME": "/h", "PYTHONSTARTUP": "/s", "PYTHONOPTIMIZE": "2", "PIP_REQUIRE_VIRTUALENV": "1"}
    kept = {"PIP_INDEX_URL": "https://mirror/simple", "PIP_CERT": "/cert.pem"}
    done = run_all(repository, "--machine", "cpu", HOME=str(tmp_path / "gone"), LC_ALL="C", **redirecting, **kept)
    assert done.returncode == 0, done.stderr
    here = f"install --no-user --target  --root / --prefix {repository}/.venv "  # a pip.conf may say otherwise
    assert all(here in line for line in calls(repository)[1:-1])
    seen = dict(line.split("=", 1) for line in Path(f"{tmp_path}/calls.env").read_text().splitlines())
    assert kept.items() <= seen.items()
    assert seen["PYTHONPATH"] == str(repository)
    assert seen["PYTHONUTF8"] == "1"
    assert seen["HOME"] == str(repository / "build" / "home")
    assert not seen.keys() & (redirecting.keys() - {"PYTHONPATH"})


def test_finds_its_repository(repository, stand_in, tmp_path):
    """Through links, and from the folder that a batch job was submitted in; else it says how to call it."""
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "one").symlink_to("../a repo/run_all.sh")
    (tmp_path / "two").symlink_to(tmp_path / "links" / "one")
    spool = tmp_path / "slurm_script"
    shutil.copy(repository / "run_all.sh", spool)
    for script, environment in (
        (tmp_path / "two", {}),
        (spool, {"SLURM_SUBMIT_DIR": str(repository)}),
        (spool, {"PBS_O_WORKDIR": str(repository), "CDPATH": "/"}),
        (spool, {"cwd": repository}),
    ):
        done = run_all(repository, "--machine", "cpu", script=script, **environment)
        assert done.returncode == 0, done.stderr
        assert calls(repository)[-1] == "-m tts.companion.runner --profile default --only "
    done = run_all(repository, script=spool, SLURM_SUBMIT_DIR=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("run_all: this copy finds no repository: call the run_all.sh in it")
    assert done.stderr.count("\n") == 1


GPUS = """#!/bin/bash
case "$*" in -L) echo "GPU 0: one" ;; *) echo "$ROWS" ;; esac
"""
H100 = "580.65.06, 9.0, NVIDIA H100 80GB HBM3"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere vLLM never serves")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ROWS": "535.1, 9.0, NVIDIA H100"}, "the NVIDIA driver 535.1 is older than 580, which CUDA 13 needs"),
        ({"ROWS": f"{H100}\n580.65.06, 7.5, Tesla T4"}, "Tesla T4 has compute capability 7.5, and bfloat16 needs 8.0"),
        ({"NO_HEADERS": "1"}, "/bin/python3.11 has no headers (Python.h), and Triton needs them at run time"),
        ({"FREE": "9000000"}, " GiB free, and the packages need 15: free some, or move the repository"),
        ({"CC": "", "NO_COMPILER": "1"}, "there is no C compiler, and Triton needs one at run time"),
    ],
)
def test_a_gpu_machine_is_checked_before_anything_is_installed(repository, stand_in, changes, message):
    (stand_in / "nvidia-smi").write_text(GPUS)
    (stand_in / "df").write_text('#!/bin/bash\necho head; echo "/dev/a 99 1 ${FREE:-99999999} 1% /"\n')
    (stand_in / "df").chmod(0o755)
    changes = {"ROWS": H100, "CUDA_VISIBLE_DEVICES": "0"} | changes
    if changes.pop("NO_COMPILER", ""):  # a PATH with all but compilers
        for name in "bash env head tail tee grep cat cut cksum dirname uname awk rm mkdir cp wc tr".split():
            (stand_in / name).symlink_to(shutil.which(name))
        changes["PATH"] = str(stand_in)
    done = run_all(repository, **changes)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("run_all: ")
    assert message in last
    assert last.endswith(", or use --machine portable")
    assert calls(repository) == []
    asked = run_all(repository, "--machine", "gpu", **changes)
    assert asked.returncode == 0, asked.stderr
    assert f"{message}" in asked.stderr, "said, but whoever names the machine may go on"


def test_a_torch_that_can_not_be_found_is_explained(repository, stand_in):
    for saying in ("No matching distribution found for torch==9", "ResolutionImpossible: for help visit a page"):
        done = run_all(repository, "--machine", "cpu", FAILING="torch.txt", SAYING=saying)
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"run_all: pip failed: ERROR: {saying}: torch==")
        assert "comes from PyTorch's own index, which can't be reached from here" in last


def test_failed_set_up_is_one_line_and_a_rerun_goes_on(repository, stand_in):
    done = run_all(repository, "--machine", "cpu", FAILING="requirements-cpu.txt")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("run_all: pip failed: ERROR: No space left on device (log: ")
    assert calls(repository)[-1].endswith("-r requirements-cpu.txt")  # went no further

    # What a killed pip leaves: files, and no RECORD of them.
    for name, record in (("half-1.dist-info", ""), ("whole-1.dist-info", "whole.py,,\n")):
        folder = repository / ".venv" / "lib" / "python3.11" / "site-packages" / name
        folder.mkdir(parents=True)
        (folder / "RECORD").write_text(record)
    done = run_all(repository, "--machine", "cpu")
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in calls(repository)] == [
        "pip",
        "pip",
        "pip",
        "tts.companion.runner",
    ]  # kept the environment
    assert [path.name for path in folder.parent.iterdir()] == ["whole-1.dist-info"]


def test_environment_that_does_not_work_is_made_anew(repository, stand_in):
    (repository / ".venv" / "bin").mkdir(parents=True)
    (repository / ".venv" / "bin" / "python").symlink_to("/nowhere/python")
    done = run_all(repository, "--machine", "cpu")
    assert done.returncode == 0, done.stderr
    assert "does not work, making a new one" in done.stderr
    assert calls(repository)[0] == "-m venv .venv"


def test_repository_that_moved_is_set_up_again(repository, stand_in):
    run_all(repository, "--machine", "cpu")
    calls(repository)
    moved = repository.rename(repository.parent / "moved")
    assert run_all(moved, "--machine", "cpu").returncode == 0
    assert calls(moved)[-2].endswith("-e .")


def test_no_python_says_what_to_install(repository, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "uname", "grep", "cksum", "cat", "dirname", "ls", "sed", "tr", "wc", "head", "rm"):
        (tools / name).symlink_to(shutil.which(name))
    done = run_all(repository, "--machine", "cpu", PATH=str(tools))
    assert done.returncode == 1
    assert "needs Python 3.11 or 3.12 with venv and pip: install it" in done.stderr


def test_commands_reach_their_programs(repository, stand_in):
    assert run_all(repository, "bench", "--quick", "--machine", "x").returncode == 0
    assert calls(repository)[-1] == "-m bench --quick --machine x"
    assert run_all(repository, "collect", "--profile", "smoke", "--only", "03", "one store", "b").returncode == 0
    assert calls(repository)[-1] == "-m tts.companion.runner --profile smoke --only 03 --collect one store b"
    assert run_all(repository, "--shard", "2/8").returncode == 0
    assert calls(repository)[-1] == "-m tts.companion.runner --profile default --only  --shard 2/8"
    assert run_all(repository, "test", "-k", "one or two").returncode == 0
    lint = ["-m ruff check .", "-m ruff format --check ."]
    assert calls(repository) == [*lint, "-m pytest -k one or two"]
    assert run_all(repository, "test", "--quick").returncode == 0
    without = "not kernel and not engine and not slow and not vllm"
    assert calls(repository) == [*lint, f"-m pytest -n 2 --dist loadfile -m {without}"]


def test_clean_says_what_goes_and_keeps_what_counts(repository):
    make_notebook(repository, "01_one")
    made = (".venv/x", "build/default/x", "figures/local/x", "tts/__pycache__/x", "tts.egg-info/x", ".ruff_cache/x")
    kept = ("figures/01.png", "figures/full/01.png", "store/samples/x", "tts/tiny/models/x")
    for name in (*made, *kept):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text("x" * 3000)
    before = files(repository)
    done = run_all(repository, "clean", TTS_STORE="/elsewhere")
    assert done.returncode == 0, done.stderr
    assert files(repository) == {name: text for name, text in before.items() if name not in made}
    for name in (".venv", "build", "figures/local", "tts/__pycache__", "tts.egg-info", ".ruff_cache"):
        assert any(line.split()[-1].endswith(name) and "K" in line for line in done.stdout.splitlines()), name
    assert "store (the samples and scores; --store removes it)" in done.stdout
    assert "TTS_STORE=/elsewhere lies elsewhere" in done.stdout

    done = run_all(repository, "clean", "--store")
    assert not (repository / "store").exists()
    assert "store" in done.stdout
    assert run_all(repository, "clean", "--store").returncode == 0


def test_clean_never_removes_what_is_committed(repository):
    (repository / "build").mkdir()
    (repository / "build" / "mine").write_text("x")
    for command in (["init", "-q"], ["add", "-f", "build"]):
        subprocess.run(["git", *command], cwd=repository, check=True)
    done = run_all(repository, "clean")
    assert "build is committed: left" in done.stderr
    assert (repository / "build" / "mine").exists()


@pytest.mark.parametrize("trouble", ["another owner", "no git"])
def test_clean_removes_nothing_where_git_can_not_say_what_is_committed(repository, tmp_path, trouble):
    subprocess.run(["git", "init", "-q"], cwd=repository, check=True)
    for name in ("build", "store", "tts/__pycache__"):
        (repository / name).mkdir()
    environment, why = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}, "fatal: detected dubious ownership in repository"
    if trouble == "no git":
        for name in ("bash", "dirname", "basename", "readlink", "cut", "du", "rm", "find", "cat"):
            (tmp_path / name).symlink_to(shutil.which(name))
        environment, why = {"PATH": str(tmp_path)}, "git is not installed"
    done = run_all(repository, "clean", "--store", **environment)
    assert done.returncode == 1
    assert done.stderr.startswith(f"run_all: git can't say what is committed here ({why}")
    assert done.stderr.endswith("), so nothing is removed\n")
    assert done.stderr.count("\n") == 1
    assert all((repository / name).is_dir() for name in ("build", "store", "tts/__pycache__"))


def test_clean_asks_the_repository_that_a_path_lies_in(repository, tmp_path):
    """Not the one that GIT_DIR names, nor the outer one of two, and a name is no pattern."""
    inner = repository / "inner"
    for path in (repository / "store" / "x", inner / "__pycache__" / "x", repository / "[ab].egg-info" / "x"):
        path.parent.mkdir(parents=True)
        path.write_text("x")
    for folder, *names in ((repository, "store", ":(literal)[ab].egg-info"), (inner, "__pycache__"), (tmp_path,)):
        for command in (["init", "-q"], ["add", "-f", *names]):
            subprocess.run(["git", *command], cwd=folder, check=True)
    done = run_all(repository, "clean", "--store", GIT_DIR=str(tmp_path / ".git"))
    assert done.returncode == 0
    assert done.stderr.count("is committed: left") == 3
    assert (inner / "__pycache__" / "x").exists()


def test_clean_leaves_what_holds_a_repository_of_its_own(repository):
    """The outer one knows nothing of what is committed there."""
    (repository / "store" / "samples").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", repository / "store"], check=True)
    (repository / "build").mkdir()
    done = run_all(repository, "clean", "--store")
    assert done.stderr == "run_all: store holds a git repository of its own: left\n"
    assert (repository / "store" / "samples").exists()
    assert not (repository / "build").exists()


def test_clean_heeds_what_git_lists_and_not_its_warnings(repository, tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", repository], check=True)
    (repository / "build").mkdir()
    (tmp_path / "git").write_text(f'#!/bin/sh\necho "warning: no access" >&2\nexec {shutil.which("git")} "$@"\n')
    (tmp_path / "git").chmod(0o755)
    done = run_all(repository, "clean", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (repository / "build").exists()


@pytest.mark.slow
def test_a_pip_conf_can_not_send_packages_elsewhere(tmp_path):
    """The real pip, called as set_up calls it."""
    pip_install = re.search(r"-m pip (.*)\\\n\s*(--no-deps.*?) \"\$@\"", (ROOT / "run_all.sh").read_text())
    options = shlex.split(" ".join(pip_install.groups()).replace("$PWD", str(tmp_path)))
    with zipfile.ZipFile(tmp_path / "toy-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toy.py", "")
        wheel.writestr("toy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        wheel.writestr("toy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("toy-1.0.dist-info/RECORD", "toy.py,,\n")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / ".venv"], check=True)
    python = tmp_path / ".venv" / "bin" / "python"
    for setting in ("user = true", "target = {}/else", "prefix = {}/else", "root = {}/else"):
        (tmp_path / "pip.conf").write_text(f"[install]\n{setting.format(tmp_path)}\nforce-reinstall = true\n")
        environment = os.environ | {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
        command = [python, "-m", "pip", *options, "--no-index", tmp_path / "toy-1.0-py3-none-any.whl"]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        subprocess.run([python, "-c", "import toy"], check=True)
        assert not (tmp_path / "else").exists()
        subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "toy"], check=True)


@pytest.mark.kernel
def test_active_environment_with_the_packages_is_used_as_it_is(repository, tmp_path):
    installed = pins.installed()
    kinds = [kind for kind in KINDS if all(installed.get(n, ("",))[0] == v for n, v in pinned(kind).items())]
    if not kinds:
        pytest.skip("runs where one of the requirements files is what is installed")
    make_notebook(repository, "01_one")
    environment = {"VIRTUAL_ENV": sys.prefix, "HOME": str(tmp_path / "home")}
    done = run_all(repository, "--machine", kinds[0], cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert not (repository / ".venv").exists()
    assert (repository / "figures" / "01_one.png").exists()
    assert "01_one" in done.stdout
    assert not Path(tmp_path, "home").exists() or not list(Path(tmp_path, "home").glob("*.json"))

    done = run_all(repository, "--machine", kinds[0], "--profile", "misspelt", cwd=tmp_path, **environment)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_active_environment_that_lacks_packages_is_left_alone(repository, stand_in, tmp_path):
    active = tmp_path / "active" / "bin"
    active.mkdir(parents=True)
    (active / "python").symlink_to(sys.executable)
    (repository / "requirements-cpu.txt").write_text("no-such-package==1\ntorch==0.1\n")
    done = run_all(repository, "--machine", "cpu", VIRTUAL_ENV=str(active.parent))
    assert done.returncode == 0, done.stderr
    assert "the active environment lacks 2 of requirements-cpu.txt (no-such-package==1" in done.stderr
    assert calls(repository)[0] == "-m venv .venv"
