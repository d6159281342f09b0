"""Unrolled networks: one model, one file."""

from fastunroll.nn.lpg_net import LPGNet
from fastunroll.nn.network import UnrolledNetwork

MODELS: dict[str, type[UnrolledNetwork]] = {model.__name__: model for model in (LPGNet,)}
"""Every network that can be saved and loaded, by the name of its class."""

__all__ = ["MODELS", "LPGNet", "UnrolledNetwork"]
