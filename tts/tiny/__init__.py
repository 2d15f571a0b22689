"""The embedded world: a benchmark shaped like MATH, four policies and three process reward models trained on it."""

from pathlib import Path

DATA = Path(__file__).parent / "data"  # test.jsonl and dev.jsonl, with the columns of MATH-500
MODELS = Path(__file__).parent / "models"  # policy-xs, policy-s, policy-m, policy-l, prm, prm-strong, prm-weak
