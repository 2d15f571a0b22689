"""A stand-in for vLLM's own server: the routes that tts.models.server uses, without a model, with faults on demand."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

from aiohttp import web

TOKENS = [26, 36, 32]


class FakeServer:
    """Answers with three tokens and the seed, or with two log-probabilities.

    faults: what the next requests get instead, in order: a status, "reset", or "hang" until let_go is set.
    """

    def __init__(self, model="policy-xs", *, context=1024, faults=(), metrics=True, hold=None, poison=None):
        self.model, self.context, self.faults, self.metrics = model, context, list(faults), metrics
        self.hold = hold  # an asyncio.Event that every answer waits for
        self.poison = poison  # a token: a prompt with it fails always
        self.requests = []  # bodies, of answered requests
        self.seen = Counter()  # connections, by request
        self.running = self.most = self.cut = 0
        self.drops_reused = False
        self.steps = 0
        self.key = ""
        self.tokens_only = self.is_well = True
        self.let_go = asyncio.Event()
        self.port = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    async def start(self):
        app = web.Application(middlewares=[self.guard])
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/version", self.version)
        app.router.add_get("/health", self.health)
        app.router.add_get("/metrics", self.count)
        app.router.add_post("/inference/v1/generate", self.generate)
        self.runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.01, access_log=None)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        return self

    async def stop(self):
        """As a kill does: connections end without an answer."""
        for handler in list(self.runner.server.connections) if self.runner.server else ():
            if handler.transport:
                handler.transport.abort()
        await self.runner.cleanup()

    @web.middleware
    async def guard(self, request, handler):
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.Response(status=401)
        return await handler(request)

    async def models(self, _):
        one = {"id": self.model, "root": f"/somewhere/{self.model}", "max_model_len": self.context}
        return web.json_response({"data": [one]})

    async def version(self, _):
        return web.json_response({"version": "0.0"})

    async def health(self, _):
        return web.Response(status=200 if self.is_well else 503)

    async def count(self, _):
        if not self.metrics:
            return web.Response(status=404)
        return web.Response(text=f'# TYPE\nvllm:generation_tokens_total{{engine="0"}} {self.steps}\n')

    async def generate(self, request):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self.answer(request)
        except asyncio.CancelledError:
            self.cut += 1
            raise
        finally:
            self.running -= 1

    async def answer(self, request):
        body = await request.json()
        self.seen[id(request.transport)] += 1
        if not self.tokens_only:
            return error(403, "Scale-out endpoints are disabled.")
        if self.poison in body["token_ids"]:
            return error(500, "EngineCore encountered an issue.")
        fault = self.faults.pop(0) if self.faults else None
        if fault == "reset" or (self.drops_reused and self.seen[id(request.transport)] > 1):
            request.transport.abort()
            await self.let_go.wait()  # is cancelled
        if fault == "hang":
            await self.let_go.wait()
        elif fault:
            return error(fault, "out of\nluck")
        if self.hold:
            await self.hold.wait()
        self.requests.append(body)
        params = body["sampling_params"]
        if answers := params.get("logprob_token_ids"):
            tokens = [one(7, -5.0, [value(7, -5.0), *(value(token, -1.0 - token) for token in answers)])]
        else:
            tokens = [one(token, -0.5, []) for token in [*TOKENS, 2 + params["seed"] % 90, 1]]
        choice = {"token_ids": [token["token_id"] for token in tokens], "logprobs": {"content": tokens}}
        return web.json_response({"choices": [choice | {"index": 0}], "usage": {"prompt_tokens": 3}})


def value(token, logprob):
    return {"token_id": token, "logprob": logprob, "rank": 1}


def one(token, logprob, top):
    return value(token, logprob) | {"top_logprobs": top}


def error(status, message):
    return web.json_response({"error": {"message": message, "code": status}}, status=status)


async def until(condition, task):
    """Wait for condition(); the task's error is raised if it ends before."""
    while not condition():
        assert not task.done() or task.result() is task, "it ended before"
        await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def running(*servers):
    for server in servers:
        await server.start()
    try:
        yield
    finally:
        for server in servers:
            server.let_go.set()
            await server.stop()
