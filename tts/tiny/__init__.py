"""The embedded world: a benchmark shaped like MATH, four policies and three process reward models trained on it."""

from pathlib import Path

from tts.errors import InputError

DATA = Path(__file__).parent / "data"  # test.jsonl and dev.jsonl, with the columns of MATH-500
MODELS = Path(__file__).parent / "models"  # policy-xs, policy-s, policy-m, policy-l, prm, prm-strong, prm-weak


def base_of(policy_model: str) -> Path:
    """The folder of an embedded policy, which can be trained further here (tts.tiny.self_training)."""
    known = sorted(path.name for path in MODELS.glob("policy-*"))
    if policy_model not in known:
        raise InputError(f"policy_model is {policy_model}: it can't be trained here, give one of {', '.join(known)}")
    return MODELS / policy_model
