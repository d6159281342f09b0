"""Dictionary learning: PUDLE, its baselines, and where their samples come from.

`fastunroll.dictionary.train` trains a `PUDLE`; `fastunroll.sklearn` wraps it in estimators.
"""

from fastunroll.dictionary.adapters import learn_with_sklearn, learn_with_spams
from fastunroll.dictionary.alternating import AlternatingResult, alternating_minimisation
from fastunroll.dictionary.initial import initial_dictionary
from fastunroll.dictionary.metrics import AtomMatch, code_error, dictionary_error, match_atoms
from fastunroll.dictionary.noodl import NOODL
from fastunroll.dictionary.pudle import PUDLE
from fastunroll.dictionary.sources import ArraySource

__all__ = [
    "NOODL",
    "PUDLE",
    "AlternatingResult",
    "ArraySource",
    "AtomMatch",
    "alternating_minimisation",
    "code_error",
    "dictionary_error",
    "initial_dictionary",
    "learn_with_sklearn",
    "learn_with_spams",
    "match_atoms",
]
