"""The experiments of the PUDLE paper: gradients, recovery of dictionaries, denoising."""

from fastunroll.experiments.pudle.document import DOCUMENT
from fastunroll.experiments.pudle.run import run

__all__ = ["DOCUMENT", "run"]
