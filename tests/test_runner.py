"""The runner on toy notebooks, in kernels that really start: what is checked, what is copied, what a failure says."""

import csv
import os
import re
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from processes import started
from toys import PARAMETERS, ROOT, files, make_notebook, make_repository, run

from tts.companion import forecast
from tts.companion.forecast import Forecast, in_words, side_by_side
from tts.companion.kernels import Screen
from tts.companion.parameters import store_folder
from tts.companion.plan import Job, plan, read_parameters
from tts.companion.runner import canonical, device
from tts.errors import InputError
from tts.results.store import Store


@pytest.fixture
def repository(tmp_path):
    return make_repository(tmp_path / "a {repo} with spaces")


@pytest.mark.kernel
def test_success_is_kept_and_a_second_run_changes_nothing(repository, tmp_path):
    make_notebook(repository, "01_one", "print(n_max)")
    make_notebook(repository, "02_two", "object()")
    first = run(repository, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    kept = files(repository / "figures"), files(repository / "notebooks")
    assert set(kept[0]) == {"01_one.png", "01_one.json", "02_two.png", "02_two.json", "README.md"}
    notebook = nbformat.read(repository / "notebooks" / "01_one.ipynb", as_version=4)
    assert [cell.get("execution_count") for cell in notebook.cells] == [None, 1, 2, 3]
    assert [out.text for cell in notebook.cells for out in cell.get("outputs", [])] == ["64\n"]  # stderr is gone
    assert "half way" in first.stderr  # but was shown while it ran
    assert "01_one" in first.stdout
    assert "store: 0.0 MB" in first.stdout

    second = run(repository)
    assert second.returncode == 0, second.stderr
    assert (files(repository / "figures"), files(repository / "notebooks")) == kept


@pytest.mark.kernel
def test_kernels_run_this_python_whatever_the_user_has_set(repository, tmp_path):
    home = tmp_path / "home"
    kernel = home / ".local" / "share" / "jupyter" / "kernels" / "python3"
    startup = home / ".ipython" / "profile_default" / "startup"
    config = home / ".config" / "matplotlib"
    temporary = tmp_path / ("batch-job-" * 10)  # the path of a socket has some 100 bytes
    for folder in (kernel, startup, config, temporary):
        folder.mkdir(parents=True)
    (kernel / "kernel.json").write_text('{"argv": ["false"], "display_name": "x", "language": "python"}')
    for path in (startup / "mine.py", home / "mine.py"):
        path.write_text("leaked = True")
    (config / "matplotlibrc").write_text("font.size: 30\n")
    (home / "matplotlibrc").write_text("text.usetex: True\n")
    make_notebook(
        repository,
        "01_one",
        "import sys; assert sys.executable == " + repr(sys.executable),
        "leaked = 'leaked' in globals()\nassert not leaked",
        "from matplotlib import rcParams\nassert (rcParams['font.size'], rcParams['text.usetex']) == (10, False)",
        "from matplotlib import get_backend\nassert 'inline' in get_backend()",
        f"import tts\nassert tts.__file__.startswith({str(repository)!r}), tts.__file__",
        "import sys\nif sys.flags.optimize: raise SystemError('no assert of these cells is checked')",
        "from tts.models.host import runtime_directory\nassert len(str(runtime_directory())) < 80",
    )
    mine = {"PYTHONSTARTUP": str(home / "mine.py"), "MATPLOTLIBRC": str(home / "matplotlibrc"), "MPLBACKEND": "TkAgg"}
    mine |= {"PYTHONOPTIMIZE": "1"}
    done = run(repository, HOME=str(home), TMPDIR=str(temporary), LC_ALL="C", **mine)
    assert done.returncode == 0, done.stderr
    assert not list(temporary.iterdir())


def start_kernels_after(repository, code):
    """Have the kernels, and no other Python, run code before all else."""
    (repository / "sitecustomize.py").write_text(f"import sys\nif 'ipykernel_launcher' in sys.orig_argv:\n    {code}\n")


@pytest.mark.kernel
def test_a_kernel_that_dies_at_once_is_one_failure(repository):
    make_notebook(repository, "01_one")
    start_kernels_after(repository, "import os; print('libfoo.so is missing', file=sys.stderr); os._exit(1)")
    done = run(repository)
    assert done.returncode == 1
    assert "libfoo.so is missing" in done.stderr
    assert "the kernel did not start (Kernel died before replying to kernel_info): read what it wrote" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.kernel
def test_a_kernel_may_take_long_to_start(repository):
    """As long as KERNEL_START says; what is waited for is said after a while."""
    make_notebook(repository, "01_one")
    start_kernels_after(repository, "import time; time.sleep(4)")
    module = repository / "tts" / "companion" / "kernels.py"
    source = module.read_text().replace("KERNEL_NOTICE = 30 ", "KERNEL_NOTICE = 0.1 ")
    for limit, code in ((600, 0), (1, 1)):
        module.write_text(source.replace("KERNEL_START = 600 ", f"KERNEL_START = {limit} "))
        done = run(repository)
        assert done.returncode == code, done.stderr
        assert done.stderr.count(f"waiting for the kernel to start ({sys.executable} -m ipykernel_launcher)") == 1
        assert ("the kernel did not start (Kernel didn't respond in 1 seconds)" in done.stderr) == bool(code)


@pytest.mark.kernel
def test_a_parameters_old_name_is_understood(repository):
    """In profiles and in --set, with a line that says what it is called now."""
    for name, cell in (("01_one", "print(beam_width)"), ("02_two", "")):
        make_notebook(repository, name, cell, parameters="beam_width: int = 4  # M", figure=False)
    (repository / "notebooks" / "profiles" / "default.yaml").write_text("beam_width: 4\n")
    (repository / "notebooks" / "profiles" / "mine.yaml").write_text("width: 8\n")
    (repository / "notebooks" / "profiles" / "both.yaml").write_text("width: 8\nbeam_width: 2\n")
    done = run(repository, "--profile", "mine", "--set", "width=16", "--only", "1")
    assert done.returncode == 0, done.stderr
    for where in ("--set", "profile mine"):
        assert done.stderr.count(f"run_all: {where}: the parameter width is now called beam_width\n") == 1
    built = nbformat.read(repository / "build" / "mine" / "01_one.ipynb", as_version=4)
    assert "16\n" in [output.get("text") for cell in built.cells for output in cell.get("outputs", [])]
    done = run(repository, "--profile", "both")
    assert done.returncode == 2
    assert done.stderr == (
        "run_all: profile both: width is the old name of beam_width, and both are given: remove width\n"
    )


@pytest.mark.kernel
def test_other_parameters_write_other_folders_and_leave_the_notebook(repository):
    path = make_notebook(repository, "01_one")
    source = path.read_bytes()
    for profile, folder in (("smoke", "local"), ("full", "full")):
        done = run(repository, "--profile", profile)
        assert done.returncode == 0, done.stderr
        assert f"figures/{folder}/" in done.stdout
        assert (repository / "figures" / folder / "01_one.png").exists()
    assert not list((repository / "figures").glob("*.*"))
    assert path.read_bytes() == source
    assert (repository / "build" / "smoke" / "01_one.ipynb").exists()

    # A reader's edit of the cell is a run of its own too, and the edit is neither overridden nor executed over.
    edited = make_notebook(repository, "01_one", parameters=PARAMETERS.replace("64", "128")).read_bytes()
    done = run(repository)
    assert done.returncode == 0, done.stderr
    assert (repository / "figures" / "local" / "01_one.png").read_bytes() == b"picture 128"
    assert not list((repository / "figures").glob("*.*"))
    assert path.read_bytes() == edited


@pytest.mark.kernel
def test_the_full_grid_says_how_each_notebook_was_made(repository):
    make_notebook(repository, "01_one")
    make_notebook(repository, "02_two")
    for arguments in (["--set", "n_max=256"], ["--profile", "full", "--only", "02"]):
        done = run(repository, *arguments)
        assert done.returncode == 0, done.stderr
    with (repository / "figures" / "full" / "runs.csv").open(newline="") as lines:
        rows = {row["notebook"]: row for row in csv.DictReader(lines)}
    assert set(rows) == {"01_one", "02_two"}
    assert rows["01_one"]["parameters"] == "n_max=256"
    assert rows["01_one"]["device"] == device()
    assert rows["02_two"]["date"] == datetime.now(UTC).date().isoformat()
    page = (repository / "figures" / "full" / "README.md").read_text()
    assert "| 01_one |" in page
    assert "![a](02_two.png)" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("n_max", "--set n_max: give name=value"),
        ("n_max=many", "--set: n_max is 'many', but its type is int"),
        ("n_maxx=4", "--set: no notebook has a parameter 'n_maxx'"),
    ],
)
def test_a_setting_that_no_notebook_takes_is_one_line(repository, change, message):
    make_notebook(repository, "01_one")
    done = run(repository, "--set", change)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.kernel
