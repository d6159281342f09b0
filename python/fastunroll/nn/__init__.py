"""Unrolled networks: one model, one file."""

from fastunroll.nn.ada_lista import AdaLISTA
from fastunroll.nn.admm_csnet import ADMMCSNet
from fastunroll.nn.alista import ALISTA
from fastunroll.nn.equilibrium import EquilibriumNetwork
from fastunroll.nn.feedforward import FeedForward
from fastunroll.nn.glista import GLISTA
from fastunroll.nn.hyperlista import HyperLISTA
from fastunroll.nn.lamp import LAMP
from fastunroll.nn.liht import LIHT, LIHTCP
from fastunroll.nn.lista import LISTA
from fastunroll.nn.lista_cp import LISTACP
from fastunroll.nn.lpg_net import LPGNet
from fastunroll.nn.na_alista import NAALISTA
from fastunroll.nn.network import UnrolledNetwork
from fastunroll.nn.piecewise_linear import PiecewiseLinear
from fastunroll.nn.robust_alista import RobustALISTA
from fastunroll.nn.safeguarded import SafeguardedNetwork
from fastunroll.nn.smooth_lista import SmoothLISTA
from fastunroll.nn.step_lista import StepLISTA
from fastunroll.nn.support_selection import SupportSelection
from fastunroll.nn.tilista import TiLISTA
from fastunroll.nn.tista import TISTA

MODELS: dict[str, type[UnrolledNetwork]] = {
    model.__name__: model
    for model in (
        ADMMCSNet,
        SmoothLISTA,
        AdaLISTA,
        EquilibriumNetwork,
        RobustALISTA,
        SafeguardedNetwork,
        ALISTA,
        GLISTA,
        HyperLISTA,
        LAMP,
        LIHT,
        LIHTCP,
        LISTA,
        LISTACP,
        LPGNet,
        NAALISTA,
        StepLISTA,
        TISTA,
        TiLISTA,
    )
}
"""Every network that can be saved and loaded, by the name of its class."""

__all__ = [
    "ALISTA",
    "GLISTA",
    "LAMP",
    "LIHT",
    "LIHTCP",
    "LISTA",
    "LISTACP",
    "MODELS",
    "NAALISTA",
    "TISTA",
    "ADMMCSNet",
    "AdaLISTA",
    "EquilibriumNetwork",
    "FeedForward",
    "HyperLISTA",
    "LPGNet",
    "PiecewiseLinear",
    "RobustALISTA",
    "SafeguardedNetwork",
    "SmoothLISTA",
    "StepLISTA",
    "SupportSelection",
    "TiLISTA",
    "UnrolledNetwork",
]
