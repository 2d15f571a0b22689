"""What the policy and the scorer on transformers share: a thread that runs requests together, and loading a model."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import queue
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tts.answers.pool import usable_cores
from tts.errors import EngineError, InputError
from tts.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel


SWITCH_INTERVAL = 5e-4  # seconds


@dataclass(eq=False)
class Job:
    """One request; its future belongs to the event loop that asked."""

    future: asyncio.Future = field(init=False)

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.future.done()


Answers = Iterable[tuple[Job, object]]


class Runner(Protocol):
    """A loaded model, used by one thread."""

    def add(self, jobs: Iterable[Job]) -> None:
        """Take jobs on."""

    @property
    def is_busy(self) -> bool:
        """Whether a job is unanswered."""

    def step(self) -> Answers:
        """Do a part of the work; returns the jobs that it completed, with their results."""

    def clear(self) -> None:
        """Forget all jobs, after an error."""


class Worker:
    """Runs jobs in a thread of its own, which loads the model for the first one; new jobs join between two steps."""

    def __init__(self, load: Callable[[], Runner]) -> None:
        self._load = load
        self._thread: _Thread | None = None
        self._tick: tuple[asyncio.AbstractEventLoop, list[Job]] | None = None

    @property
    def progress(self) -> object:
        """Something that changes as long as the model is loaded or runs."""
        return self._thread and self._thread.progress

    async def run(self, job: Job) -> object:
        """The job's result. Raises EngineError if the engine fails."""
        loop = asyncio.get_running_loop()
        job.future = loop.create_future()
        if self._tick is None or self._tick[0] is not loop:
            self._tick = loop, []
            loop.call_soon(self._send, self._tick)  # the jobs of one tick of the event loop begin together
        self._tick[1].append(job)
        return await job.future

    def close(self) -> None:
        """Release the model after all waiting jobs are answered. The next job loads it again."""
        if self._tick is not None:
            self._send(self._tick)
        if self._thread is not None:
            self._thread.end()
            self._thread = None

    def _send(self, tick: tuple[asyncio.AbstractEventLoop, list[Job]]) -> None:
        if self._tick is tick:  # otherwise close() has sent it already
            self._tick = None
            self._thread = self._thread or _Thread(self._load)
            self._thread.put(tick[1])


class InWorker:
    """What the policy and the scorer have that send their jobs to a worker."""

    _worker: Worker

    @property
    def progress(self) -> object:
        """See ModelPolicy.progress."""
        return self._worker.progress

    async def close(self) -> None:
        """Release the model after all waiting requests are answered."""
        self._worker.close()


class _Thread:
    """An executor's thread: the interpreter waits for those at exit, while from others torch aborts the process."""

    def __init__(self, load: Callable[[], Runner]) -> None:
        self._load = load
        # Each of torch's operations lets the interpreter go for a moment. If the event loop takes it then, it keeps it
        # for an interval, 5 ms usually, in which a small model's step would be done.
        sys.setswitchinterval(min(SWITCH_INTERVAL, sys.getswitchinterval()))
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="transformers")
        self._inbox: queue.SimpleQueue[list[Job]] = queue.SimpleQueue()
        self._runner: Runner | None = None
        self._open: dict[Job, None] = {}  # unanswered, in order of arrival
        self._steps = 0

    @property
    def progress(self) -> tuple[int, float]:
        is_loading = self._runner is None and bool(self._open)
        return self._steps, is_loading and time.monotonic()

    def put(self, jobs: list[Job]) -> None:
        self._inbox.put(jobs)
        self._executor.submit(self._run_all)

    def end(self) -> None:
        self._executor.shutdown(wait=False)

    def _run_all(self) -> None:
        """Run until nothing is left to do; the calls for jobs that joined meanwhile find nothing."""
        try:
            jobs = self._take()
            if not jobs:
                return
            self._runner = self._runner or self._load()
            self._runner.add(jobs)
            while self._runner.is_busy:
                self._answer(self._runner.step())
                self._steps += 1
                self._runner.add(self._take())
        except Exception as error:
            if not isinstance(error, InputError | EngineError):
                line = str(error).splitlines()[0] if str(error) else ""
                error = EngineError(f"transformers failed: {type(error).__name__}: {line}")
            if self._runner is not None:
                self._runner.clear()
            self._answer((job, error) for job in list(self._open))

    def _take(self) -> list[Job]:
        jobs: list[Job] = []
        while not self._inbox.empty():
            jobs += self._inbox.get()
        self._open.update(dict.fromkeys(jobs))
        return jobs

    def _answer(self, answers: Answers) -> None:
        """Resolve the futures, with one call into each event loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Job, object]]] = {}
        for job, result in answers:
            del self._open[job]
            by_loop.setdefault(job.future.get_loop(), []).append((job, result))
        for loop, pairs in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(_resolve, pairs)


def _resolve(pairs: list[tuple[Job, object]]) -> None:
    for job, result in pairs:
        if job.is_over:
            continue
        if isinstance(result, Exception):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)


def provenance(dtype: str) -> dict[str, str]:
    """What results record about this engine besides its name."""
    return {"dtype": dtype, "version": importlib.metadata.version("transformers")}


def load_model(checkpoint: Checkpoint, dtype: str, *, head: bool = True) -> PreTrainedModel:
    """The causal language model of a checkpoint (without its head if head=False), on the GPU if there is one.

    dtype "auto" is float32 on a CPU and the weights' own type on a GPU.
    """
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    torch.set_num_threads(1 if checkpoint.is_small else usable_cores())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto" and device == "cpu":
        dtype = "float32"
    kind = AutoModelForCausalLM if head else AutoModel
    return kind.from_pretrained(checkpoint.download(), dtype=dtype, trust_remote_code=False).eval().to(device)