def test_settings_take_the_place_of_the_profiles(repository):
    make_notebook(repository, "01_one", "print(n_max, temperature, problems)")
    done = run(repository, "--profile", "smoke", "--set", "problems=7", "--set", "temperature=1")
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(repository / "build" / "smoke" / "01_one.ipynb", as_version=4)
    assert "4 1 7\n" in [out.get("text") for cell in notebook.cells for out in cell.get("outputs", [])]


@pytest.mark.kernel
def test_failing_cell_is_shown_and_nothing_is_copied(repository):
    make_notebook(repository, "01_good")
    bad = make_notebook(
        repository, "02_bad", "from tts.errors import InputError\nraise InputError('n_max is 0: give 1 or more')"
    )
    make_notebook(repository, "03_never")
    source = bad.read_bytes()
    done = run(repository, "--jobs", "1")  # two at once would begin 03 if 01 ends before 02 fails
    assert done.returncode == 1
    assert "notebooks/02_bad.ipynb failed in cell [2]" in done.stderr
    assert "| raise InputError('n_max is 0: give 1 or more')" in done.stderr
    assert "InputError: n_max is 0: give 1 or more" in done.stderr
    assert "The notebook up to that cell: build/default/02_bad.ipynb" in done.stderr
    assert "\x1b" not in done.stderr
    assert (repository / "build" / "default" / "02_bad.ipynb").exists()
    assert not (repository / "figures").exists()
    assert not (repository / "build" / "default" / "03_never.ipynb").exists()
    assert bad.read_bytes() == source
    assert nbformat.read(repository / "notebooks" / "01_good.ipynb", as_version=4).cells[1].execution_count is None


