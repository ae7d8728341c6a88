"""Searches of the same space on the same task by clrsearch and by what else people use."""
