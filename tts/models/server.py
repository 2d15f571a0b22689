"""A client of vLLM's own server, which somebody has started and named by its URL (docs/servers.md).

Token ids go in and come out through its route /inference/v1/generate, with vLLM's own SamplingParams.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Sequence
from pathlib import PurePath

import aiohttp
import msgspec

from tts.errors import EngineError, InputError
from tts.models.checkpoint import Checkpoint
from tts.models.engines import Failed, Lost, Unreachable
from tts.models.host import sample_params, score_params

ROUTE = "/inference/v1/generate"
CONNECT = 10.0  # seconds to open a connection, or to answer a question that needs no engine
DROPPED = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)  # also by a server that was idle for some seconds
COUNTERS = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:iteration_tokens_total_sum")


class _LogProb(msgspec.Struct):
    token_id: int
    logprob: float
    top_logprobs: list[_LogProb] = []


class _LogProbs(msgspec.Struct):
    content: list[_LogProb]


class _Choice(msgspec.Struct):
    token_ids: list[int]
    logprobs: _LogProbs


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens_details: _Details | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage


_encode, _decode = msgspec.json.encode, msgspec.json.Decoder(_Answer).decode


class Server:
    """One of vLLM's own servers, as a Replica (tts.models.engines).

    context: tokens that a request and its answer may have together. parameter: of the notebook, for error messages.
    A key, where the server wants one, is read from VLLM_API_KEY, as the server itself does.
    """

    def __init__(self, url: str, checkpoint: Checkpoint, *, parameter: str) -> None:
        self._url, self._checkpoint, self._parameter = url, checkpoint, parameter
        self.label = f"{parameter}={url}"
        self.provenance = {"engine": "vllm", "device": "server", "dtype": "the server's"}
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._model = ""  # what the server calls it, once it was asked
        self._checking: asyncio.Task | None = None

    async def open(self) -> None:
        """See Replica.open. Raises InputError if the server serves another model, or not in the way that we need."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._session is not None:
                self._session.detach()  # its loop has ended
            _allow_files()
            self._loop = loop
            key = os.environ.get("VLLM_API_KEY", "")
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # requests are bounded elsewhere
                headers={"Authorization": f"Bearer {key}"} if key else {},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT),
            )
        if self._model:
            return
        if self._checking is None or self._checking.done() or self._checking.get_loop() is not loop:
            self._checking = loop.create_task(self._check())
        try:
            await asyncio.shield(self._checking)
        except InputError:
            await self.close()
            raise

    async def _check(self) -> None:
        """Ask what it serves, and its version."""
        try:
            models = await self._get("/v1/models")
            version = await self._get("/version")
        except Unreachable as error:  # for the first time: later it may come back
            raise InputError(f"{error}: start it and wait until it is ready, or take it out") from None
        try:
            served = msgspec.json.decode(models, type=dict)["data"]
            names = {one["id"]: one.get("root") or one["id"] for one in served}
            limits = {one["id"]: one.get("max_model_len") for one in served}
        except (msgspec.DecodeError, KeyError, TypeError):
            raise InputError(f"{self.label} is no vLLM server: its /v1/models can't be read") from None
        checkpoint = self._checkpoint
        ours = checkpoint.hub[0] if checkpoint.hub else checkpoint.path.name
        fitting = [
            name
            for name, root in names.items()
            if ours in ({name, root} if checkpoint.hub else {name, PurePath(root).name})
        ]
        if not fitting:
            raise InputError(
                f"{self.label} serves {', '.join(names) or 'nothing'}, not {checkpoint.parameter}={ours}: "
                "start it with this model, or name another server"
            )
        if (limit := limits[fitting[0]]) and limit < checkpoint.context:
            raise InputError(
                f"{self.label} serves {checkpoint.name} with a context of {limit} tokens, and {checkpoint.context} are "
                f"asked for: start it with --max-model-len {checkpoint.context}, or lower max_context"
            )
        self.provenance["version"] = str(msgspec.json.decode(version, type=dict).get("version", ""))
        self._model = fitting[0]

    async def _get(self, path: str) -> bytes:
        timeout = aiohttp.ClientTimeout(total=CONNECT)
        try:  # aiohttp itself tries a GET once more where an idle connection was closed
            async with self._session.get(self._url + path, timeout=timeout) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unreachable(f"{self.label} can't be reached ({_line(error)})") from None
        if response.status in (401, 403):
            raise InputError(f"{self.label} wants a key: set VLLM_API_KEY to the one that it was started with")
        if response.status >= 500:
            raise Unreachable(f"{self.label} answers {response.status} to {path}")
        if response.status != 200:
            raise InputError(f"{self.label} is no vLLM server: it answers {response.status} to {path}")
        return body

    async def send(self, kind: str, arguments: Sequence[object]) -> list:
        """See Replica.send."""
        make, read = REQUESTS[kind]
        ids, params = make(*arguments)
        body = _encode({"model": self._model, "token_ids": ids, "sampling_params": params})
        status, answer = await self._post(body)
        if status == 200:
            try:
                return read(_decode(answer))
            except (msgspec.DecodeError, IndexError) as error:
                raise EngineError(f"{self.label}: its answer can't be read ({_line(error)})") from None
        said = _error_text(answer)
        if status in (403, 404, 405):
            raise InputError(
                f"{self.label} takes no token ids ({status}: {said}): start it with --tokens-only or --enable-scale-out"
            )
        if status in (429, 502, 503, 504):
            raise await self._lost(f"answers {status} ({said})", Unreachable)
        if status >= 500:
            raise await self._lost(f"answers {status} ({said})")
        raise EngineError(f"{self.label} refused a request: {said}")

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        """(status, body) of the answer. An idle connection may have been closed when we wrote to it: one more try."""
        headers = {"Content-Type": "application/json"}
        for last in (False, True):
            try:
                async with self._session.post(self._url + ROUTE, data=body, headers=headers) as response:
                    return response.status, await response.read()
            except aiohttp.ClientConnectorError as error:
                raise Unreachable(f"{self.label} can't be reached ({_line(error)})") from None
            except (aiohttp.ClientError, TimeoutError) as error:
                if last or not isinstance(error, DROPPED):
                    raise await self._lost(f"ended in the midst of a request ({_line(error)})") from None
        raise AssertionError

    async def _lost(self, what: str, kind: type[Lost] = Lost) -> Lost:
        """The error for a request that went wrong: of this kind, or Failed if the server says that it is well."""
        try:
            await self._get("/health")
        except (EngineError, InputError):
            return kind(f"{self.label} {what}")
        return Failed(f"{self.label} {what}")

    async def mark(self) -> object:
        """See Replica.mark. None where the server doesn't say."""
        try:
            lines = (await self._get("/metrics")).decode().splitlines()
        except (EngineError, InputError):
            return None
        return tuple(line.rsplit(" ", 1)[1] for line in lines if line.startswith(COUNTERS)) or None

    async def close(self) -> None:
        """See Replica.close."""
        session, self._session, self._loop = self._session, None, None
        if session is not None:
            await session.close()


