import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import tts.answers
from tts.answers import STATUSES, canonical_key, canonical_keys, extract_answer
from tts.answers.form import UnreadableError, read, simple_number
from tts.answers.guards import refuse
from tts.answers.pool import POOL
from tts.answers.spelling import normalise

ROOT = Path(__file__).resolve().parents[1]
MATH500 = ROOT.parent / "shared" / "data" / "math500.jsonl"
needs_math500 = pytest.mark.skipif(not MATH500.exists(), reason=f"needs the MATH-500 problems at {MATH500}")

SLOW = "a_" * 60 + "b"  # half a minute of the parser, which the guards would refuse


def golds():
    return [json.loads(line)["answer"] for line in MATH500.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def no_cache(monkeypatch):
    monkeypatch.setattr(tts.answers, "_cache", {})


# -- extraction ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed{1} or rather \boxed{2}", "2"),
        (r"$\boxed{\frac{1}{2}}$", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),  # an escaped brace needs no partner
        (r"\fbox{7}", "7"),
        (r"\boxed {7}", "7"),
        (r"\boxed 7$", "7"),
        (r"$\boxed x + 1$ is it", "x + 1"),
        (r"\boxed 7 is it", "7"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{x = \boxed{5}}", r"x = \boxed{5}"),
        (r"\boxed{5} and \boxed{7", "5"),  # cut off
        (r"$\boxed{5}$. I put it in a \boxed as you asked.", "5"),  # the word, not a box
        (r"\boxed{5}. I put it in a \boxed as you asked: $5$", "5"),
        (r"\boxed{5} is in a \boxed.", "5"),
        (r"\boxed{5} is in a $\boxed$", "5"),
        (r"\boxed{5} is in a \boxed{}, as you asked", "5"),
        (r"\boxed{5} has the form \boxed{...}", "5"),
        (r"\boxed{5} has the form \boxed{\ldots}", "5"),
        (r"\boxed{5} has the form \boxed{\quad}", "5"),
        (r"\boxed{5} or rather \boxed{\boxed{}}", "5"),
        (r"\boxed \boxed{5}", "5"),
        (r"\boxed{1} or rather \boxed 2$", "2"),
        (r"$\boxed \pi r^2$", r"\pi r^2"),
        ("I put it in a \\boxed as you asked", None),
        (r"\boxed\frac{1}{2}$", None),  # not what TeX allows either
        (r"\boxed{\text{a } b}", r"\text{a } b"),
        (r"\boxed{}", ""),
        (r"\boxed{ }", ""),
        (r"\boxed{7", None),
        (r"\boxed", None),
        (r"\boxedness{7}", None),
        ("the answer is 7", None),
        ("", None),
        ("boxed{7}", None),
    ],
)
def test_extract(text, answer):
    assert extract_answer(text) == answer


# -- keys and statuses -----------------------------------------------------------------------------------------------


def test_statuses():
    answers = ["5", "x+1", r"\text{odd}", "((", "9^{9^{9^9}}", "100000!", "", r"\,", None]
    status = [found.status for found in canonical_keys(answers)]
    assert status == ["parsed", "parsed", "text", "text", "rejected", "rejected", "empty", "empty", "none"]
    assert set(status) <= set(STATUSES)


def test_what_is_not_read_is_compared_as_text():
    assert canonical_key("((") == ("text", "((")
    assert canonical_key(r"\text{No solution}") == canonical_key("no solution") == ("text", "nosolution")
    assert canonical_key("9^{9^{9^9}}") == canonical_key("9^ {9^{9^9}}")
    assert canonical_key("9" * 500) != canonical_key("9" * 501)


def test_no_answer_has_no_key():
    assert canonical_key(None) is None
    assert canonical_key("") is None


def test_keys_are_hashable_and_survive_json():
    def lists(key):
        return [lists(part) if isinstance(part, tuple) else part for part in key]

    for found in canonical_keys(
        ["1/2", r"\sqrt2", "(1,x]", "x+y=1", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "\ud800", "odd"]
    ):
        assert isinstance(hash(found.key), int)
        assert json.loads(json.dumps(found.key)) == lists(found.key)
        json.dumps(found.key, ensure_ascii=False).encode()


def test_only_new_answers_are_read(no_cache, monkeypatch):
    canonical_keys(["x+1", "y", "x + 1"])
    monkeypatch.setattr(tts.answers, "POOL", None)
    assert canonical_keys(["y", "x+1", None, "x + 1", "7"])[1].status == "parsed"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x^2y^3z^4", None),
        ("a_1a_2a_3", None),
        (r"\pi^2\theta^3x^4", None),
        ("x_1^2y_1^2", None),
        ("2^6 3^5 5^4", None),
        ("2^63^55^4", "tower"),  # 63 and 55 are exponents and bases
        ("x_i^j_k", "tower"),
        (r"x^\pi^y^z", "tower"),
        ("x^{y^{z^w}}", "tower"),
    ],
)
def test_factors_side_by_side_are_no_tower(text, reason):
    assert refuse(text) == reason


