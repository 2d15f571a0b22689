"""A process that reads answers: `python -m tts.answers.worker`. tts.answers.pool starts it and may kill it."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys

from tts.answers.form import TooLargeError, read
from tts.answers.values import scalar

MEMORY = 1 << 30  # bytes of address space; the parser alone takes a fifth of it
CPU_SECONDS = 5.0  # for one answer; the slowest one that passes the guards takes 1 s


def main() -> None:
    """Read normalised answers (JSON strings) from standard input and write [key or null, status] for each.

    An answer that takes more than CPU_SECONDS ends the process. It is this process's own time, so it doesn't matter how
    busy the machine is.
    """
    if sys.platform == "linux":  # other systems don't limit address space
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # so that nothing a library prints is taken for a reply
    os.dup2(nowhere, 2)
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            reply = [read(json.loads(line), scalar), "parsed"]
        except TooLargeError:
            reply = [None, "rejected"]
        except MemoryError:
            raise  # a new process starts with all memory free
        except Exception:  # UnreadableError, or anything unforeseen: one text must not stop the reading of others
            reply = [None, "text"]
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
