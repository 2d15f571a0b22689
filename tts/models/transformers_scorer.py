"""The transformers engine as a step scorer: batched forward passes in a thread of this process, on any machine.

It runs where vLLM can't, and for small models it is faster. What the solutions of a problem have in common is read
once: waiting requests form a tree of tokens, whose branches wait for the keys and values of what stands before them.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from tts.models.checkpoint import Checkpoint
from tts.models.formats import Format, Layout
from tts.models.heads import Head, load_head
from tts.models.llama import Llama, is_kin, tolerance
from tts.models.prefix_cache import PrefixCache, Segment
from tts.models.reading import FlatReader, Reader, Row, make_batches
from tts.models.scoring import ModelScorer, common
from tts.models.worker import Answers, InWorker, Job, Worker, provenance

# So many of the nodes that can be read are sorted for a batch. With many problems at N = 256 ten thousand wait, and
# sorting them all for each batch took a fifth of the time.
LOOKED_AT = 1024


@dataclass(eq=False)
class _Request(Job):
    """The scores that are wanted of one solution."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    ends: tuple[int, ...]  # where a known prefix may end: the problem's beginning, then each step
    keep: bool  # whether later requests may continue this one
    scores: dict[int, float] = field(default_factory=dict)  # by position


@dataclass(eq=False)
class _Node(Row):
    """Tokens that some requests have in common, behind others that more requests have in common."""

    key: object  # among its siblings: its first token, or all of a problem's beginning
    number: int  # in order of arrival
    stays: bool = False  # whether its segment goes to the prefix cache; keep: its children need it in any case
    requests: list[_Request] = field(default_factory=list)
    children: dict[object, _Node] = field(default_factory=dict)  # by key


class TransformersScorer(InWorker, ModelScorer):
    """Scores with transformers; the first score() loads the model."""

    engine = "transformers"

    def __init__(
        self,
        checkpoint: Checkpoint,
        prm_format: Format,
        *,
        dtype: str,
        batch_tokens: int,
        prefix_cache: bool,
        check_policy: bool,
    ) -> None:
        def load() -> _Tree:
            reader = open_reader(
                checkpoint, lambda: load_head(checkpoint, prm_format, dtype=dtype, check_policy=check_policy)
            )
            if prefix_cache and reader.cache is None:
                print(
                    f"{checkpoint.label}: the prefix cache is off, because it can't hold what this architecture keeps: "
                    "each partial solution is read from its beginning",
                    file=sys.stderr,
                )
            cache = reader.cache if prefix_cache else None
            return _Tree(reader, cache, batch_tokens or (512 if checkpoint.is_small else 16384), self.count)

        self._worker = Worker(load)
        super().__init__(checkpoint, prm_format, provenance=provenance(dtype))

    async def compute(self, layout: Layout, first: int, shared: int) -> list[float]:
        """See ModelScorer.compute. A single new step comes from a search, which may continue it, so it is kept."""
        ends = (shared, *(position + 1 for position in layout.positions))
        keep = first == len(layout.positions) - 1
        return await self._worker.run(_Request(layout.ids, layout.positions[first:], ends, keep))


def open_reader(checkpoint: Checkpoint, load: Callable[[], Head]) -> Reader | FlatReader:
    """The reader without padding where it knows the model and gives the scores of the plain one; else the plain one."""
    head = load()
    plain = Reader(head, head.device)
    if not is_kin(head.model, checkpoint):
        return plain
    ids = tuple(i % head.model.config.vocab_size for i in range(min(40, checkpoint.context)))
    middle = len(ids) // 2
    [(usual, _)] = plain.read([Row(ids, None, tuple(range(middle, len(ids))), keep=False)])
    reader = FlatReader(Llama(head.model, checkpoint), head.from_hidden)
    [(_, begin)] = reader.read([Row(ids[:middle], None, (), keep=True)])
    [(ours, _)] = reader.read([Row(ids, begin, tuple(range(middle, len(ids))), keep=False)])
    if np.allclose(ours, usual, rtol=0, atol=tolerance(head.model.dtype)):
        return reader
    head = load()  # the first one was taken apart
    return Reader(head, head.device)


