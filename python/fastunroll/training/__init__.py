"""Training of unrolled networks in stages, with exact resume after an interruption."""

from fastunroll.training.logs import Record
from fastunroll.training.stage import Stage
from fastunroll.training.trainer import Trainer, TrainingResult

__all__ = ["Record", "Stage", "Trainer", "TrainingResult"]
