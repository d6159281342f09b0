"""Dictionary learning: PUDLE, its baselines, and where their samples come from.

`fastunroll.dictionary.train` trains a `PUDLE`; `fastunroll.sklearn` wraps it in estimators.
"""

from fastunroll.dictionary.adapters import learn_with_sklearn, learn_with_spams
from fastunroll.dictionary.alternating import AlternatingResult, alternating_minimisation
from fastunroll.dictionary.convolutional import ConvolutionalPUDLE
from fastunroll.dictionary.crops import NoisyCrops
from fastunroll.dictionary.cscnet import CSCNet
from fastunroll.dictionary.initial import initial_dictionary
from fastunroll.dictionary.metrics import AtomMatch, code_error, dictionary_error, match_atoms
from fastunroll.dictionary.noodl import NOODL
from fastunroll.dictionary.pudle import PUDLE
from fastunroll.dictionary.shifts import average_over_shifts, denoise_by_shifts
from fastunroll.dictionary.sources import ArraySource

__all__ = [
    "NOODL",
    "PUDLE",
    "AlternatingResult",
    "ArraySource",
    "AtomMatch",
    "CSCNet",
    "ConvolutionalPUDLE",
    "NoisyCrops",
    "alternating_minimisation",
    "average_over_shifts",
    "code_error",
    "denoise_by_shifts",
    "dictionary_error",
    "initial_dictionary",
    "learn_with_sklearn",
    "learn_with_spams",
    "match_atoms",
]
