"""Experiments with the LISTA family on the benchmark problem of sparse recovery."""

from fastunroll.experiments.lista.document import DOCUMENT
from fastunroll.experiments.lista.run import run, train
from fastunroll.experiments.lista.targets import check

__all__ = ["DOCUMENT", "check", "run", "train"]
