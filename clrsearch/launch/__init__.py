"""Starts workers somewhere; knows a command line, not our code."""

from clrsearch.launch.launcher import Command, Ended, Launcher
from clrsearch.launch.local import LocalLauncher

__all__ = ["Command", "Ended", "Launcher", "LocalLauncher"]
