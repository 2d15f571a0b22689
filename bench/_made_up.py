"""A made-up device under vLLM's real scheduler: it computes nothing, and a step takes the time that it is told.

vLLM takes the class below as its executor (distributed_executor_backend), in the server as in our host. As on a GPU the
next step is scheduled while one runs (async scheduling, which vLLM leaves out on a CPU).

TTS_MADE_UP: "BASE RATE FILE": a step takes BASE seconds, or as long as reading its tokens does at RATE a second; FILE
gets four numbers: steps, seconds at work, tokens and sequences so far.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import torch
from vllm.v1.executor.abstract import Executor
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.outputs import LogprobsLists, ModelRunnerOutput

from bench.transport import counters

MEMORY = 40 << 30  # bytes for keys and values
TOKEN = 7  # what every sequence says


class Device(Executor):
    """An executor whose model is a clock."""

    supported_tasks = ("generate",)

    def _init_executor(self) -> None:
        base, rate, file = os.environ["TTS_MADE_UP"].split(" ", 2)
        self._base, self._rate, self._counters = float(base), float(rate), counters(Path(file), "r+")
        self._ready = 0.0  # when the device has done all that it was given
        self._prompts: dict[str, tuple[int, list[int]]] = {}  # request -> (length of its prompt, tokens to rate)
        self.vllm_config.scheduler_config.async_scheduling = True

    @classmethod
    def supports_async_scheduling(cls) -> bool:
        """See Executor."""
        return True

    def determine_available_memory(self) -> list[int]:
        """See Executor."""
        return [MEMORY]

    def get_kv_cache_specs(self) -> list:
        """See Executor."""
        model, parallel = self.model_config, self.parallel_config
        spec = FullAttentionSpec(
            block_size=self.cache_config.block_size,
            num_kv_heads=model.get_num_kv_heads(parallel),
            head_size=model.get_head_size(),
            dtype=torch.bfloat16,
        )
        return [{f"model.layers.{i}.self_attn.attn": spec for i in range(model.get_num_layers(parallel))}]

    def collective_rpc(self, method, timeout=None, args=(), kwargs=None, non_block=False):
        """See Executor: there are no workers to tell anything."""
        return [None]

    def get_supported_kv_cache_layouts(self) -> list[list[str]]:
        """See Executor."""
        from vllm.v1.kv_cache_layout import KVCacheLayout

        return [[layout.name for layout in KVCacheLayout]]

    def compile_or_warm_up_model(self) -> None:
        """See Executor."""

    def check_health(self) -> None:
        """See Executor."""

    def execute_model(self, scheduler_output, non_block=False):
        """See Executor: begin a step. Its tokens come from sample_tokens."""
        done = Future()
        if not scheduler_output.total_num_scheduled_tokens:
            done.set_result(ModelRunnerOutput([], {}))
        else:
            self._batch = self._step(scheduler_output)
            done.set_result(None)
        return done if non_block else done.result()

    def sample_tokens(self, grammar_output, non_block=False):
        """See Executor."""
        return self._batch if non_block else self._batch.result()

    def _step(self, scheduled) -> Step:
        for request in scheduled.finished_req_ids:
            self._prompts.pop(request, None)
        for new in scheduled.scheduled_new_reqs:
            rated = new.sampling_params.logprob_token_ids or []
            self._prompts[new.req_id] = len(new.prompt_token_ids), rated
        cached = scheduled.scheduled_cached_reqs
        before = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        before |= {new.req_id: new.num_computed_tokens for new in scheduled.scheduled_new_reqs}
        ids = list(scheduled.num_scheduled_tokens)
        ends = [before[one] + scheduled.num_scheduled_tokens[one] >= self._prompts[one][0] for one in ids]
        rated = [self._prompts[one][1] for one in ids]
        rows = np.full((len(ids), 1 + max(map(len, rated))), TOKEN, dtype=np.int32)
        for row, tokens in zip(rows, rated, strict=True):
            row[1 : 1 + len(tokens)] = tokens
        tokens = scheduled.total_num_scheduled_tokens
        took = max(self._base, tokens / self._rate)
        self._ready = max(self._ready, time.perf_counter()) + took
        self._counters += (1, took, tokens, len(ids))
        values = LogprobsLists(rows, np.full(rows.shape, -1.0, np.float32), np.ones(len(ids), np.int32))
        sampled = [[TOKEN] if end else [] for end in ends]
        return Step(
            self._ready, ModelRunnerOutput(ids, {one: i for i, one in enumerate(ids)}, sampled, logprobs=values)
        )


class Step(Future):
    """A step's output, which is there at a given time."""

    def __init__(self, ready: float, output: ModelRunnerOutput) -> None:
        super().__init__()
        self._when, self._output = ready, output

    def done(self) -> bool:
        """Whether the device is through with it."""
        return time.perf_counter() >= self._when

    def result(self, timeout: float | None = None) -> ModelRunnerOutput:
        """The output, once the device is through with it."""
        time.sleep(max(0.0, self._when - time.perf_counter()))
        return self._output
