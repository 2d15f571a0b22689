"""Training examples as flat arrays, and batches of about equal length drawn from them in an order that a seed fixes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Examples:
    """Token sequences end to end, with any number of aligned per-token targets.

    tokens [total]; starts [examples + 1]; each of targets [total], meaning set by the caller.
    """

    tokens: np.ndarray
    starts: np.ndarray
    targets: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def save(self, path: Path) -> None:
        """Write atomically, so that a killed run leaves no half file."""
        part = path.with_suffix(".part.npz")
        np.savez(part, tokens=self.tokens, starts=self.starts, **{f"target_{k}": v for k, v in self.targets.items()})
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Examples:
        with np.load(path) as file:
            targets = {k.removeprefix("target_"): file[k] for k in file.files if k.startswith("target_")}
            return cls(file["tokens"], file["starts"], targets)

    @classmethod
    def join(cls, parts: Sequence[Examples]) -> Examples:
        """Several sets as one."""
        offsets = np.cumsum([0] + [len(p.tokens) for p in parts])
        starts = np.concatenate([p.starts[:-1] + o for p, o in zip(parts, offsets)] + [offsets[-1:]])
        targets = {k: np.concatenate([p.targets[k] for p in parts]) for k in parts[0].targets}
        return cls(np.concatenate([p.tokens for p in parts]), starts, targets)

    def batches(self, *, tokens: int, seed: int, epoch: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """One pass: batches of about `tokens` tokens, padded on the right with token 0 and target 0.

        Within windows of some thousand examples similar lengths go together, so little is padding.
        """
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(self))
        lengths = np.diff(self.starts)
        for window in np.array_split(order, max(1, len(order) // 8192)):
            window = window[np.argsort(lengths[window], kind="stable")]
            groups, group = [], []
            for i in window:
                if group and (len(group) + 1) * lengths[i] > tokens:
                    groups.append(group)
                    group = []
                group.append(i)
            groups.append(group)
            for g in rng.permutation(len(groups)):
                yield self.pad(groups[g])

    def pad(self, chosen: Sequence[int]) -> dict[str, np.ndarray]:
        """The chosen examples as arrays [examples, longest]."""
        longest = int(max(self.starts[i + 1] - self.starts[i] for i in chosen))
        out = {k: np.zeros((len(chosen), longest), np.int64) for k in ("tokens", *self.targets)}
        for row, i in enumerate(chosen):
            a, b = self.starts[i], self.starts[i + 1]
            out["tokens"][row, : b - a] = self.tokens[a:b]
            for k, v in self.targets.items():
                out[k][row, : b - a] = v[a:b]
        return out


def gather(rows: Sequence[tuple[Sequence[int], dict[str, Sequence[int]]]]) -> Examples:
    """Examples from a list of (token ids, targets)."""
    starts = np.cumsum([0] + [len(ids) for ids, _ in rows])
    tokens = np.concatenate([np.asarray(ids, np.int16) for ids, _ in rows])
    targets = {k: np.concatenate([np.asarray(t[k], np.int8) for _, t in rows]) for k in rows[0][1]}
    return Examples(tokens, starts, targets)
