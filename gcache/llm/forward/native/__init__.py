"""Passes without gradient on a CPU in one call of compiled code: `decoder.c`, and what Python hands it."""
