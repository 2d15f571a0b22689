"""What lies between a search and a GPU: our host beside vLLM's own server, with a made-up device under both.

vLLM's scheduler, output handling and front end are the real ones; only the device is a clock (bench/_made_up.py). Two
loads: "steps" of a policy of 1B, and "scores" of a PRM of 8B. "idle" is the share of time in which the device has
nothing to do: what the transport costs on a GPU. It depends on how many cores are free, processor time a request hardly
does. Requests are counted by the tokens that the device makes. "at most" is what a device that never waits would serve.

TTS_BENCH_SECONDS (8) is the time of each measurement after a warm-up of a third of it, TTS_BENCH_FRONT_ENDS (1,4) lists
the server's --api-server-count, and TTS_BENCH_SLOWER (1) makes the device slower by this factor, for a machine whose
cores do not keep up with a GPU: where idle comes down to nothing, the cores are enough for a GPU so many times as slow.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tts.errors import EngineError
from tts.models.checkpoint import Checkpoint, open_checkpoint
from tts.models.engines import Engines
from tts.models.host import running_hosts, stop_hosts
from tts.models.plan import known_config
from tts.models.server import Server
from tts.models.vllm import VllmClient, vllm_package
from tts.tiny import MODELS

ROOT = Path(__file__).parents[1]
ROW = "{:7} {:22} {:>10} {:>6} {:>9} {:>7} {:>8} {:>10} {:>7}"
PROBLEMS, PROMPT, CHILDREN = 32, 150, 4  # problems, the tokens of a prompt, next steps of one prefix
IN_FLIGHT = 1024  # requests
BLOCK = 32  # tokens, the smallest on a CPU
DEVICE = "bench._made_up.Device"
# The command `vllm`, which asks for the version of a package with that name; the build for CPUs has another.
SERVE = """
from importlib import metadata
from vllm.entrypoints.cli.main import main
from tts.models.vllm import vllm_package
version, package = metadata.version, vllm_package()[0]
metadata.version = lambda name: version(package) + "+cpu" * (package != "vllm") if name == "vllm" else version(name)
main()
"""


@dataclass(frozen=True)
class Load:
    """Requests of a kind, and a device for them."""

    kind: str  # "sample" or "score"
    context: int
    base: float  # seconds of a step at least
    rate: float  # tokens a second that it reads
    step: int  # tokens of a step of a solution
    model: str  # whose shape it has
    settings: dict  # of vLLM

    @property
    def most(self) -> float:
        """Requests a second that its device serves if it never waits; half a block of a prefix is read again."""
        return self.rate / (self.step + BLOCK / 2) if self.kind == "score" else 256 / self.base / self.step

    def requests(self, seed: int) -> Iterator[tuple]:
        """Arguments of requests without end: of a step, its CHILDREN alternatives; of a score, one that is new."""
        draw = random.Random(seed)
        bodies = [[draw.randrange(100, 100_000) for _ in range(PROMPT + 10 * self.step)] for _ in range(PROBLEMS)]
        for number in itertools.count():
            body = bodies[number % PROBLEMS]
            prefix = body[: PROMPT + self.step * (number // PROBLEMS % 10)]
            if self.kind == "score":
                yield [*prefix, *(draw.randrange(100, 100_000) for _ in range(self.step))], 10, 12
            else:
                for child in range(CHILDREN):
                    yield prefix, CHILDREN * number + child, 0.8, 1.0, self.step, None, [1]


LOADS = {
    # A step of a policy of 1B on an H100: weights, keys and values of 256 sequences, and sampling from 128,256 tokens.
    "steps": Load(
        kind="sample",
        context=4096,
        base=0.003,
        rate=200_000,
        step=40,
        model="meta-llama/Llama-3.2-1B-Instruct",
        settings={},
    ),
    # A PRM of 8B there: 2 x 8e9 operations a token, at about half of what the tensor cores do in 16 bits.
    "scores": Load(
        kind="score",
        context=8192,
        base=0.008,
        rate=30_000,
        step=50,
        model="RLHFlow/Llama3.1-8B-PRM-Deepseek-Data",
        settings={"max_num_batched_tokens": 8192},
    ),
}


def main() -> None:
    """Print one table."""
    if not vllm_package()[0]:
        print("left out: vLLM is not installed")
        return
    seconds = float(os.environ.get("TTS_BENCH_SECONDS") or "8")
    fronts = [int(one) for one in (os.environ.get("TTS_BENCH_FRONT_ENDS") or "1,4").split(",")]
    slower = float(os.environ.get("TTS_BENCH_SLOWER") or "1")
    print(f"{len(os.sched_getaffinity(0))} cores, {os.getloadavg()[0]:.1f} busy before it began; {seconds:g} s each")
    head = ("load", "transport", "requests/s", "idle", "in a step", "client", "engine", "front ends", "all")
    print(ROW.format(*head), "  (processor ms a request: client to all)", flush=True)
    for name, load in LOADS.items():
        with tempfile.TemporaryDirectory(prefix="tts-bench-") as scratch:
            folder = Path(scratch)
            model = make_up(folder / "model", load)
            checkpoint = open_checkpoint(str(model), max_context=load.context)
            os.environ["TTS_MADE_UP"] = f"{load.base * slower} {load.rate / slower} {folder / 'counters'}"
            counters(folder / "counters", "w+").flush()
            print(f"{name}: at most {load.most / slower:,.0f} requests a second")
            for front in (0, *fronts):
                way = host(checkpoint, load, folder) if not front else server(checkpoint, load, folder, front)
                with way as (replica, pid):
                    found = asyncio.run(
                        measure(Engines([replica], max_in_flight=IN_FLIGHT), load, pid, folder, seconds)
                    )
                title = f"server, {front} front end{'s' * (front > 1)}" if front else "host"
                print(ROW.format(name, title, *found), flush=True)


def counters(file: Path, mode: str) -> np.memmap:
    """(steps, seconds at work, tokens, sequences) of a device so far, shared between processes."""
    return np.memmap(file, np.float64, mode, shape=(4,))


def make_up(folder: Path, load: Load) -> Path:
    """A model of the load's shape without weights; the tokenizer is of no account."""
    import json

    from safetensors.numpy import save_file

    shutil.copytree(MODELS / "policy-xs", folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    ours = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0, "rms_norm_eps": 1e-5}
    config = known_config(load.model) | ours | {"max_position_embeddings": load.context}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({}, folder / "model.safetensors")
    return folder


