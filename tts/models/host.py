"""The host: one process that runs vLLM for all notebooks and scripts of a user, and exits when idle.

    python -m tts.models.host list     the running hosts
    python -m tts.models.host stop     stop them all

A client (tts.models.vllm) starts the host in a session of its own, so that an interrupt of a notebook never reaches it,
and talks to it over a Unix socket in a folder that only the user may enter. vLLM runs inside the host process, without
an engine process of its own: it starts three times faster (one import instead of three), and a step costs no messages
between processes. If vLLM dies, the host dies with it and nothing else does.

Messages are msgpack arrays behind a 4-byte length; a frame carries all messages of one tick of the event loop:
    client to host   [id, kind, argument…]     kinds: "sample", "score", "classify", "abort", "status"
    host to client   [id, error or null, result]; with the id BEAT the number of steps so far, while they go on
A host ends when no client has been connected for TTS_ENGINE_IDLE seconds (60), on SIGTERM, or when vLLM fails. Whoever
starts or runs a host holds a lock on its lock file: a free lock means that no host is running.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from tts.errors import InputError
from tts.models.plan import USABLE

PROTOCOL = 3  # part of a host's key, so a client never meets a host with another protocol
GREETING, BEAT = -1, -2  # the ids of what answers no request
_pack, _unpack = msgspec.msgpack.encode, msgspec.msgpack.decode


SOCKET_FOLDER = 80  # the longest path, in bytes, of a folder for sockets: a socket's own path has 103 (macOS) to 107


def temporary_directory() -> Path:
    """A temporary folder whose path leaves room for a socket's: the usual one, or /tmp where that is too long."""
    usual = Path(tempfile.gettempdir())
    return usual if len(os.fsencode(usual)) <= SOCKET_FOLDER - 30 else Path("/tmp")


def runtime_directory() -> Path:
    """The folder of the hosts' sockets, locks and logs: $TTS_ENGINES, or one of the user's in temporary_directory()."""
    named = os.environ.get("TTS_ENGINES")
    path = Path(named).absolute() if named else temporary_directory() / f"tts-engines-{os.getuid()}"
    if len(os.fsencode(path)) > SOCKET_FOLDER:
        raise InputError(f"TTS_ENGINES: {path} is too long for a socket's path: name a shorter directory")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"TTS_ENGINES: {path} can't be made ({error.strerror}): name a directory you can write to"
        ) from None
    if path.stat().st_uid != os.getuid() or path.stat().st_mode & 0o077:
        raise InputError(f"TTS_ENGINES: {path} is open to other users: chmod 700 it, or name another directory")
    return path


def encode_frame(messages: list) -> bytes:
    """Messages as the bytes of one frame."""
    body = _pack(messages)
    return len(body).to_bytes(4, "big") + body


async def read_frame(reader: asyncio.StreamReader) -> list:
    """The messages of the next frame; asyncio.IncompleteReadError at the end of the connection."""
    return _unpack(await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big")))


class Outbox:
    """Collects messages and writes those of one tick of the event loop as one frame."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._messages: list = []

    def send(self, message: list) -> None:
        """Send message in one frame with the others of this tick."""
        if not self._messages:
            asyncio.get_running_loop().call_soon(self._flush)
        self._messages.append(message)

    def _flush(self) -> None:
        messages, self._messages = self._messages, []
        if not self._writer.is_closing():
            self._writer.write(encode_frame(messages))


class Engine(threading.Thread):
    """vLLM's engine in a thread of its own, which steps it while there are requests."""

    def __init__(self, settings: dict, deliver: Callable[[list], None]) -> None:
        super().__init__(daemon=True)
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._deliver = deliver  # called in this thread with a list of (request id, error or None, result)
        self._engine = _start_vllm(settings)
        self.served = self.steps = 0

    def put(self, request_id: str, kind: str, arguments: list) -> None:
        """Queue a request, or the "abort" of one. Any thread may call this."""
        self._inbox.put((request_id, kind, arguments))

    def run(self) -> None:
        """The thread's loop. An error in vLLM ends the whole process."""
        try:
            while True:
                self._step()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)  # clients see the connection close; there is nothing to clean up

    def _step(self) -> None:
        done = []
        while not self._inbox.empty() or not self._engine.has_unfinished_requests():
            request_id, kind, arguments = self._inbox.get()
            if kind == "abort":
                self._engine.abort_request([request_id])
                continue
            try:
                prompt, params = REQUESTS[kind][0](*arguments)
                params = _pooling_params(params) if kind == "classify" else _sampling_params(params)
                self._engine.add_request(request_id, {"type": "token", "prompt_token_ids": prompt}, params)
            except Exception as error:  # only this request is wrong
                done.append((request_id, f"{type(error).__name__}: {error}", None))
                break
        for output in self._engine.step() if self._engine.has_unfinished_requests() else ():
            if output.finished:
                done.append((output.request_id, None, output))
        self.steps += 1
        if done:
            self.served += len(done)
            self._deliver(done)


def _start_vllm(settings: dict):
    from vllm.config import PoolerConfig
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    if pooler := settings.get("pooler_config"):
        settings = settings | {"pooler_config": PoolerConfig(**pooler)}
    return LLMEngine.from_engine_args(EngineArgs(**settings))


