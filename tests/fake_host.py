"""The host as its clients start it, with a stand-in for vLLM: run as `python -m tts.models.host serve SPEC` would be.

A token of the prompt says what happens: 150 ends the process, 151 does the first time, 152 takes 8 seconds of steps.
"""

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from tts.models import host

MEMORY = (
    "Free memory on device cuda:0 (10.5/79.1 GiB) on startup is less than desired GPU memory utilization "
    "(0.9, 71.2 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)


class Engine:
    def __init__(self, once):
        self.waiting, self.once = {}, once  # once: the file that says whether 151 was seen

    def add_request(self, number, prompt, params):
        ids = prompt["prompt_token_ids"]
        if 150 in ids:
            os._exit(9)
        if 151 in ids and not self.once.exists():
            self.once.touch()
            os._exit(9)
        self.waiting[number] = params, time.monotonic() + 8 * (152 in ids)

    def abort_request(self, numbers):
        for number in numbers:
            self.waiting.pop(number, None)

    def has_unfinished_requests(self):
        return bool(self.waiting)

    def step(self):
        time.sleep(0.01)
        done = [number for number, (_, end) in self.waiting.items() if end <= time.monotonic()]
        return [self.output(number, *self.waiting.pop(number)) for number in done]

    def output(self, number, params, _):
        tokens = [26, 36, 32, 2 + params["seed"] % 90, 1]
        completion = SimpleNamespace(token_ids=tokens, logprobs=SimpleNamespace(logprobs=[-0.5] * len(tokens)))
        return SimpleNamespace(finished=True, request_id=number, outputs=[completion], num_cached_tokens=0)


def start(settings):
    if os.environ.get("FAKE_MEMORY"):
        raise ValueError(MEMORY + "\nmore\nlines")
    return Engine(spec_file.with_suffix(".once"))


spec_file = Path(sys.argv[-1])
host._start_vllm = start
host._sampling_params = lambda params: params
host.run_host(spec_file)