@pytest.mark.slow
def test_folder_that_can_not_be_written_is_one_line(repository):
    make_notebook(repository, "01_one")
    (repository / "build").write_text("a file where a folder should be")
    done = run(repository)
    assert done.returncode == 1
    assert done.stderr.strip().startswith("run_all: [Errno")
    assert "build" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.kernel
def test_dead_kernel_is_a_failure_like_any_other(repository):
    make_notebook(repository, "01_one", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    done = run(repository)
    assert done.returncode == 1
    assert "the kernel died" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (repository / "figures").exists()


# Notes the kernel's process in a file of the notebook's name, then waits until that file has "go" in it too.
NOTE = """
import os, time
from pathlib import Path
here = Path("..") / "{name}.kernel"
here.write_text(str(os.getpid()))
"""
WAIT = """
while "go" not in here.read_text():
    time.sleep(0.05)
"""


def wait_for(condition, process):
    """Until the condition holds; fails if the process ends before. Its value is returned."""
    for _ in range(9000):
        if found := condition():
            return found
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise TimeoutError


def kernel_of(repository, name, process):
    """The process of a notebook's kernel, once it runs."""
    path = repository / f"{name}.kernel"
    return int(wait_for(lambda: path.exists() and path.read_text(), process))


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def runner_of(repository, *arguments):
    """The runner, started and not waited for."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TTS_")}
    environment["PYTHONPATH"] = str(repository)
    return started("-m", "tts.companion.runner", *arguments, cwd=repository, env=environment, stdin=None)


@pytest.mark.kernel
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["int", "term", "kill"])
def test_an_interrupt_ends_all_kernels_and_copies_nothing(repository, number):
    """Also where the runner is killed and can clean up nothing."""
    for name in ("01_one", "02_two"):
        make_notebook(repository, name, NOTE.format(name=name) + WAIT)
    with runner_of(repository, "--jobs", "2") as runner:
        kernels = [kernel_of(repository, name, runner) for name in ("01_one", "02_two")]
        runner.send_signal(number)
        _, said = runner.communicate(timeout=900)
    if number == signal.SIGKILL:
        for _ in range(9000):
            if not any(map(is_running, kernels)):
                break
            time.sleep(0.1)
    else:
        assert runner.returncode == 130, said
        assert "interrupted, nothing was copied" in said
    assert "Traceback" not in said, said
    assert not (repository / "figures").exists()
    assert not any(map(is_running, kernels))


# --- Side by side ---------------------------------------------------------------------------------


@pytest.mark.kernel
def test_notebooks_run_side_by_side(repository):
    """Each waits for the other's kernel, so neither would end alone. Each has its own folder of figures."""
    for name, other in (("01_one", "02_two"), ("02_two", "01_one")):
        wait = f"while not (here.parent / '{other}.kernel').exists():\n    time.sleep(0.05)"
        make_notebook(repository, name, NOTE.format(name=name) + wait)
    make_notebook(repository, "03_three", "import os; assert os.environ['TTS_FIGURES'].endswith('03_three')")
    done = run(repository, "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert {"01_one.png", "02_two.png", "03_three.png"} <= set(files(repository / "figures"))
    assert [line for line in done.stdout.splitlines() if line.startswith("==")][:2] == ["== 01_one", "== 02_two"]
    assert done.stderr.splitlines().count("02  half way") == 1
    assert ", with 2 notebooks at once" in done.stdout


@pytest.mark.kernel
def test_one_job_is_one_at_a_time_in_order(repository):
    for name in ("01_one", "02_two"):
        make_notebook(
            repository, name, f"open('../order', 'a').write('{name} ')", "open('../order', 'a').write('end ')"
        )
    done = run(repository, "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert (repository / "order").read_text() == "01_one end 02_two end "
    assert done.stderr == "half way\nhalf way\n"  # as the notebook wrote it
    assert run(repository, "--jobs", "0").stderr == "run_all: --jobs is 0: it must be a whole number, 1 or more\n"


@pytest.mark.kernel
def test_a_failure_ends_the_notebooks_beside_it(repository):
    make_notebook(repository, "01_one", NOTE.format(name="01_one") + WAIT)
    bad = "while not Path('../01_one.kernel').exists():\n    time.sleep(0.05)\nraise SystemError('it is broken')"
    make_notebook(repository, "02_bad", "import time\nfrom pathlib import Path", bad)
    make_notebook(repository, "03_never")
    done = run(repository, "--jobs", "2")
    assert done.returncode == 1
    assert "run_all: notebooks/02_bad.ipynb failed in cell [3]:" in done.stderr
    assert "SystemError: it is broken" in done.stderr
    assert "Nothing was copied to notebooks/ or figures/; what is stored is kept: run it again to go on." in done.stderr
    assert done.stderr.count("Traceback") == 1  # that of the cell
    assert not is_running(int((repository / "01_one.kernel").read_text()))
    assert not (repository / "figures").exists()
    assert not (repository / "build" / "default" / "03_never.ipynb").exists()


@pytest.mark.slow
def test_an_estimate_makes_nothing_and_says_what_it_does_not_know(repository):
    make_notebook(repository, "01_one", "raise SystemError")
    done = run(repository, "--estimate")
    assert done.returncode == 0, done.stderr
    assert "01_one    what this table doesn't know" in done.stdout
    assert not (repository / "build").exists()


def test_the_lines_of_two_notebooks_are_whole(capsys):
    screen = Screen()
    screen.take("01", "policy: 0 st")
    screen.take("02", "\rbar:  10%|#  |\rbar:  50")
    screen.take("01", "ored\nhalf a")
    screen.take("02", "%|## |\r\x1b[Abar: 100%|###|\nnext: 1")
    screen.take("01", "\r\nno newl")
    screen.say("== 03_three")
    screen.end("01")
    assert capsys.readouterr().err.splitlines() == [
        "01  policy: 0 stored",
        "02  bar: 100%|###|",
        "01  half a",
        "01  no newl",
    ]


def test_what_is_being_written_stands_below_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "30")
    screen = Screen()
    screen.take("02", "\rbar:  50%|#")
    screen.take("01", "done\nsamples: 12%|#")
    said = capsys.readouterr().err
    assert said.split("\r\033[K") == ["", "02 bar:  50%|#", "01  done\n01 samples: 12%|# | 02 bar:  "]


def test_the_time_left_is_that_of_the_last_run(tmp_path, monkeypatch):
    monkeypatch.setattr(forecast.time, "monotonic", lambda: 1000.0)
    assert side_by_side([60, 30, 20, 20], 2) == 70  # the second place: 30 + 20 + 20
    assert [in_words(seconds) for seconds in (1, 44, 200, 9000)] == ["10 s", "40 s", "3 min", "2.5 h"]

    def jobs(n_max):
        return [
            Job(Path(f"{i}.ipynb"), {"n_max": n_max, "store": str(tmp_path)}, {}, tmp_path / "x", tmp_path)
            for i in range(3)
        ]

    first = jobs(4)
    unknown = Forecast(first, at_once=1)
    assert unknown.left() == ""
    for job in first:
        job.seconds = 120.0
    unknown.keep()
    again = jobs(4)
    known = Forecast(again, at_once=1)
    again[0].seconds, again[1].started = 100.0, 970.0
    assert known.left() == "about 4 min left"  # 90 s of the second, 120 s of the third
    assert Forecast(again, at_once=2).left() == Forecast(jobs(8), at_once=1).left() == "", "another run"
    Store(store_folder()).table("usage", {}).append([{"key": ["samples", "now"], "seconds": 1.0}])
    assert known.left() == "", "this run makes something"
    for job in again:
        job.seconds = 500.0
    known.keep()
    assert Forecast(jobs(4), at_once=1).left() == "about 6 min left", "a run that made something is not remembered"


@pytest.mark.kernel
@pytest.mark.parametrize("ending", ["", "; raise SystemError"], ids=["success", "failure"])
def test_engines_are_shared_by_the_notebooks_and_stopped_at_the_end(repository, tmp_path, ending):
    """A stand-in for a host: it holds the lock of one until it is asked to end, and says so then.

    02 comes after 01, whose log its failure names.
    """
    start = f"""
import fcntl, os, subprocess, sys
folder = os.environ["TTS_ENGINES"]
os.makedirs(folder, mode=0o700)
open(folder + "/model.log", "w").write("why")
lock = open(folder + "/model.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
program = "import signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [15]); print('ready', flush=True); "
program += "signal.sigwait([15]); open(sys.argv[1], 'w').write('stopped')"
command = [sys.executable, "-S", "-c", program, {str(tmp_path / "said")!r}]
host = subprocess.Popen(command, pass_fds=[lock.fileno()], start_new_session=True, stdout=subprocess.PIPE)
host.stdout.readline()
open(folder + "/model.pid", "w").write(str(host.pid))
"""
    note = "open('../used', 'a').write(os.environ['TTS_ENGINES'] + '\\n')"
    make_notebook(repository, "01_one", start + note)
    make_notebook(repository, "02_two", f"import os; {note}{ending}")
    done = run(repository, "--jobs", "1")
    assert done.returncode == bool(ending), done.stderr
    assert ("the engines' logs: build/engines" in done.stderr) == bool(ending)
    assert (repository / "build" / "engines" / "model.log").exists() == bool(ending)
    one, two = (repository / "used").read_text().split()
    assert one == two
    assert (tmp_path / "said").read_text() == "stopped"
    assert not Path(one).exists()


@pytest.mark.kernel
def test_engines_that_the_caller_keeps_are_the_callers_to_stop(repository, tmp_path):
    host = repository / "tts" / "models" / "host.py"
    host.write_text(
        host.read_text().replace("def stop_hosts(", "def stop_hosts():\n    raise SystemError\n\n\ndef unused(")
    )
    make_notebook(repository, "01_one", "import os; os.makedirs(os.environ['TTS_ENGINES'], mode=0o700)")
    done = run(repository, TTS_ENGINES=str(tmp_path / "mine"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine").exists()


@pytest.mark.kernel
def test_only_runs_what_is_named(repository):
    make_notebook(repository, "01_one", "raise SystemError")
    make_notebook(repository, "02_two")
    done = run(repository, "--only", "2")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (repository / "figures").iterdir()} == {"02_two.png", "02_two.json", "README.md"}
    done = run(repository, "--only", "07")
    assert done.returncode == 2
    assert done.stderr == "run_all: --only 07: there is no notebook 07, choose from 01, 02\n"


def test_a_notebook_apart_runs_only_where_it_is_named(repository, monkeypatch):
    """And not in a replay, unless it has the parameter."""
    for name in ("01_one", "09_two", "10_last"):
        make_notebook(repository, name)
    monkeypatch.chdir(repository)

    def names(**asked):
        return [job.name for job in plan(profile="default", **asked)]

    assert names() == ["01_one"]
    assert names(only="9") == ["09_two"]
    assert names(only="1,09") == ["01_one", "09_two"]
    assert names(with_apart=True) == names(only="01,09,10") == ["01_one", "09_two", "10_last"]
    make_notebook(repository, "02_three", parameters=f'{PARAMETERS}\nreplay: str = ""  # of what')
    assert names(changes=["replay=somebody"]) == ["01_one", "02_three"]
    with pytest.raises(InputError, match="--only 09: notebook 09 needs what no published completion has: leave it out"):
        names(only="09", changes=["replay=somebody"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("n_max=-1", "n_max is -1: it must be a whole number, 1 or more"),
        ("temperature=-2", "temperature is -2: it must be 0"),
        ("reduction=best", "reduction is 'best': choose one of last, min, prod, mean"),
        ("patience=0", "patience is 0: give the seconds"),
        ("train_problems=4", "--set train_problems: only notebook 10 has it, which runs with --only 10"),
        ("first_look=4", "--set first_look: only notebook 09 has it, which runs with --only 09"),
    ],
)
def test_a_value_out_of_range_is_refused_before_a_kernel_starts(change, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        plan(profile="default", changes=[change])


@pytest.mark.kernel
def test_two_notebooks_can_not_write_one_figure(repository):
    make_notebook(repository, "01_one")
    make_notebook(repository, "02_two", "import re", figure=False)
    notebook = nbformat.read(repository / "notebooks" / "01_one.ipynb", as_version=4)
    nbformat.write(notebook, repository / "notebooks" / "02_two.ipynb")
    done = run(repository)
    assert done.returncode == 1
    assert "would both be figures/01_one.json" in done.stderr
    assert not (repository / "figures").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--profile", "nope"),
            "profile 'nope' is not known: choose one of default, full, misspelt, smoke, wrong_type",
        ),
        (
            ("--profile", "misspelt"),
            "profile misspelt: no notebook has a parameter 'n_maxx', did you mean n_max? "
            "there are n_max: int, problems: str, temperature: float",
        ),
        (("--profile", "wrong_type"), "profile wrong_type: n_max is 'many', but its type is int (samples)"),
    ],
)
def test_wrong_profile_ends_in_one_line_before_any_kernel(repository, arguments, message):
    make_notebook(repository, "01_one")
    done = run(repository, *arguments)
    assert (done.returncode, done.stderr) == (2, f"run_all: {message}\n")
    assert not (repository / "build").exists()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("n_max = 64", "is no parameter"),
        ("n_max: int = 8 * 8", "is no parameter"),
        ("n_max: int | None = None", "is no parameter"),
        ("n_max: int = '64'", "n_max is '64', but its type is int"),
        ("n_max: int = True", "n_max is True, but its type is int"),
        ("n_max: int = ", "invalid syntax in line 1"),
        ("import os", "is no parameter"),
    ],
)
def test_parameters_cell_that_can_not_be_checked(repository, cell, message):
    path = make_notebook(repository, "01_one", parameters=cell)
    with pytest.raises(InputError, match=message) as caught:
        read_parameters(path)
    assert "\n" not in str(caught.value).strip()


