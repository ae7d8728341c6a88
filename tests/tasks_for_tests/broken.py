"""A file that cannot be imported."""

import clrsearch.no_such_module  # noqa: F401
