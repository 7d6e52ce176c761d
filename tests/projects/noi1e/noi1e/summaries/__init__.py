"""Rows that store what is computed from other rows, and the task that recomputes it."""
