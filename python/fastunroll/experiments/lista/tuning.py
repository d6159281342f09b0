"""Search of HyperLISTA's three numbers."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from fastunroll.data import SparseBatch
from fastunroll.metrics import nmse_db
from fastunroll.nn import HyperLISTA, UnrolledNetwork
from fastunroll.program import Program
from fastunroll.runtime import Engine
from fastunroll.training.search import refine, search

_N_FEW = 250
"""Samples of the first search."""

_NEAR = 1.3
"""Largest ratio of the thresholds of the first and the second search."""


def tune(network: HyperLISTA, samples: SparseBatch, many: SparseBatch, n_evaluations: int) -> None:
    """Search in three rounds.

    The larger the threshold, the better is the typical sample, until a few in ten thousand are not
    recovered at all and rule the NMSE. So a search on the first of ``samples`` is followed by one
    near its threshold on ``many``, whose result is refined. Each takes ``n_evaluations``.
    """
    few = SparseBatch(*(part[:_N_FEW] for part in samples))
    search(
        network, network.ranges, partial(_nmse_of_engine, batch=few), n_evaluations=n_evaluations
    )
    threshold = float(network.threshold_factor.detach())
    near = {**network.ranges, "threshold_factor": (threshold / _NEAR, threshold * _NEAR)}
    error, third = partial(_nmse_of_engine, batch=many), max(3, n_evaluations // 3)
    search(network, near, error, n_evaluations=third)
    refine(network, network.ranges, error, n_evaluations=third)


def _nmse_of_engine(network: HyperLISTA, batch: SparseBatch) -> float:
    """NMSE in dB of the network, up to rounding, in a tenth of the time."""
    program = network.program()
    arrays: dict[str, Any] = {name: array.numpy() for name, array in program.arrays.items()}
    engine = Engine(Program(**arrays, **program.options), n_threads=torch.get_num_threads())
    return nmse_db(torch.from_numpy(engine(batch.measurements.numpy())), batch.codes)


@torch.no_grad()
def nmse_on(network: UnrolledNetwork, batch: SparseBatch) -> float:
    """NMSE in dB of a network on samples."""
    return nmse_db(network(batch.measurements), batch.codes)
