"""``python -m clrsearch``."""

from clrsearch.cli import main

main()
