"""Search of HyperLISTA's three numbers."""

from __future__ import annotations

from functools import partial

import torch

from fastunroll.data import SparseBatch
from fastunroll.metrics import nmse_db
from fastunroll.nn import HyperLISTA, UnrolledNetwork
from fastunroll.training.search import refine, search

_N_FEW = 250
"""Samples of the first search."""


_NEAR = 1.3
"""Largest ratio of the thresholds of the first and the second search."""


def tune(network: HyperLISTA, samples: SparseBatch, many: SparseBatch, n_evaluations: int) -> None:
    """Search in three rounds.

    The larger the threshold, the better is the typical sample, until a few in ten thousand are not
    recovered at all and rule the NMSE. So a search on the first of ``samples`` is followed by one
    near its threshold on ``many``, whose result is refined. The second and the third round take a
    third of the first one's evaluations each.
    """
    few = SparseBatch(*(part[:_N_FEW] for part in samples))
    search(network, network.ranges, partial(nmse_on, batch=few), n_evaluations=n_evaluations)
    threshold = float(network.threshold_factor.detach())
    near = {**network.ranges, "threshold_factor": (threshold / _NEAR, threshold * _NEAR)}
    error, third = partial(nmse_on, batch=many), max(3, n_evaluations // 3)
    search(network, near, error, n_evaluations=third)
    refine(network, network.ranges, error, n_evaluations=third)


@torch.no_grad()
def nmse_on(network: UnrolledNetwork, batch: SparseBatch) -> float:
    """NMSE in dB of a network on samples."""
    return nmse_db(network(batch.measurements), batch.codes)
