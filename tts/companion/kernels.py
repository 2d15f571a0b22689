"""Notebooks in kernels: each in a process of its own, several side by side, each line marked with whose it is.

    python -m tts.companion.kernels      executes the one notebook that standard input names (run_one, in main)

A notebook's process ends when its standard input does. So none stays behind, however the runner ends.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TextIO

from tts.companion.plan import Job
from tts.models.host import stop_hosts, temporary_directory

KEPT = "what is stored is kept"
ENGINE_LOGS = Path("build") / "engines"
KERNEL_START = 600  # seconds that a kernel may take to start: on a busy network disk the imports take minutes
KERNEL_NOTICE = 30  # seconds until a line says that the kernel is still starting
KERNEL_END = 60  # seconds that a process may take to end with its kernel before it is killed


class NotebookFailedError(RuntimeError):
    """A notebook failed. The message, for the terminal, says where and why."""


@contextmanager
def environment(root: Path) -> Iterator[None]:
    """What kernels run in: this Python, this repository, no settings of the user. Engines are stopped at the end."""
    from ipykernel.kernelspec import write_kernel_spec

    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="tts-", dir=temporary_directory()) as scratch:
        folder = Path(scratch)
        write_kernel_spec(folder / "kernels" / "python3", extra_arguments=["--log-level=CRITICAL"])
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


# --- Side by side ------------------------------------------------------------------------------------------------


def run_notebooks(jobs: Sequence[Job], *, at_once: int, left: Callable[[], str] = str) -> None:
    """Execute the notebooks in the build folder, so many at once, started in their order.

    If one fails, or on an interrupt, the others are ended with their kernels. left: how long the rest will take, in
    words or "".
    """
    asyncio.run(_run_all(jobs, at_once, left))


async def _run_all(jobs: Sequence[Job], at_once: int, left: Callable[[], str]) -> None:
    places = asyncio.Semaphore(at_once)
    screen = Screen()

    async def run(job: Job) -> None:
        async with places:
            screen.say(f"== {job.name}")
            job.started = time.monotonic()
            await _run_one(job, screen if at_once > 1 else None)
            job.seconds = time.monotonic() - job.started
            rest = left()
            screen.say(f"   {job.name}: {job.seconds:.1f} s" + (f", {rest}" if rest else ""))

    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(run(job))
    except* (NotebookFailedError, OSError) as errors:
        raise errors.exceptions[0] from None
    finally:
        screen.clear()


async def _run_one(job: Job, screen: Screen | None) -> None:
    """Execute a notebook in its process. Without a screen that process writes to the terminal itself."""
    async with _relayed(screen, job.source.name[:2]) as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tts.companion.kernels"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,  # Ctrl-C in a terminal is for the runner alone
        )
        try:
            paths = {name: str(getattr(job, name)) for name in ("source", "built", "figures")}
            process.stdin.write(json.dumps(paths | {"cell": job.cell, "injected": job.injected}).encode() + b"\n")
            said = await process.stdout.read()
        finally:
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), KERNEL_END)
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
    answer = json.loads(said) if said else {"failure": f"run_all: {job.source} failed: its process was killed; {KEPT}"}
    if "failure" in answer:
        raise NotebookFailedError(answer["failure"])
    if "error" in answer:
        raise OSError(answer["error"])
    job.slowest = [(seconds, cell) for seconds, cell in answer["slowest"]]


@asynccontextmanager
async def _relayed(screen: Screen | None, mark: str) -> AsyncIterator[int | None]:
    """A pipe to the screen for a process to write to.

    Not one of asyncio's: it waits until nobody holds those, and an engine that a notebook has started goes on.
    """
    if screen is None:
        yield None
        return
    read, write = os.pipe()
    reader, loop = asyncio.StreamReader(), asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb"))
    relay = asyncio.create_task(_relay(reader, screen, mark))
    try:
        yield write
    finally:
        os.close(write)
        await asyncio.wait({relay}, timeout=1)
        relay.cancel()
        transport.close()
        screen.end(mark)


async def _relay(reader: asyncio.StreamReader, screen: Screen, mark: str) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while chunk := await reader.read(1 << 16):
        screen.take(mark, decoder.decode(chunk))


class Screen:
    """Whole lines of several notebooks, each behind its mark; on a terminal, one line below has what they are writing.

    Progress bars rewrite their line with carriage returns: what stands there in the end is the line.
    """

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._unfinished: dict[str, str] = {}  # mark -> the line that is being written

    def take(self, mark: str, text: str) -> None:
        """Text that a notebook has written, up to anywhere."""
        *lines, rest = (self._unfinished.get(mark, "") + text).replace("\r\n", "\n").split("\n")
        self._unfinished[mark] = rest[max(rest.rfind("\r", 0, -1), 0) :]
        self._show([f"{mark}  {_overwritten(line)}" for line in lines if _overwritten(line)], sys.stderr)

    def end(self, mark: str) -> None:
        """A notebook has ended: its last line is whole."""
        if mark in self._unfinished:
            self.take(mark, "\n")
            del self._unfinished[mark]

    def say(self, line: str) -> None:
        """A line of the runner itself."""
        self._show([line], sys.stdout)

    def clear(self) -> None:
        """Take the line of what is being written off the terminal."""
        if self._live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def _show(self, lines: Sequence[str], stream: TextIO) -> None:
        self.clear()
        for line in lines:
            print(line, file=stream, flush=True)
        now = {mark: _overwritten(line) for mark, line in self._unfinished.items()}
        if self._live and any(now.values()):
            status = " | ".join(f"{mark} {line}" for mark, line in sorted(now.items()) if line)
            print(status[: shutil.get_terminal_size().columns - 1], end="", file=sys.stderr, flush=True)


def _overwritten(line: str) -> str:
    """A line as it stands on a terminal that heeds carriage returns."""
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line).rstrip().rpartition("\r")[2].rstrip()


# --- One notebook ------------------------------------------------------------------------------------------------


def execute(job: Job) -> None:
    """Run one notebook into the build folder, in this process, showing its stderr (its progress) as it comes."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    shutil.rmtree(job.figures, ignore_errors=True)
    job.figures.mkdir(parents=True)
    job.built.unlink(missing_ok=True)
    os.environ["TTS_FIGURES"] = str(job.figures.resolve())
    notice = f"   waiting for the kernel to start ({sys.executable} -m ipykernel_launcher), {KERNEL_START} s at most"
    waiting = threading.Timer(KERNEL_NOTICE, print, [notice], {"file": sys.stderr, "flush": True})
    waiting.start()
    try:
        papermill.execute_notebook(
            str(job.source),
            str(job.built),
            parameters=job.injected,
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
    job.slowest = _cell_times(job)


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


def main() -> int:
    """Execute the notebook that the first line of standard input describes; standard output gets what came of it."""
    answer = os.fdopen(os.dup(1), "w")  # kernels inherit this process's standard output
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asked = json.loads(sys.stdin.readline())
        threading.Thread(target=_end_with_standard_input, daemon=True).start()
        job = Job(**{name: Path(value) if isinstance(value, str) else value for name, value in asked.items()})
        execute(job)
        said = {"slowest": job.slowest}
    except NotebookFailedError as error:
        said = {"failure": str(error)}
    except OSError as error:
        said = {"error": str(error)}
    except KeyboardInterrupt:
        return 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner closes standard input once it has the answer
    print(json.dumps(said), file=answer, flush=True)
    return 0


def _end_with_standard_input() -> None:
    while os.read(0, 1):
        pass
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # nbclient tells at length that its kernel has died
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
