"""Numbers that describe a dictionary, and weights that follow from it."""

from fastunroll.analysis.analytic import (
    SymmetricForm,
    analytic_weight,
    symmetric_preconditioner,
)
from fastunroll.analysis.coherence import generalized_coherence, mutual_coherence
from fastunroll.analysis.convolutional import convolutional_analytic_weight
from fastunroll.analysis.spectral import lipschitz_constant

__all__ = [
    "SymmetricForm",
    "analytic_weight",
    "convolutional_analytic_weight",
    "generalized_coherence",
    "lipschitz_constant",
    "mutual_coherence",
    "symmetric_preconditioner",
]