def _sampling_params(params: dict):
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    made = SamplingParams(**params, flat_logprobs=True, output_kind=RequestOutputKind.FINAL_ONLY, skip_clone=True)
    made.stop_token_ids = frozenset(made.stop_token_ids)  # vLLM looks every token up in it: docs/servers.md
    return made


def _pooling_params(params: dict):
    from vllm.pooling_params import PoolingParams

    return PoolingParams(task="token_classify", use_activation=False, **params)


def sample_params(prefix, seed, temperature, top_p, max_tokens, stop, stop_ids) -> tuple[list[int], dict]:
    """(prompt ids, vLLM's SamplingParams as a dict) of a "sample" request."""
    return prefix, {
        "seed": seed if temperature else None,
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "ignore_eos": True,  # the ends of the turn are among stop_ids
        "stop_token_ids": stop_ids,
        "stop": stop,
        "include_stop_str_in_output": True,
        "detokenize": stop is not None,
        "logprobs": 0,  # the sampled token's own, before temperature and top_p
    }


def score_params(prefix, good, bad) -> tuple[list[int], dict]:
    """As sample_params, of a "score" request: the log-probabilities of two answers as the next token."""
    answers = [good, bad, bad]  # a server returns as many values as are asked for, the sampled token's first
    return prefix, {
        "temperature": 0.0,
        "max_tokens": 1,
        "ignore_eos": True,
        "detokenize": False,
        "logprobs": len(answers),
        "logprob_token_ids": answers,
    }


def classify_params(ids, use_cache) -> tuple[list[int], dict]:
    """(token ids, PoolingParams as a dict) of a "classify" request: logits of all tokens that no cache has."""
    return ids, {"skip_reading_prefix_cache": not use_cache}  # vLLM's default is to skip


def _sample_result(output) -> list:
    completion = output.outputs[0]
    return [list(completion.token_ids), list(completion.logprobs.logprobs), output.num_cached_tokens or 0]


def _score_result(output) -> list:
    values = output.outputs[0].logprobs  # of the two tokens asked for, and of the sampled one
    return [dict(zip(values.token_ids, values.logprobs, strict=True)), output.num_cached_tokens or 0]


def _classify_result(output) -> list:
    return [output.outputs.data.tolist(), output.num_cached_tokens]


# kind -> (from the arguments to (prompt ids, vLLM's parameters), from vLLM's finished output to the result)
REQUESTS = {
    "sample": (sample_params, _sample_result),
    "score": (score_params, _score_result),
    "classify": (classify_params, _classify_result),
}


class Host:
    """Serves one engine to all clients."""

    def __init__(self, spec: dict, socket: Path, idle: float) -> None:
        self._spec, self._socket, self._idle = spec, socket, idle
        self._clients: dict[int, Outbox] = {}
        self._waiting: dict[str, tuple[int, int, str]] = {}  # request id -> (client, the client's id, kind)
        self._numbers = iter(range(sys.maxsize))
        self._last_seen = time.monotonic()

    async def serve(self) -> None:
        """Start the engine, then serve until SIGTERM, or until no client has been connected for the idle time."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        self._engine = Engine(self._spec["settings"], lambda done: loop.call_soon_threadsafe(self._answer, done))
        self._engine.start()
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        server = await asyncio.start_unix_server(self._client, self._socket)
        print("ready", flush=True)
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), timeout=min(1.0, self._idle))
            for client in {client for client, *_ in self._waiting.values()} & self._clients.keys():
                self._clients[client].send([BEAT, None, self._engine.steps])
            if not self._clients and time.monotonic() - self._last_seen > self._idle:
                print(f"no client for {self._idle:g} s", flush=True)
                break
        self._socket.unlink(missing_ok=True)
        server.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(self._numbers)
        outbox = self._clients[number] = Outbox(writer)
        outbox.send([GREETING, None, os.getpid()])
        try:
            while True:
                for request, kind, *arguments in await read_frame(reader):
                    if kind == "status":
                        outbox.send([request, None, self._status()])
                    elif kind == "abort":
                        if self._waiting.pop(f"{number}-{request}", None):
                            self._engine.put(f"{number}-{request}", kind, arguments)
                    else:
                        self._waiting[f"{number}-{request}"] = number, request, kind
                        self._engine.put(f"{number}-{request}", kind, arguments)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for request_id in [key for key, (client, *_) in self._waiting.items() if client == number]:
                del self._waiting[request_id]
                self._engine.put(request_id, "abort", [])
            del self._clients[number]
            self._last_seen = time.monotonic()
            writer.close()

    def _answer(self, done: list) -> None:
        for request_id, error, output in done:
            client, request, kind = self._waiting.pop(request_id, (None, None, None))
            if client in self._clients:
                self._clients[client].send([request, error, None if error else REQUESTS[kind][1](output)])

    def _status(self) -> dict:
        return {
            "pid": os.getpid(),
            "model": self._spec["name"],
            "clients": len(self._clients) - 1,  # without the one that asks
            "waiting": len(self._waiting),
            "served": self._engine.served,
        }


def run_host(spec_file: Path) -> None:
    """Run the host that spec_file describes until it ends, then exit."""
    spec = json.loads(spec_file.read_text())
    socket = spec_file.with_suffix(".sock")
    socket.unlink(missing_ok=True)
    try:
        asyncio.run(Host(spec, socket, float(os.environ.get("TTS_ENGINE_IDLE") or 60)).serve())
    except BaseException as error:
        import traceback

        traceback.print_exc()
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        spec_file.with_suffix(".error").write_text(f"{type(error).__name__}: {line}"[:500], encoding="utf-8")
        os._exit(1)
    os._exit(0)  # without waiting for vLLM's threads and atexit hooks


def running_hosts() -> list[tuple[Path, int]]:
    """(spec file, process id) of every host that is starting or running."""
    found = []
    for pid_file in sorted(runtime_directory().glob("*.pid")):
        if is_locked(pid_file.with_suffix(".lock")):
            found.append((pid_file.with_suffix(".json"), int(pid_file.read_text())))
    return found


def is_locked(path: Path) -> bool:
    """Whether the host of this lock file is starting or running."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def stop_hosts(*, grace: float = 10.0) -> int:
    """Stop every host: SIGTERM, then SIGKILL to the process group of any host still running after grace seconds."""
    hosts = running_hosts()
    for number, kill in ((signal.SIGTERM, os.kill), (signal.SIGKILL, os.killpg)):
        for spec_file, pid in hosts:
            if is_locked(spec_file.with_suffix(".lock")):
                with contextlib.suppress(ProcessLookupError):
                    kill(pid, number)
        end = time.monotonic() + grace
        while time.monotonic() < end and any(is_locked(spec_file.with_suffix(".lock")) for spec_file, _ in hosts):
            time.sleep(0.05)
    return len(hosts)


