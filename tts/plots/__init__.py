"""Figures: one style, curves and bars, diagrams, trees."""
