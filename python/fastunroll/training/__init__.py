"""Training of unrolled networks in stages, with exact resume, and searches for a few numbers."""

from fastunroll.training.logs import Record
from fastunroll.training.recovery import train_recovery
from fastunroll.training.search import refine, search
from fastunroll.training.stage import Stage
from fastunroll.training.trainer import Trainer, TrainingResult

__all__ = [
    "Record",
    "Stage",
    "Trainer",
    "TrainingResult",
    "refine",
    "search",
    "train_recovery",
]
