"""Experiments with the LISTA family on the benchmark problem of sparse recovery."""

from fastunroll.experiments.lista.document import DOCUMENT
from fastunroll.experiments.lista.run import run, train

__all__ = ["DOCUMENT", "run", "train"]
