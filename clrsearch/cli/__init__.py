"""The command line."""

from clrsearch.cli.app import app, main

__all__ = ["app", "main"]
