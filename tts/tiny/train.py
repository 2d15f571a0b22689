"""Train the models: `python -m tts.tiny.train policy xs` or `python -m tts.tiny.train prm`.

Progress is printed with the time that is left, a checkpoint is written every two minutes, and the same command goes on
where it stopped. The finished model is written in the Hub's format.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from . import DATA, MODELS
from .batches import Examples
from .hub import export, load
from .loop import fit
from .model import TinyLlama
from .policy_training import DATA_TOKENS, RATES, SHAPES, STOPS, policy_examples, policy_loss
from .prm_training import RewardModel, grown, made_examples, prm_loss, sampled_examples
from .tokenizer import Codec

TOKENIZER = DATA / "tokenizer.json"
SNAPSHOTS = 250_000  # tokens between the averaged weights that are kept, to choose from


def note(folder: Path, **facts: object) -> None:
    """Write down how the model in a folder was trained, for its card."""
    machine = f"{platform.machine()}, {torch.get_num_threads()} thread(s), PyTorch {torch.__version__}"
    facts = {"parameters": load(folder)[0].parameter_count(), **facts, "hardware": machine}
    (folder / "training.json").write_text(json.dumps(facts, indent=2) + "\n")


def train_policy(
    size: str,
    *,
    tokens: int,
    seed: int,
    work: Path,
    out: Path,
    device: str = "cpu",
    stop_after: int | None = None,
) -> dict[str, float]:
    """Train one policy and export it; every size sees the same tokens in the same order, as far as it goes."""
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    cache = work / f"policy-data-{DATA_TOKENS}.npz"
    data = policy_examples(Codec(tokenizer), tokens=DATA_TOKENS, seed=0, cache=cache)
    model = TinyLlama(replace(SHAPES[size], vocabulary=tokenizer.get_vocab_size()), seed=seed).to(device)
    print(
        f"policy {size}: {model.parameter_count():,} parameters, {tokens:,} tokens, {len(data):,} problems", flush=True
    )
    means = fit(
        model,
        policy_loss(model),
        data,
        tokens=tokens,
        batch=1024,  # small models gain more from updates than from large batches
        learning_rate=RATES[size],
        seed=seed,
        folder=work / f"policy-{size}-{seed}",
        device=device,
        stop_after=stop_after,
        snapshots=SNAPSHOTS,
    )
    if stop_after is None:
        export(model.cpu(), tokenizer, out)
        note(out, tokens=tokens, seed=seed, batch=1024, rate=RATES[size], **means)
    return means


def train_prm(
    base: str,
    *,
    layers: int,
    tokens: int,
    problems: dict[str, int],
    made: int,
    learning_rate: float,
    pace: float,
    seed: int,
    work: Path,
    out: Path,
    policies: Path = MODELS,
    rollouts: int = 0,
    device: str = "cpu",
    stop_after: int | None = None,
) -> dict[str, float]:
    """Train a reward model from the weights of policy `base` and new layers, and export it.

    problems: for each policy, on how many training problems four solutions each are sampled; made: how many right or
    corrupted solutions are added. Labels are exact, or with rollouts > 0 from that many roll-outs a step.
    """
    policy, codec = load(policies / f"policy-{base}")
    work.mkdir(parents=True, exist_ok=True)
    parts = [made_examples(codec, count=made, seed=seed)]
    for size, count in problems.items():
        cache = work / f"samples-{size}-{count}-{rollouts}-{seed}.npz"
        sampler = load(policies / f"policy-{size}")[0].to(device)
        parts.append(
            sampled_examples(
                codec,
                sampler,
                problems=count,
                each=4,
                seed=10 * seed + list(SHAPES).index(size),
                rollouts=rollouts,
                cache=cache,
            )
        )
        print(f"samples of policy {size}: {len(parts[-1]):,}", flush=True)
    data = Examples.join(parts)
    seen = torch.from_numpy(next(data.batches(tokens=8192, seed=seed))["tokens"])
    llama = grown(policy, layers=layers, context=1024, seed=seed, seen=seen)
    model = RewardModel(llama, base=policy.shape.layers).to(device)
    print(
        f"reward model: {model.llama.parameter_count():,} parameters, {len(data.tokens):,} tokens of data", flush=True
    )
    means = fit(
        model,
        prm_loss(model, codec),
        data,
        tokens=tokens,
        batch=1024,
        learning_rate=learning_rate,
        slow=("llama.embedding", *(f"llama.blocks.{i}." for i in range(policy.shape.layers))),
        pace=pace,
        seed=seed,
        folder=work / out.name,
        device=device,
        stop_after=stop_after,
        snapshots=SNAPSHOTS,
    )
    if stop_after is None:
        export(model.llama.cpu(), codec.tokenizer, out, prm_format="rlhflow")
        labels = f"{rollouts} roll-outs a step" if rollouts else "exact step checking"
        sources = {"base": base, "layers": layers, "problems": problems, "made": made, "labels": labels}
        note(out, tokens=tokens, seed=seed, rate=learning_rate, pace=pace, **sources, **means)
    return means


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    policy = kinds.add_parser("policy", help="a policy by next-token loss on right solutions")
    policy.add_argument("size", choices=SHAPES)
    policy.add_argument("--tokens", type=int, help="default: where its greedy accuracy is that of the model it plays")
    prm = kinds.add_parser("prm", help="a process reward model on steps of all policies")
    prm.add_argument("--base", choices=SHAPES, default="m", help="the policy whose weights it starts from")
    prm.add_argument("--layers", type=int, default=2, help="new layers on top")
    prm.add_argument("--tokens", type=int, default=1_750_000, help="the mirror's; chosen on the development split")
    prm.add_argument("--problems", type=int, nargs=4, default=(5000, 5000, 2500, 0), help="of xs s m l")
    prm.add_argument("--made", type=int, default=20_000, help="right and corrupted solutions")
    prm.add_argument("--rollouts", type=int, default=0, help="label by this many roll-outs a step; 0: check exactly")
    prm.add_argument("--rate", type=float, default=2e-3, help="learning rate")
    prm.add_argument("--pace", type=float, default=0.15, help="share of the rate at which the policy's weights change")
    prm.add_argument("--name", default="prm")
    for each in (policy, prm):
        each.add_argument("--seed", type=int, default=0)
        each.add_argument("--device", default="cpu")
        each.add_argument("--threads", type=int, default=1, help="one is fastest on a shared CPU")
        each.add_argument("--work", type=Path, default=Path("build/tiny"), help="checkpoints, data and logs")
        each.add_argument("--out", type=Path, help="where the model goes; default: its place in tts/tiny/models")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    common = {"seed": args.seed, "work": args.work, "device": args.device}
    if args.kind == "policy":
        tokens = args.tokens or STOPS[args.size]
        train_policy(args.size, tokens=tokens, out=args.out or MODELS / f"policy-{args.size}", **common)
    else:
        train_prm(
            args.base,
            layers=args.layers,
            problems={size: count for size, count in zip(SHAPES, args.problems) if count},
            made=args.made,
            learning_rate=args.rate,
            pace=args.pace,
            rollouts=args.rollouts,
            out=args.out or MODELS / args.name,
            tokens=args.tokens,
            **common,
        )


if __name__ == "__main__":
    main()