def test_injected_cell_is_refused(repository):
    path = make_notebook(repository, "01_one")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].metadata["tags"] = ["injected-parameters"]
    nbformat.write(notebook, path)
    with pytest.raises(InputError, match="overrides your edits: delete it"):
        read_parameters(path)


def test_canonical_form_has_nothing_that_changes_from_run_to_run(tmp_path):
    def executed(uuid, address, seconds):
        cell = new_code_cell("frame.style", id="abc", execution_count=3, metadata={"papermill": {"duration": seconds}})
        html = f'<style>#T_{uuid}_row0 {{}}</style><table id="T_{uuid}">T_max</table>'
        data = {"text/html": html, "text/plain": f"<pandas.Styler at 0x{address}>"}
        cell.outputs = [
            new_output("stream", name="stderr", text=f"{seconds} s"),
            new_output("execute_result", data=data, execution_count=3),
        ]
        metadata = {"papermill": {"start": seconds}, "language_info": {"name": "python", "version": f"3.11.{seconds}"}}
        path = tmp_path / f"{uuid}.ipynb"
        nbformat.write(new_notebook(cells=[cell], metadata=metadata), path)
        return canonical(path)

    one, two = executed("a1b2c", "7f00", 1), executed("d3e4f", "8a11", 2)
    assert one == two
    assert "T_abc_0_row0" in one
    assert "T_max" in one
    assert one.endswith("}\n")
    assert Path(tmp_path / "one.ipynb").write_text(one)
    assert canonical(tmp_path / "one.ipynb") == one