class _Tree:
    """A loaded model, and the tree of the tokens that it has yet to read: a radix tree, as they stand in textbooks."""

    def __init__(
        self,
        reader: Reader | FlatReader,
        cache: PrefixCache | None,
        batch_tokens: int,
        count: Callable[[int, int], None],
    ) -> None:
        self._reader, self._cache, self._batch_tokens, self._count = reader, cache, batch_tokens, count
        self._numbers = itertools.count()
        self.clear()

    def clear(self) -> None:
        """See Runner."""
        # What can be read now, below the segment that it follows. A segment has a key for each node.
        self._ready: dict[Segment | None, dict[object, _Node]] = {}

    @property
    def is_busy(self) -> bool:
        """See Runner."""
        return bool(self._ready)

    def add(self, jobs: Iterable[_Request]) -> None:
        """Hang each request into the tree, below the longest of its prefixes that is known."""
        for request in jobs:
            known = None
            if self._cache:
                known = self._cache.longest(request.ids, [end for end in request.ends if end <= request.positions[0]])
            siblings, begin = self._ready.setdefault(known, {}), known.end if known else 0
            beginning = request.ends[0]
            while begin < len(request.ids):
                if self._cache is None:
                    key, end = request, len(request.ids)
                elif begin < beginning:  # read whole: what problems have in common is too short to be worth a pass
                    key, end = request.ids[:beginning], beginning
                else:
                    key, end = request.ids[begin], len(request.ids)
                node = siblings.get(key)
                if node is None:
                    node = siblings[key] = _Node(request.ids[:end], known, (), False, key, next(self._numbers))
                elif (shared := begin + common(node.ids[begin:], request.ids[begin:end])) < len(node.ids):
                    self._split(node, shared)
                end = len(node.ids)
                node.positions = tuple(sorted({*node.positions, *(p for p in request.positions if begin <= p < end)}))
                node.requests.append(request)
                # A search continues its steps, and other first steps than this one will follow the beginning too.
                if self._cache and request.keep and end in (beginning, len(request.ids)):
                    node.keep = node.stays = True
                node.keep |= end < len(request.ids)
                siblings, begin, known = node.children, end, None

    def _split(self, node: _Node, at: int) -> None:
        """Cut a node in two: its tokens from this one on become its only child."""
        positions = tuple(p for p in node.positions if p >= at)
        key = node.ids[at]
        lower = _Node(
            node.ids, None, positions, node.keep, key, node.number, node.stays, list(node.requests), node.children
        )
        node.positions = tuple(p for p in node.positions if p < at)
        node.ids, node.keep, node.stays, node.children = node.ids[:at], True, False, {key: lower}

    def step(self) -> Answers:
        """Read one batch of nodes: of those of similar length the ones that have waited longest."""
        waiting = (node for siblings in self._ready.values() for node in siblings.values())
        ready = list(itertools.islice(waiting, LOOKED_AT))
        batches = make_batches(ready, self._batch_tokens)
        batch = min(batches, key=lambda nodes: min(node.number for node in nodes))
        answers = []
        for node, (scores, segment) in zip(batch, self._reader.read(batch), strict=True):
            self._count(len(node.ids), node.begin)
            del self._ready[node.past][node.key]
            if not self._ready[node.past]:
                del self._ready[node.past]
            if node.stays:
                self._cache.add(node.ids, segment)
            for child in node.children.values():
                child.past = segment
            if node.children:
                self._ready[segment] = node.children
            scored = dict(zip(node.positions, scores, strict=True))
            for request in node.requests:
                request.scores |= {p: score for p, score in scored.items() if p in request.positions}
                if node.ids == request.ids:  # its last node
                    answers.append((request, [request.scores[p] for p in request.positions]))
        return answers
