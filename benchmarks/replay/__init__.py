"""Recorded learning curves of small tasks, and searches replayed over them."""
