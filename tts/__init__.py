"""Test-time scaling: generation, step scoring, reductions and the four strategies. Importing it loads no engine."""

from tts.compute_optimal import compute_optimal
from tts.models.open import open_policy, open_prm
from tts.policy import Sampling
from tts.problems import Problem, load_problems
from tts.reductions import reduce_scores
from tts.solve import solve
from tts.strategies import beam_search, best_of_n, dvts, majority

__all__ = [
    "Problem", "Sampling", "beam_search", "best_of_n", "compute_optimal", "dvts", "load_problems", "majority",
    "open_policy", "open_prm", "reduce_scores", "solve",
]  # fmt: skip
