"""Estimators with scikit-learn's interface: learn a dictionary, and encode with one.

Their conventions are scikit-learn's: atoms are rows, ``components_`` (n_components, n_features),
and ``alpha`` is the weight of the l1 norm in 1/2 ||x - z components_||^2 + alpha ||z||_1.
"""

from importlib.util import find_spec

if not find_spec("sklearn"):
    raise ImportError(
        "fastunroll.sklearn needs scikit-learn; install it with: pip install 'fastunroll[cli]'"
    )

from fastunroll.sklearn.dictionary_learning import UnrolledDictionaryLearning
from fastunroll.sklearn.sparse_coder import UnrolledSparseCoder

__all__ = ["UnrolledDictionaryLearning", "UnrolledSparseCoder"]
