"""Networks of the LISTA family by name, each with the settings of its paper.

Where the papers start learned weights from the dictionary, these start from the analytic weights,
from which far fewer steps lead further.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fastunroll._checks import check_choice
from fastunroll.analysis.analytic import analytic_weight
from fastunroll.data.synthetic import SparseProblem
from fastunroll.nn.ada_lista import AdaLISTA
from fastunroll.nn.admm_csnet import ADMMCSNet
from fastunroll.nn.alista import ALISTA
from fastunroll.nn.glista import GLISTA
from fastunroll.nn.hyperlista import HyperLISTA
from fastunroll.nn.lamp import LAMP
from fastunroll.nn.layered import LayeredNetwork
from fastunroll.nn.liht import LIHT, LIHTCP
from fastunroll.nn.lista import LISTA
from fastunroll.nn.lista_cp import LISTACP
from fastunroll.nn.na_alista import NAALISTA
from fastunroll.nn.robust_alista import RobustALISTA
from fastunroll.nn.step_lista import StepLISTA
from fastunroll.nn.support_selection import SupportSelection
from fastunroll.nn.tilista import TiLISTA
from fastunroll.nn.tista import TISTA

_SELECTION = SupportSelection()
_MCP_SHAPE = 3.0
_SCAD_SHAPE = 3.7


def _from_analytic(
    network: Callable[..., LayeredNetwork], **settings: Any
) -> Callable[[SparseProblem, int], LayeredNetwork]:
    """Make networks whose learned weights start as the analytic ones of ALISTA."""
    return lambda p, k: network(p.dictionary, k, weight=analytic_weight(p.dictionary), **settings)


catalogue: dict[str, Callable[[SparseProblem, int], LayeredNetwork]] = {
    "lista": _from_analytic(LISTA),
    "lista-tied": _from_analytic(LISTA, tied=True, shared_input=True),
    "lista-ss": _from_analytic(LISTA, support_selection=_SELECTION),
    "lista-cp": _from_analytic(LISTACP),
    "lista-cpss": _from_analytic(LISTACP, support_selection=_SELECTION),
    "lista-mcp": _from_analytic(LISTACP, prox="firm", prox_shape=_MCP_SHAPE),
    "lista-scad": _from_analytic(LISTACP, prox="scad", prox_shape=_SCAD_SHAPE),
    "tilista": _from_analytic(TiLISTA),
    "tilista-ss": _from_analytic(TiLISTA, support_selection=_SELECTION),
    "alista": lambda p, k: ALISTA(p.dictionary, k),
    "alista-ss": lambda p, k: ALISTA(p.dictionary, k, support_selection=_SELECTION),
    "robust-alista": lambda p, k: RobustALISTA(p.dictionary, k, support_selection=_SELECTION),
    "ada-lista": lambda p, k: AdaLISTA(p.dictionary, k),
    "step-lista": lambda p, k: StepLISTA(p.dictionary, k),
    "glista": lambda p, k: GLISTA(p.dictionary, k),
    "liht": lambda p, k: LIHT(p.dictionary, k),
    "liht-cp": lambda p, k: LIHTCP(p.dictionary, k),
    "admm-csnet": lambda p, k: ADMMCSNet(p.dictionary, k),
    "tista": lambda p, k: TISTA.for_problem(p, k),
    "lamp": _from_analytic(LAMP),
    "na-alista": lambda p, k: NAALISTA(p.dictionary, k),
    "hyperlista": lambda p, k: HyperLISTA(p.dictionary, k),
    "hyperlista-plain": lambda p, k: HyperLISTA(p.dictionary, k, symmetric=False),
}
"""What makes the network of a name, from a problem and a number of layers."""


def create(name: str, problem: SparseProblem | Tensor, n_layers: int = 16) -> LayeredNetwork:
    """Make an untrained network.

    Parameters
    ----------
    name : str
        One of `catalogue`; ``-ss`` stands for support selection.
    problem : SparseProblem or Tensor
        What it is to solve, or the dictionary ``(n_measurements, n_atoms)`` of a noiseless problem.
        Most networks look at the dictionary only.
    n_layers : int
        K.

    Returns
    -------
    LayeredNetwork

    Raises
    ------
    TypeError, ValueError
        If the name is not known, or another argument does not fit.
    """
    check_choice("name", name, tuple(catalogue))
    if isinstance(problem, Tensor):
        problem = SparseProblem(problem)
    return catalogue[name](problem, n_layers)
