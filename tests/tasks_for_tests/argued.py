"""A loop and a task that read a command line: one when it is run, one when it is imported."""

import argparse
import sys

import loops
from tiny import Tiny

IMPORTED_WITH = sys.argv[1:]


def train(run):
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--lr", type=float, default=0.001)
    loops.train(run, lr=parser.parse_args().lr)


class Argued(Tiny):
    def __init__(self, options=None):
        self.constructed_with = sys.argv[1:]
        super().__init__(options)


def takes_nothing():
    pass


def takes_two(run, other):
    pass
