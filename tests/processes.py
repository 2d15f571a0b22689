"""Processes that a test starts, and that never outlive it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager


@contextmanager
def started(*arguments: str, **settings: object):
    """A Python process with pipes, started and not waited for; killed at the end. settings: of subprocess.Popen."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([sys.executable, *arguments], text=True, **pipes | settings)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
