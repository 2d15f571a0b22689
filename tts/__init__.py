"""Test-time scaling: generation, step scoring, reductions and the four search strategies."""
