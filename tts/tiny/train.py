"""Train the models: `python -m tts.tiny.train policy xs` or `python -m tts.tiny.train prm`.

Progress is printed with the time that is left, a checkpoint is written every two minutes, and the same command goes on
where it stopped. The finished model is written in the Hub's format.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer

from . import DATA, MODELS
from .hub import export
from .loop import fit
from .model import TinyLlama
from .policy_training import RATES, SHAPES, policy_examples, policy_loss
from .tokenizer import Codec

TOKENIZER = DATA / "tokenizer.json"


def train_policy(
    size: str, *, tokens: int, seed: int, work: Path, out: Path, device: str = "cpu", stop_after: int | None = None
) -> dict[str, float]:
    """Train one policy and export it; every size sees the same tokens in the same order."""
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    data = policy_examples(Codec(tokenizer), tokens=tokens, seed=seed, cache=work / f"policy-data-{tokens}-{seed}.npz")
    model = TinyLlama(SHAPES[size], seed=seed).to(device)
    print(f"policy {size}: {model.parameter_count():,} parameters, {tokens:,} tokens, {len(data):,} problems", flush=True)
    means = fit(
        model,
        policy_loss(model),
        data,
        tokens=tokens,
        batch=4096,
        peak=RATES[size],
        seed=seed,
        folder=work / f"policy-{size}",
        device=device,
        stop_after=stop_after,
    )
    export(model.cpu(), tokenizer, out)
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    policy = kinds.add_parser("policy", help="a policy by next-token loss on right solutions")
    policy.add_argument("size", choices=SHAPES)
    policy.add_argument("--tokens", type=int, default=10_500_000)
    for each in (policy,):
        each.add_argument("--seed", type=int, default=0)
        each.add_argument("--device", default="cpu")
        each.add_argument("--threads", type=int, default=1, help="one is fastest on a shared CPU")
        each.add_argument("--work", type=Path, default=Path("build/tiny"), help="checkpoints, data and logs")
        each.add_argument("--out", type=Path, help="where the model goes; default: its place in tts/tiny/models")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    out = args.out or MODELS / f"policy-{args.size}"
    train_policy(args.size, tokens=args.tokens, seed=args.seed, work=args.work, out=out, device=args.device)


if __name__ == "__main__":
    main()
