"""The replicas of one model as one engine: what the host on this machine and vLLM's servers behind URLs share.

All requests of a problem go to the same replica, so that its prefixes are in one cache. What happens to a request if
- its replica can't be reached, or was lost and does not start again: it goes to another one; if there is none, it waits
  up to `patience` seconds for one;
- its engine ends, or answers that it failed: it is sent again, TRIES times in all, because the request itself may be
  what ends engines;
- no answer and no token comes from its replica for `patience` seconds: it goes to another one, if there is one.
  Starting an engine and downloading its model may take as long as they take;
- the engine refuses it: EngineError at once.
A replica that ended is left out, for half a second at first, up to half a minute later on.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol

from tts.errors import EngineError

IN_FLIGHT = 1024  # requests a replica: four times what vLLM decodes at once
PATIENCE = 1800.0  # seconds
TRIES = 3
PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds


class Lost(EngineError):
    """The engine ended while it served this request, which may be sent again."""


class Unreachable(Lost):
    """The request never got to the engine."""


class NotStarted(Unreachable):
    """The engine, which is ours to start, does not start: another try does not help where it is the only one."""


class Failed(Lost):
    """The engine is well, but failed with this request."""


class Hung(Lost):
    """The engine made no progress for as long as patience allows."""


class Replica(Protocol):
    """One engine behind some transport."""

    label: str  # what error messages call it
    provenance: dict[str, str]

    async def open(self) -> None:
        """Reach the engine, starting it where that is ours to do. Costs nothing when it is open already.

        Raises InputError where the user has to do something, Unreachable where another try may help.
        """

    async def send(self, kind: str, arguments: Sequence[object]) -> list:
        """The answer to a request of a kind in tts.models.host.REQUESTS. Raises Lost, or EngineError if refused."""

    async def mark(self) -> object:
        """Something that changes whenever the engine has decoded or read a token; None where it can't be had."""

    async def close(self) -> None:
        """Close the connection. The next open() opens another."""


class Engines:
    """Sends requests to the replicas of one model.

    max_in_flight: requests at the engines at once, a replica; the others wait here, in order. 0 for IN_FLIGHT.
    patience: seconds, see above.
    """

    def __init__(self, replicas: Sequence[Replica], *, max_in_flight: int = 0, patience: float = PATIENCE) -> None:
        self._replicas = [_Watched(replica) for replica in replicas]
        self.room = (max_in_flight or IN_FLIGHT) * len(replicas)  # requests at once
        self._patience = patience
        self._rank = lru_cache(maxsize=1 << 14)(self._rank)
        self._met = False
        self._gate: _Gate | None = None
        self._out_since: float | None = None  # when the last replica was lost
        self.provenance = replicas[0].provenance

    @property
    def is_one(self) -> bool:
        """Whether there is one replica, so that a request's problem is of no account."""
        return len(self._replicas) == 1

    @property
    def progress(self) -> object:
        """See ModelPolicy.progress."""
        starting = any(replica.is_opening for replica in self._replicas)
        return sum(replica.progress for replica in self._replicas), starting and time.monotonic()

    async def request(self, kind: str, *arguments: object, problem: Sequence[int] = ()) -> list:
        """The answer to one request; problem: the token ids that all requests of its problem begin with."""
        return (await self.requests(kind, [arguments], problem=problem))[0]

    async def requests(
        self, kind: str, many: Sequence[Sequence[object]], *, problem: Sequence[int] = ()
    ) -> Sequence[list]:
        """The answers to requests that are sent together, in this order. Raises EngineError if one of them fails."""
        key = b"" if self.is_one else repr(tuple(problem)).encode()
        if not self._met:  # what is wrong with any of them is said before anything is sampled
            await asyncio.gather(*(replica.open() for replica in self._replicas))
            self._met = True
        async with self._gate_here().room(len(many)):
            if len(many) == 1:
                return [await self._answer(kind, many[0], key)]
            tasks = [asyncio.ensure_future(self._answer(kind, one, key)) for one in many]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    async def close(self) -> None:
        """Close the connections. The next request opens others."""
        for replica in self._replicas:
            await replica.close()

    def _gate_here(self) -> _Gate:
        """The gate of the running event loop: what another loop has left behind is forgotten."""
        loop = asyncio.get_running_loop()
        if self._gate is None or self._gate.loop is not loop:
            self._gate = _Gate(loop, self.room)
        return self._gate

    async def _answer(self, kind: str, arguments: Sequence[object], key: bytes) -> list:
        tries = 0
        while True:
            replica = await self._choose(key)
            try:
                answer = await replica.ask(kind, arguments, self._patience)
            except Lost as error:
                self._leave_out(replica, error)
                tries += not isinstance(error, Unreachable)
                if tries == TRIES or (isinstance(error, (Hung, NotStarted)) and self.is_one):
                    raise EngineError(str(error)) from None
                replica.progress += 1  # it goes elsewhere
                if isinstance(error, Failed):
                    await asyncio.sleep(PAUSE * 2**tries)
            else:
                self._out_since = None
                return answer

    async def _choose(self, key: bytes) -> _Watched:
        """The first replica of a problem's order that is not left out; waits for one if there is none."""
        while True:
            now = time.monotonic()
            present = [replica for replica in self._rank(key) if replica.left_out <= now]
            if present:
                return present[0]
            self._out_since = self._out_since or now
            if now - self._out_since > self._patience:
                raise EngineError(f"no engine for {self._patience:g} s: {self._replicas[0].last_error}")
            await asyncio.sleep(max(0.01, min(replica.left_out for replica in self._replicas) - now))

    def _rank(self, key: bytes) -> list[_Watched]:
        """The order in which a problem prefers the replicas (rendezvous hashing: a lost one moves only its own)."""
        return sorted(self._replicas, key=lambda one: blake2b(one.engine.label.encode() + key).digest())

    def _leave_out(self, replica: _Watched, error: Lost) -> None:
        now = time.monotonic()
        if isinstance(error, Failed) or replica.left_out > now:
            return
        replica.left_out = now + min(PAUSE * 2**replica.losses, LONGEST_PAUSE)
        if replica.losses == 0:
            others = sum(other.left_out <= now for other in self._replicas)
            then = f"its problems go on at {others} other(s)" if others else "trying again"
            print(f"{error}: {then}", file=sys.stderr, flush=True)
        replica.losses += 1
        replica.last_error = str(error)


