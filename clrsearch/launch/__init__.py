"""Launches workers, locally or on a cluster, from a command line alone."""

from clrsearch.launch.elastic import end_as, run_ranks
from clrsearch.launch.launcher import INTERPRETER, Command, Ended, Launcher, Submitter, how_it_ended
from clrsearch.launch.local import LocalLauncher
from clrsearch.launch.ray import RayCluster, RaySubmitter
from clrsearch.launch.slurm import BINARIES, NOTICE_SECONDS, SlurmJob, SlurmSubmitter

__all__ = [
    "BINARIES",
    "INTERPRETER",
    "NOTICE_SECONDS",
    "Command",
    "Ended",
    "Launcher",
    "LocalLauncher",
    "RayCluster",
    "RaySubmitter",
    "SlurmJob",
    "SlurmSubmitter",
    "Submitter",
    "end_as",
    "how_it_ended",
    "run_ranks",
]
