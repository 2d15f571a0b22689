"""Test-time scaling: generation, step scoring, reductions and the four strategies. Importing it loads no engine."""

from tts.optimal import compute_optimal
from tts.policy import open_policy
from tts.prm import open_prm
from tts.problems import Problem, load_problems
from tts.reductions import reduce_scores
from tts.strategies import beam_search, best_of_n, dvts, majority

__all__ = [
    "Problem",
    "beam_search",
    "best_of_n",
    "compute_optimal",
    "dvts",
    "load_problems",
    "majority",
    "open_policy",
    "open_prm",
    "reduce_scores",
]