class OnEngines:
    """What the policy and the scorer have that send their requests to engines."""

    _engines: Engines

    @property
    def progress(self) -> object:
        """See ModelPolicy.progress."""
        return self._engines.progress

    @property
    def room(self) -> int:
        """Requests that are worth having in flight."""
        return self._engines.room

    async def close(self) -> None:
        """Close the connections. A host keeps running for other clients and exits when it has none."""
        await self._engines.close()


class _Watched:
    """A replica, and what is known about it."""

    def __init__(self, engine: Replica) -> None:
        self.engine = engine
        self.left_out = 0.0  # until when (time.monotonic)
        self.losses = 0  # since its last answer
        self.last_error = ""
        self.progress = 0  # answers, and looks at which it had gone on
        self._opening = 0
        self._waiting: set[asyncio.Timeout] = set()
        self._watcher: asyncio.Task | None = None

    @property
    def is_opening(self) -> bool:
        """Whether a request waits for the engine to start."""
        return self._opening > 0

    async def open(self) -> None:
        """See Replica.open."""
        self._opening += 1
        try:
            await self.engine.open()
        finally:
            self._opening -= 1

    async def close(self) -> None:
        """See Replica.close. The watch ends first: a look that is under way would open a connection again."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None and watcher.get_loop() is asyncio.get_running_loop():
            watcher.cancel()
            await asyncio.wait([watcher])
        await self.engine.close()

    async def ask(self, kind: str, arguments: Sequence[object], patience: float) -> list:
        """The answer. Raises Hung if there is neither an answer nor a token from this replica for patience seconds."""
        await self.open()
        try:
            async with asyncio.timeout(None) as limit:
                self._waiting.add(limit)
                self._watch(patience)
                try:
                    answer = await self.engine.send(kind, arguments)
                finally:
                    self._waiting.discard(limit)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Hung(f"{self.engine.label}: no answer and no token for {patience:g} s") from None
        self.progress += 1
        self.losses = 0
        return answer

    def _watch(self, patience: float) -> None:
        loop = asyncio.get_running_loop()
        if self._watcher is None or self._watcher.done() or self._watcher.get_loop() is not loop:
            self._watcher = loop.create_task(self._look(patience))

    async def _look(self, patience: float) -> None:
        """While requests wait, look now and then whether the engine goes on; if not, end their waiting."""
        seen, mark, since = self.progress, None, time.monotonic()
        while self._waiting:
            await asyncio.sleep(min(patience / 5, 10.0))
            now = time.monotonic()
            if self.progress == seen:
                new = await self.engine.mark()
                if new == mark:
                    if now - since >= patience:
                        for limit in self._waiting:
                            limit.reschedule(asyncio.get_running_loop().time())
                        return
                    continue
                mark = new
                self.progress += 1
            seen, since = self.progress, now


class _Gate:
    """Lets so many requests pass at once, groups together and in order of arrival."""

    def __init__(self, loop: asyncio.AbstractEventLoop, room: int) -> None:
        self.loop = loop
        self._free = room
        self._waiting: deque[tuple[asyncio.Future, int]] = deque()

    @asynccontextmanager
    async def room(self, count: int) -> AsyncIterator[None]:
        """Enter as soon as anything is free: a group is not divided, so it may take more than there is."""
        if self._free > 0 and not self._waiting:
            self._free -= count
        else:
            place = self.loop.create_future(), count
            self._waiting.append(place)
            try:
                await place[0]
            except asyncio.CancelledError:
                if not place[0].cancelled():  # let in at the same time
                    self._leave(count)
                raise
        try:
            yield
        finally:
            self._leave(count)

    def _leave(self, count: int) -> None:
        self._free += count
        while self._free > 0 and self._waiting:
            future, wanted = self._waiting.popleft()
            if not future.done():  # done: cancelled
                future.set_result(None)
                self._free -= wanted