@needs_math500
def test_every_gold_passes_the_guards_and_is_read():
    answers = golds()
    assert not any(refuse(answer) or refuse(normalise(answer)) for answer in answers)
    words = {answer for answer, found in zip(answers, canonical_keys(answers), strict=True) if found.status != "parsed"}
    assert words == {rf"\text{{{word}}}" for word in ("Evelyn", "east", "even", "ellipse", "Navin")}


def test_simple_numbers_get_the_parsers_key():
    from tts.answers.values import scalar

    draw = random.Random(0)
    answers = [str(draw.randint(-(10**9), 10**9)) for _ in range(20)]
    answers += [f"{draw.uniform(-100, 100):.{draw.randint(1, 9)}f}" for _ in range(20)]
    answers += [rf"\frac{{{draw.randint(-99, 99)}}}{{{draw.randint(1, 99)}}}" for _ in range(20)]
    answers += [f"-{draw.randint(0, 99)}/{draw.randint(1, 99)}" for _ in range(10)]
    answers += [f"({draw.randint(0, 9)}, {draw.randint(1, 99)}/7]" for _ in range(5)]
    answers += [
        "0",
        "-0",
        "007",
        ".5",
        "5.",
        "9" * 100,
        "0." + "1" * 99,
        r"-\frac{-3}{-6}",
        "{1, 2}",
        r"\{3, 3\}",
        "3:6",
    ]
    answers += golds() if MATH500.exists() else []
    compared = 0
    for answer in answers:
        text = normalise(answer)
        try:
            key = read(text, simple_number)
        except UnreadableError:
            continue
        assert read(text, scalar) == key, answer
        compared += 1
    assert compared > 80


# -- the same groups, whatever else happens --------------------------------------------------------------------------

ANSWERS = [
    r"\sqrt{8}",
    "(x+1)^2",
    "odd",
    "x+1",
    r"2\sqrt2",
    "dod",
    "x^2+2x+1",
    "1+x",
    r"\text{Odd}",
    "1,2",
    "2,1",
    "5!",
    "120",
]
POISON = [
    "9^{9^9}",
    r"\sum_{n} n",
    "__import__('os')",
    "((((",
    r"\frac{1}{0}",
    "\x00",
    "odd",
    r"\operatorname{eye}(9999)",
    "|x" * 4,
]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_order_any_workers_after_any_poison(workers, no_cache):
    POOL.close()
    want = dict(zip(ANSWERS, (canonical_key(answer) for answer in ANSWERS), strict=True))
    for seed in range(3):
        tts.answers._cache.clear()
        mixed = random.Random(seed).sample(ANSWERS + POISON, len(ANSWERS + POISON))
        got = dict(zip(mixed, (found.key for found in canonical_keys(mixed, workers=workers)), strict=True))
        assert {answer: got[answer] for answer in ANSWERS} == want
    assert len(set(want.values())) == 7


# -- processes that die ----------------------------------------------------------------------------------------------


def pids():
    return [worker.process.pid for worker in POOL._workers]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_late_answer_is_given_up_and_the_others_are_read():
    texts = ["x+1", SLOW, "y+1", "z+1", SLOW, "x+2"]
    replies = POOL.read(texts, workers=2, deadline=4.0)  # below what a worker gives itself, 5 s
    assert [reply and reply[1] for reply in replies] == ["parsed", None, "parsed", "parsed", None, "parsed"]
    assert POOL.read(["x+1"], workers=2, deadline=60.0) == replies[:1]


@pytest.mark.slow
def test_a_late_answer_has_the_status_timeout(no_cache, monkeypatch):
    monkeypatch.setattr(tts.answers, "refuse", lambda text: None)
    found = canonical_keys([SLOW, "x+1"], deadline=4.0)
    assert [result.status for result in found] == ["timeout", "parsed"]
    assert found[0].key[0] == "text"


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSEGV])
def test_workers_killed_between_two_calls_are_replaced(sent, no_cache):
    canonical_keys(["x+1", "x+2"], workers=2)
    before = pids()
    for pid in before:
        os.kill(pid, sent)
    assert [found.status for found in canonical_keys(["x+3", "x+4"], workers=2)] == ["parsed", "parsed"]
    assert not set(before) & set(pids())


@pytest.mark.slow
def test_a_worker_killed_at_work_is_replaced_and_the_answer_read_again(no_cache):
    POOL.close()
    canonical_keys(["x+1"], workers=1)
    (victim,) = pids()
    os.kill(victim, signal.SIGSTOP)  # so that it is surely at work when it is killed
    threading.Timer(0.3, os.kill, (victim, signal.SIGKILL)).start()
    assert [found.status for found in canonical_keys(["x+5", "x+6"], workers=1)] == ["parsed", "parsed"]
    assert victim not in pids()


