"""Checkpoints: all that a training needs to go on as if it had never stopped, as data only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastunroll.io import load_tensors, save_tensors
from fastunroll.nn import UnrolledNetwork


@dataclass
class Position:
    """Where a training stands."""

    stage: int = 0
    stage_step: int = 0
    step: int = 0
    best: float | None = None
    best_step: int = 0
    n_records: int = 0
    seconds: float = 0.0
    rates: dict[str, float] = field(default_factory=dict)


@dataclass
class Checkpoint:
    """State of a training between two steps.

    Attributes
    ----------
    setup : dict
        What the training was asked to do (`Trainer.setup`), in terms of JSON.
    position : Position
        Where it stands.
    model, best : dict of Tensor
        ``state_dict`` now, and at the best validation of the stage.
    optimizer : dict of int to dict of Tensor
        Adam's state of each parameter.
    generator : Tensor
        State of the random generator.
    """

    setup: dict[str, Any]
    position: Position
    model: Mapping[str, Tensor]
    generator: Tensor
    best: Mapping[str, Tensor] = field(default_factory=dict)
    optimizer: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the checkpoint to one safetensors file."""
        tensors = {"generator": self.generator}
        tensors |= {f"model/{name}": tensor for name, tensor in self.model.items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        for index, state in self.optimizer.items():
            tensors |= {f"optimizer/{index}/{key}": tensor for key, tensor in state.items()}
        description = {"setup": self.setup, "position": asdict(self.position)}
        save_tensors(tensors, {"checkpoint": description}, path)

    @classmethod
    def load(cls, path: Path, setup: dict[str, Any]) -> Checkpoint:
        """Read the checkpoint of a training with this ``setup``.

        Raises
        ------
        ValueError
            If the file is damaged, no checkpoint, or of a training with another setup.
        """
        tensors, description = load_tensors(path)
        if "checkpoint" not in description:
            raise ValueError(f"{path} holds no checkpoint of a training")
        saved = description["checkpoint"]["setup"]
        asked = json.loads(json.dumps(setup))
        for key in saved | asked:
            if saved.get(key) != asked.get(key):
                raise ValueError(
                    f"{path} belongs to another training: its {key} is {saved.get(key)}, here it "
                    f"is {asked.get(key)}; continue with the same or use another directory"
                )
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
        generator = tensors.pop("generator")
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        optimizer: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, key = name.partition("/")
            optimizer.setdefault(int(index), {})[key] = tensor
        position = Position(**description["checkpoint"]["position"])
        return cls(setup, position, parts["model"], generator, parts["best"], optimizer)


def describe_model(model: nn.Module) -> dict[str, Any]:
    """Class, configuration and tensors of a model, to tell it from another.

    Tensors that training does not change count with their values, as a checksum.
    """
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    checksum = hashlib.sha256()
    description: dict[str, Any] = {"model": type(model).__name__}
    if isinstance(model, UnrolledNetwork):
        description["configuration"] = model.config()
    for name, tensor in model.state_dict().items():
        description[f"tensor {name}"] = f"{tuple(tensor.shape)} {tensor.dtype}"
        if name not in trained:
            checksum.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy())
    description["checksum of the fixed tensors"] = checksum.hexdigest()
    return description