class MadeUpClient(VllmClient):
    """The client of a host whose device is made up."""

    def __init__(self, checkpoint: Checkpoint, extra: dict) -> None:
        super().__init__(checkpoint, dtype="bfloat16", max_num_seqs=256, gpu_memory_utilization=0.9)
        self._extra = extra

    def _spec(self) -> dict:
        made = super()._spec()
        left_out = {"enable_chunked_prefill", "kv_cache_memory_bytes", "max_num_batched_tokens"}  # for a real CPU
        settings = {name: value for name, value in made["settings"].items() if name not in left_out}
        settings |= {"distributed_executor_backend": DEVICE, "load_format": "dummy"} | self._extra
        return made | {"settings": settings, "device": os.environ["TTS_MADE_UP"]}


@contextmanager
def host(checkpoint: Checkpoint, load: Load, folder: Path) -> Iterator[tuple[VllmClient, int | None]]:
    """Our host, which the first request starts."""
    os.environ["TTS_ENGINES"] = str(folder / "hosts")
    try:
        yield MadeUpClient(checkpoint, load.settings), None
    finally:
        stop_hosts()
        del os.environ["TTS_ENGINES"]


@contextmanager
def server(checkpoint: Checkpoint, load: Load, folder: Path, front: int) -> Iterator[tuple[Server, int]]:
    """vLLM's own server with so many front ends, started as docs/servers.md has it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"max_model_len": load.context, "max_num_seqs": 256, "block_size": BLOCK, **load.settings}
    settings |= {"api_server_count": front, "port": port, "host": "127.0.0.1", "distributed_executor_backend": DEVICE}
    options = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    flags = ["--tokens-only", "--enable-prompt-tokens-details", "--disable-uvicorn-access-log", "--enforce-eager"]
    log = folder / f"server-{front}.log"
    environment = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, "serve", str(checkpoint.path), *options, *flags],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
                break
            if process.poll() is not None:
                raise EngineError(f"vLLM's server did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.5)
        yield Server(url, checkpoint, parameter="policy_server"), process.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def measure(engines: Engines, load: Load, pid: int | None, folder: Path, seconds: float) -> list[str]:
    """The cells of a row; pid: of the server, None for the host."""
    requests = load.requests(0)

    async def go_on() -> None:
        for arguments in requests:  # shared: each takes the next
            await engines.request(load.kind, *arguments)

    await engines.request(load.kind, *next(requests))  # starts the host
    if pid is None:
        [(_, pid)] = running_hosts()
    tasks = [asyncio.ensure_future(go_on()) for _ in range(IN_FLIGHT)]
    await asyncio.sleep(seconds / 3)
    seen = counters(folder / "counters", "r")
    before, began = (*seen.copy(), time.process_time(), spent(pid)), time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    after = (*seen.copy(), time.process_time(), spent(pid))
    failed = [task.exception() for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await engines.close()
    if failed:
        raise failed[0]
    steps, busy, _, rows, client = (b - a for a, b in zip(before[:5], after[:5], strict=True))
    made = rows / (load.step if load.kind == "sample" else 1)  # those that end come in waves
    cpu = after[5] - before[5]
    each = [1000 * value / made for value in (client, cpu["engine"], cpu["front"], client + cpu.total())]
    return [
        f"{made / took:,.0f}",
        f"{max(0.0, 1 - busy / took):.0%}",  # a step counts when it begins
        f"{rows / steps:.0f}",
        *(f"{value:.2f}" for value in each),
    ]


def spent(pid: int) -> Counter[str]:
    """Processor seconds so far of a host or server with all that it started: the engine's process, and front ends."""
    found: Counter[str] = Counter()
    stats = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stats[int(folder.name)] = (folder / "stat").read_text().rsplit(")", 1)[1].split()
    for one, fields in stats.items():
        above = one
        while above in stats and above != pid:
            above = int(stats[above][1])
        if above == pid:
            with suppress(OSError):
                name = Path(f"/proc/{one}/cmdline").read_text()
                part = "engine" if "EngineCore" in name or "tts.models.host" in name else "front"
                found[part] += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


if __name__ == "__main__":
    main()
