"""A notebook's cell that is interrupted while it samples, in a real kernel."""

from __future__ import annotations

import os
import queue
import time
from pathlib import Path

from jupyter_client.manager import start_new_kernel

SETUP = """
import asyncio
from tts.models.open import open_policy
from tts.policy import Sampling
policy = open_policy({directory!r}, engine={engine!r})
prompt = policy.prompt("find the sum")
async def draw(n, tokens):
    requests = [policy.sample(prompt, Sampling(max_tokens=tokens, seed=s)) for s in range(n)]
    # Without log-probabilities: on a busy machine the requests may come in two batches, which round otherwise.
    return [(drawn.token_ids, drawn.text, drawn.finish) for drawn in await asyncio.gather(*requests)]
first = await draw(5, 30)
"""


def interrupt_and_run_again(directory: Path, engine: str) -> None:
    """Interrupt a sampling cell as Jupyter does; the same cell run again gives what it gave before."""
    kernel, client = start_new_kernel(env=dict(os.environ))
    try:
        assert run(client, SETUP.format(directory=str(directory), engine=engine)) == "ok"
        # After an error a kernel aborts the cells that reach it too early, unless it is told not to.
        waiting = client.execute("while True: await draw(300, 200)", stop_on_error=False)
        time.sleep(1)
        kernel.interrupt_kernel()  # SIGINT to the kernel's process group
        assert reply(client, waiting) == "error"
        assert run(client, "assert await draw(5, 30) == first") == "ok"
        assert run(client, "await policy.close()") == "ok"
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def run(client, code: str) -> str:
    return reply(client, client.execute(code))


def reply(client, request: str) -> str:
    """The status of a cell's execution: "ok" or "error"."""
    end = time.monotonic() + 180
    while time.monotonic() < end:
        try:
            answer = client.get_shell_msg(timeout=1)
        except queue.Empty:
            continue
        if answer["parent_header"].get("msg_id") == request:
            if answer["content"]["status"] == "error":
                print("\n".join(answer["content"]["traceback"]))
            return answer["content"]["status"]
    raise AssertionError("the kernel does not answer")
