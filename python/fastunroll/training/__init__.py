"""Training of unrolled networks in stages, with exact resume after an interruption."""

from fastunroll.training.logs import Record
from fastunroll.training.recovery import train_recovery
from fastunroll.training.stage import Stage
from fastunroll.training.trainer import Trainer, TrainingResult

__all__ = ["Record", "Stage", "Trainer", "TrainingResult", "train_recovery"]