def test_an_answer_that_kills_its_worker_twice_is_given_up(no_cache, monkeypatch):
    POOL.close()
    ended = []

    def kill_on_sight():
        while not ended:
            for worker in list(POOL._workers):
                if worker.task == 0 and worker.ready:
                    worker.process.kill()
            time.sleep(0.002)

    killer = threading.Thread(target=kill_on_sight)
    killer.start()
    replies = POOL.read([SLOW, "x+1"], workers=1, deadline=60.0)
    ended.append(True)
    killer.join()
    assert replies[0] is None
    assert replies[1][1] == "parsed"


def test_an_interrupt_does_not_spoil_the_next_call():
    canonical_keys(["x+1"])
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        POOL.read([SLOW, SLOW, SLOW], workers=2, deadline=60.0)
    assert POOL.read(["7", "8"], workers=2, deadline=60.0) == [
        [["rational", "7"], "parsed"],
        [["rational", "8"], "parsed"],
    ]


def test_a_call_with_fewer_workers_than_the_pool_has(no_cache):
    canonical_keys(["x+1", "x+2", "x+3"], workers=3)
    assert [found.status for found in canonical_keys(["x+7", "x+8", "x+9"], workers=1)] == ["parsed"] * 3


def worker(patch, *lines):
    """A worker with a patch, given lines: (return code, what it wrote)."""
    code = f"from tts.answers import worker\n{patch}\nworker.main()"
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run(
        [sys.executable, "-c", code], input=text, capture_output=True, text=True, cwd=ROOT, check=False
    )
    return done.returncode, done.stdout.splitlines()


def test_a_worker_ends_itself_at_its_time_limit():
    code, lines = worker("worker.CPU_SECONDS = 0.3", "x+1", SLOW)
    assert code == -signal.SIGPROF
    assert json.loads(lines[1])[1] == "parsed"


@pytest.mark.skipif(sys.platform != "linux", reason="address space can be limited on Linux only")
def test_a_worker_dies_at_its_memory_limit():
    code, lines = worker("worker.scalar = lambda text: bytearray(1 << 31)", "x+1")
    assert (code, lines) == (1, ["ready"])


def test_what_a_library_prints_is_no_reply():
    code, lines = worker("worker.scalar = lambda text: print(text) or ('text', text)", "x+1")
    assert (code, lines) == (0, ["ready", '[["text", "x+1"], "parsed"]'])


def test_a_worker_that_cannot_start_says_so(monkeypatch):
    POOL.close()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended as it started"):
        POOL.read(["x+1"], workers=1, deadline=60.0)
    monkeypatch.undo()
    assert canonical_key("x+1") is not None


# -- anywhere --------------------------------------------------------------------------------------------------------

CALL = "from tts.answers import canonical_key\nassert canonical_key('x+1') == canonical_key('1+x') is not None\n"


def run(*arguments, **settings):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False, **settings
    )


def test_in_a_script_without_a_main_guard_in_a_folder_of_misleading_names(tmp_path):
    (tmp_path / "sympy.py").write_text("raise SystemExit('the wrong sympy')")
    (tmp_path / "script.py").write_text(CALL)
    done = run("script.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_in_a_script_from_standard_input(tmp_path):
    done = run("-", input=CALL, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_in_threads(no_cache):
    with ThreadPoolExecutor(4) as threads:
        keys = list(threads.map(canonical_key, [f"x+{n % 5}" for n in range(40)]))
    assert len(set(keys)) == 5


def test_under_asyncio():
    async def call():
        return canonical_key("y(x+1)"), await asyncio.to_thread(canonical_key, "xy+y")

    here, there = asyncio.run(call())
    assert here == there


@pytest.mark.slow
def test_in_a_notebook(tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    cells = [CALL, "async def call():\n    return canonical_key('x+2')\nawait call()"]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{cell}") for cell in cells]
    )
    nbclient.NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "expression" in notebook.cells[1].outputs[0].data["text/plain"]


def test_in_a_forked_child(no_cache):
    canonical_key("x+1")
    before = pids()
    child = os.fork()
    if not child:
        works = canonical_key("x+9") is not None and not set(before) & set(pids())
        POOL.close()
        os._exit(0 if works else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pids() == before
    assert canonical_key("x+9") is not None


@pytest.mark.slow
def test_workers_end_with_their_parent(tmp_path):
    tell = "from tts.answers.pool import POOL\nprint(*[worker.process.pid for worker in POOL._workers], flush=True)\n"
    for end in ("", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"):
        done = run("-c", CALL + tell + end, cwd=tmp_path)
        started = [int(pid) for pid in done.stdout.split()]
        assert started
        for _ in range(300):
            if not any(map(alive, started)):
                break
            time.sleep(0.1)
        assert not any(map(alive, started))