@contextlib.asynccontextmanager
async def a_start(*, on_gpu: bool, devices: str = "") -> AsyncIterator[None]:
    """One host at a time starts on a GPU: two would take each other's memory for their own.

    devices: the GPUs, as CUDA_VISIBLE_DEVICES has them; "" for any of them, so that nothing else starts meanwhile.
    """
    wanted = {"start": fcntl.LOCK_SH if devices else fcntl.LOCK_EX}
    wanted |= {f"start-{gpu}": fcntl.LOCK_EX for gpu in sorted(devices.split(",")) if gpu}
    with contextlib.ExitStack() as held:
        for name, kind in wanted.items() if on_gpu else ():  # always in this order, so that no two wait for each other
            lock = held.enter_context((runtime_directory() / f"{name}.lock").open("a"))
            while True:
                try:
                    fcntl.flock(lock, kind | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.1)
        yield


async def make_room(spec: dict) -> None:
    """End the hosts without a client on the GPUs of spec, if its share does not fit beside them."""
    beside, taken = [], _share(spec)
    for spec_file, pid in running_hosts():
        other = json.loads(spec_file.read_text())
        if other != spec and _share(other) and _overlap(spec["devices"], other["devices"]):
            beside.append((spec_file, pid))
            taken += _share(other)
    if not _share(spec) or taken <= USABLE + 0.001:
        return
    ended = []
    for spec_file, pid in beside:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):  # it starts or ends
            state = await asyncio.wait_for(_ask_status(spec_file.with_suffix(".sock")), timeout=5)
            if not state["clients"]:
                os.kill(pid, signal.SIGTERM)
                ended.append(spec_file.with_suffix(".lock"))
    end = time.monotonic() + 30  # vLLM says what is missing if one takes longer
    while any(map(is_locked, ended)) and time.monotonic() < end:
        await asyncio.sleep(0.1)


def _share(spec: dict) -> float:
    """The share of its GPUs that a host takes; 0 on a CPU."""
    return spec["settings"].get("gpu_memory_utilization", 0.0)


def _overlap(one: str, other: str) -> bool:
    """Whether two lists of GPUs, as CUDA_VISIBLE_DEVICES has them, name one in common; "" names all."""
    return not (one and other) or bool(set(one.split(",")) & set(other.split(",")))


async def _ask_status(socket: Path) -> dict:
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(encode_frame([[0, "status"]]))
    while True:
        for request, _, result in await read_frame(reader):
            if request == 0:
                writer.close()
                return result


def main(arguments: list[str]) -> int:
    """The command line: list, stop, and serve (which clients call)."""
    if arguments[:1] == ["serve"] and len(arguments) == 2:
        run_host(Path(arguments[1]))
    elif arguments == ["stop"]:
        print(f"{stop_hosts()} engine host(s) stopped")
    elif arguments == ["list"]:
        for spec_file, pid in running_hosts():
            name = json.loads(spec_file.read_text())["name"]
            try:
                state = asyncio.run(asyncio.wait_for(_ask_status(spec_file.with_suffix(".sock")), timeout=5))
                print("{model}: process {pid}, {clients} client(s), {waiting} waiting, {served} served".format(**state))
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                print(f"{name}: process {pid}, starting or ending")
    else:
        print("usage: python -m tts.models.host list | stop", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
