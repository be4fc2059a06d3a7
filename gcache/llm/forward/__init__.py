"""Passes through a frozen model: rows in pages, attention with log-weights, and gradients."""