def _read_sample(answer: _Answer) -> list:
    choice = answer.choices[0]
    return [choice.token_ids, [one.logprob for one in choice.logprobs.content], _cached(answer)]


def _read_score(answer: _Answer) -> list:
    values = answer.choices[0].logprobs.content[0].top_logprobs
    return [{one.token_id: one.logprob for one in values}, _cached(answer)]


# kind -> (from the arguments to (prompt ids, SamplingParams), from the answer to the result): as in tts.models.host
REQUESTS = {"sample": (sample_params, _read_sample), "score": (score_params, _read_score)}


def _cached(answer: _Answer) -> int:
    """Prompt tokens from the prefix cache: 0 unless the server was started with --enable-prompt-tokens-details."""
    return (answer.usage.prompt_tokens_details or _Details()).cached_tokens or 0


def _line(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {CONNECT:g} s"
    return " ".join(str(error).split()) or type(error).__name__


def _error_text(answer: bytes) -> str:
    """What vLLM says in an error's answer, as one line."""
    try:
        text = msgspec.json.decode(answer, type=dict)["error"]["message"]
    except (msgspec.DecodeError, KeyError, TypeError):
        text = answer.decode(errors="replace")
    return " ".join(str(text).split())[:300] or "no text"


def _allow_files() -> None:
    """Allow a connection for each request in flight: the usual limit of 1,024 open files is below that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
