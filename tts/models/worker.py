"""What the policy and the scorer on transformers share: loading a model, and a thread that runs requests in batches."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import queue
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tts.errors import EngineError, InputError
from tts.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(eq=False)
class Job:
    """One request; its future gets the result, in any thread."""

    future: Future = field(default_factory=Future, kw_only=True)

    def answer(self, result: object) -> None:
        """Set the result, unless the request was cancelled."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_result(result)


class Runner(Protocol):
    """A loaded model, used by one thread."""

    def batches(self, jobs: list[Job]) -> Iterable[Sequence[Job]]:
        """The jobs in batches. Each batch is run before the next one is asked for."""

    def run(self, batch: list[Job]) -> None:
        """Answer all jobs of a batch. None of them is answered or cancelled yet."""


class Worker:
    """Runs jobs in a thread of its own, which loads the model for the first one.

    Jobs that arrive in one tick of the event loop, or while the thread is busy, are run together.
    """

    def __init__(self, load: Callable[[], Runner], *, pause: float = 0.0) -> None:
        self._load = load
        self._pause = pause  # seconds that the thread waits for more jobs
        self._thread: _Thread | None = None
        self._tick: tuple[asyncio.AbstractEventLoop, list[Job]] | None = None

    async def run(self, job: Job) -> object:
        """The job's result. Raises EngineError if the engine fails."""
        loop = asyncio.get_running_loop()
        if self._tick is None or self._tick[0] is not loop:
            self._tick = loop, []
            loop.call_soon(self._send, self._tick)
        self._tick[1].append(job)
        return await asyncio.wrap_future(job.future)

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
            self._thread = self._thread or _Thread(self._load, self._pause)
            self._thread.put(tick[1])


class _Thread:
    """An executor's thread: the interpreter waits for those at exit, while from others torch aborts the process."""

    def __init__(self, load: Callable[[], Runner], pause: float) -> None:
        self._load, self._pause = load, pause
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="transformers")
        self._inbox: queue.SimpleQueue[list[Job]] = queue.SimpleQueue()
        self._runner: Runner | None = None

    def put(self, jobs: list[Job]) -> None:
        self._inbox.put(jobs)
        self._executor.submit(self._run_all)

    def end(self) -> None:
        self._executor.shutdown(wait=False)

    def _run_all(self) -> None:
        """Run all waiting jobs; the calls for jobs that are run here find nothing."""
        if self._inbox.empty():
            return
        time.sleep(self._pause)
        jobs: list[Job] = []
        while not self._inbox.empty():
            jobs += self._inbox.get()
        with _failing(jobs):
            self._runner = self._runner or self._load()
            for batch in self._runner.batches(jobs):
                if waiting := [job for job in batch if not job.future.done()]:
                    with _failing(waiting):
                        self._runner.run(waiting)


@contextlib.contextmanager
def _failing(jobs: Sequence[Job]):
    """Give an error to all jobs without an answer: InputError and EngineError as they are, others as EngineError."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, InputError | EngineError):
            line = str(error).splitlines()[0] if str(error) else ""
            error = EngineError(f"transformers failed: {type(error).__name__}: {line}")
        for job in jobs:
            with contextlib.suppress(InvalidStateError):
                job.future.set_exception(error)


def provenance(dtype: str) -> dict[str, str]:
    """What results record about this engine besides its name."""
    return {"dtype": dtype, "version": importlib.metadata.version("transformers")}


def load_model(checkpoint: Checkpoint, dtype: str, *, head: bool = True) -> PreTrainedModel:
    """The causal language model of a checkpoint (without its head if head=False), on the GPU if there is one.

    dtype "auto" is float32 on a CPU and the weights' own type on a GPU.
    """
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    torch.set_num_threads(1 if checkpoint.is_small else len(os.sched_getaffinity(0)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto" and device == "cpu":
        dtype = "float32"
    kind = AutoModelForCausalLM if head else AutoModel
    return kind.from_pretrained(checkpoint.download(), dtype=dtype, trust_remote_code=False).eval().to(device)
