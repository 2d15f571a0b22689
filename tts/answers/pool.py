"""Processes that read answers and can be killed.

They are started by module name and exchange JSON lines over pipes, one answer at a time. So the pool always knows which
answer a process was reading when it died or was late. multiprocessing, also under pebble, was tried and doesn't work:
"spawn" and "forkserver" run the caller's main script again, which breaks a script without `if __name__ == "__main__"`
and one read from standard input (pebble 5.2: BrokenProcessPool); "fork" copies locks that other threads of a notebook
or an engine hold.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path

START = 600.0  # seconds to import the parser: half a second of work, but the machine may be starved
FAILED_STARTS = 3  # so many processes may be killed from outside before they are ready, in one call

Reply = list  # [key as nested lists or None, status]


class _Worker:
    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tts.answers.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))},
            start_new_session=True,  # Ctrl-C in a terminal is for the parent alone
        )
        self.ready = False  # it has printed "ready"
        self.task: int | None = None  # index of the answer that it is reading
        self.deadline = time.monotonic() + START
        self._received = b""

    def send(self, task: int, text: str, deadline: float) -> None:
        self.task, self.deadline = task, time.monotonic() + deadline
        with contextlib.suppress(BrokenPipeError):  # it has died: receive() will see that
            self.process.stdin.write(json.dumps(text).encode() + b"\n")

    def receive(self) -> bytes | None:
        """A line, None if there is no complete line yet, or b"" if the process has ended."""
        chunk = os.read(self.process.stdout.fileno(), 1 << 16)
        self._received += chunk
        line, newline, rest = self._received.partition(b"\n")
        if newline:
            self._received = rest
            return line + newline
        return None if chunk else b""

    def kill(self) -> int:
        """Kill the process if it is still running, and return its exit code."""
        self.process.kill()
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait()


class Pool:
    """Workers that start when they are first needed and stay for the next call."""

    def __init__(self) -> None:
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()

    def read(self, texts: Sequence[str], *, workers: int, deadline: float) -> list[Reply | None]:
        """The reply to each text, or None if it took more than deadline seconds or exceeded a worker's limits."""
        with self._lock:
            try:
                return self._read(texts, workers, deadline)
            except BaseException:  # an interrupt too: a busy worker would answer the next call with this call's reply
                for worker in list(self._workers):
                    if worker.task is not None or not worker.ready:
                        self._end(worker)
                raise

    def _read(self, texts: Sequence[str], limit: int, deadline: float) -> list[Reply | None]:
        replies: list[Reply | None] = [None] * len(texts)
        todo = deque(range(len(texts)))
        failed_starts = 0
        died: set[int] = set()  # tasks whose worker died
        for worker in list(self._workers):
            if worker.process.poll() is not None:  # killed since the last call
                self._end(worker)
        while todo or any(worker.task is not None for worker in self._workers):
            while len(self._workers) < min(limit, len(todo)):
                self._workers.append(_Worker())
            for worker in self._workers[:limit]:
                if todo and worker.ready and worker.task is None:
                    task = todo.popleft()
                    worker.send(task, texts[task], deadline)
            busy = [worker for worker in self._workers[:limit] if worker.task is not None or not worker.ready]
            for worker, line in _events(busy):
                task = worker.task
                if line:
                    if worker.ready:
                        replies[task] = json.loads(line)
                    worker.ready, worker.task = True, None
                    continue
                code = self._end(worker)
                if task is None:
                    failed_starts += 1
                    if code >= 0 or failed_starts > FAILED_STARTS:
                        raise RuntimeError(
                            f"a process that reads answers ended as it started ({code}): see standard error"
                        )
                    continue
                # No second try after a time limit; one more after any other death (out of memory, killed).
                if line is not None and code != -signal.SIGPROF and task not in died:
                    died.add(task)
                    todo.appendleft(task)
        return replies

    def _end(self, worker: _Worker) -> int:
        self._workers.remove(worker)
        return worker.kill()

    def close(self) -> None:
        """End the workers; the next read() starts new ones."""
        for worker in list(self._workers):
            self._end(worker)

    def forget(self) -> None:
        """Called in a forked child, whose workers belong to the parent: close its copies of their pipes."""
        for worker in self._workers:
            worker.process.returncode = 0  # the parent waits for it
            worker.process.stdin.close()
            worker.process.stdout.close()
        self.__init__()


def _events(busy: Sequence[_Worker]) -> Iterator[tuple[_Worker, bytes | None]]:
    """The next events: (worker, line), (worker, b"") if it has ended, or (worker, None) if it is late."""
    timeout = min(worker.deadline for worker in busy) - time.monotonic()
    heard = wait([worker.process.stdout for worker in busy], max(0.0, timeout))
    for worker in busy:
        if worker.process.stdout in heard:
            if (line := worker.receive()) is not None:
                yield worker, line
        elif time.monotonic() > worker.deadline:
            yield worker, None


def usable_cores() -> int:
    """The cores that this process may run on, which a batch system or a container may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


POOL = Pool()
atexit.register(POOL.close)
os.register_at_fork(after_in_child=POOL.forget)
