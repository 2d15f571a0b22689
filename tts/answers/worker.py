"""A process that reads answers: `python -m tts.answers.worker`, started and if need be killed by tts.answers.pool."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys

from tts.answers.form import TooLargeError, read
from tts.answers.values import scalar

MEMORY = 1 << 30  # bytes of address space; the parser itself takes a fifth of it
CPU_SECONDS = 5.0  # for one answer; the slowest that the guards let through takes one


def main() -> None:
    """Normalised answers (JSON strings) on standard input, [key or null, status] for each on standard output.

    An answer that takes more than CPU_SECONDS of this process's own time ends the process, however busy the machine is.
    """
    if sys.platform == "linux":  # elsewhere address space has no limit that can be set
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # nothing that a library prints can pass for a reply
    os.dup2(nowhere, 2)
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            reply = [read(json.loads(line), scalar), "parsed"]
        except TooLargeError:
            reply = [None, "rejected"]
        except MemoryError:
            raise  # a new process has it all back
        except Exception:  # UnreadableError, or what nobody thought of: no text may stop the reading of others
            reply = [None, "text"]
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
