"""Processes that read answers and can be killed.

Each is started by module name (`python -m tts._answer_worker`) and talks JSON lines over pipes, one answer at a time, so the
parent always knows which answer a process is at when it dies or is late. multiprocessing, and pebble on top of it, was tried:
"spawn" and "forkserver" import the caller's main script again, which breaks a script without an `if __name__` guard and one
read from standard input, and "fork" copies the threads' locks of a notebook or an engine.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

START = 120.0  # seconds a worker may take to import its parser on a busy machine

Reply = list  # [key, status], the key as nested lists


class _Worker:
    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tts._answer_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C in the terminal is for the parent alone
        )
        self.received = b""
        self.task: int | None = None  # index of the answer it is at
        self.ready = False
        self.deadline = time.monotonic() + START

    def send(self, task: int, text: str, deadline: float) -> None:
        self.task, self.deadline = task, time.monotonic() + deadline
        try:
            self.process.stdin.write(json.dumps(text).encode() + b"\n")
        except BrokenPipeError:
            pass  # it has died: its output ends too, and that is where it is noticed

    def receive(self) -> bytes | None:
        """A whole line if there is one, b"" if the process has ended, None if there is more to come."""
        chunk = os.read(self.process.stdout.fileno(), 1 << 16)
        if not chunk:
            return b""
        self.received += chunk
        if b"\n" not in self.received:
            return None
        line, _, self.received = self.received.partition(b"\n")
        return line + b"\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Pool:
    """Workers that are started when they are first needed and stay for the next call."""

    def __init__(self) -> None:
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()

    def read(self, texts: Sequence[str], *, workers: int, deadline: float) -> list[Reply | None]:
        """The reply to each text; None where its worker died or took longer than deadline seconds."""
        with self._lock:
            try:
                return self._read(texts, workers, deadline)
            except (
                BaseException
            ):  # an interrupt too: whoever is at work would answer the next call with this one's result
                self._kill([worker for worker in self._workers if worker.task is not None or not worker.ready])
                raise

    def _read(self, texts: Sequence[str], limit: int, deadline: float) -> list[Reply | None]:
        replies: list[Reply | None] = [None] * len(texts)
        todo = iter(enumerate(texts))
        waiting = len(texts)  # answers without an outcome
        given = 0  # answers that a worker has been given
        with selectors.DefaultSelector() as selector:

            def give(worker: _Worker) -> None:
                nonlocal given
                if (task := next(todo, None)) is not None:
                    worker.send(*task, deadline)
                    given += 1

            def enlist(worker: _Worker) -> None:
                selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
                if worker.ready:
                    give(worker)

            def dismiss(worker: _Worker) -> None:
                nonlocal waiting
                selector.unregister(worker.process.stdout)
                if worker.task is not None:
                    waiting -= 1
                elif not worker.ready:
                    raise RuntimeError("a process that reads answers does not start: see its message on standard error")
                self._kill([worker])
                if given < len(texts):
                    self._workers.append(_Worker())
                    enlist(self._workers[-1])

            for worker in self._workers[:limit]:
                enlist(worker)
            while len(self._workers) < min(limit, len(texts)):
                self._workers.append(_Worker())
                enlist(self._workers[-1])
            while waiting:
                running = [key.data for key in selector.get_map().values()]
                busy = [worker.deadline for worker in running if worker.task is not None or not worker.ready]
                for key, _ in selector.select(max(0.0, min(busy) - time.monotonic())):
                    worker = key.data
                    line = worker.receive()
                    if line == b"":
                        dismiss(worker)
                    elif line is not None:
                        if worker.ready:
                            replies[worker.task] = json.loads(line)
                            worker.task = None
                            waiting -= 1
                        worker.ready = True
                        give(worker)
                for worker in running:
                    if (
                        worker in self._workers
                        and worker.deadline < time.monotonic()
                        and (worker.task is not None or not worker.ready)
                    ):
                        dismiss(worker)
        return replies

    def _kill(self, workers: Sequence[_Worker]) -> None:
        for worker in workers:
            self._workers.remove(worker)
            worker.kill()

    def close(self) -> None:
        """End the workers; the next read() starts new ones."""
        self._kill(list(self._workers))

    def forget(self) -> None:
        """In a forked child: the workers are the parent's."""
        self.__init__()


POOL = Pool()
atexit.register(POOL.close)
os.register_at_fork(after_in_child=POOL.forget)
