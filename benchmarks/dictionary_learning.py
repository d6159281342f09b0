"""Dictionary learning on image patches: time and objective, beside scikit-learn and SPAMS.

    python benchmarks/dictionary_learning.py [--images FOLDER] [--patches N] [--atoms N]
        [--alpha A] [--rounds R] [--dtype float32|float64] [--threads T]

Everyone gets the same patches, less their means and scaled to unit variance, and the same alpha in
1/2 ||x - z D||^2 + alpha ||z||_1. "fit" learns the dictionary, "transform" encodes all patches with
it. The objective, the mean over the patches, is computed here in float64 by one function, from what
each candidate returned. The candidates take turns in every round; times are medians. The last
column is the time of the processor for both, which says more than wall time on a busy machine.
scikit-learn solves the lasso by coordinate descent, the faster one of its two methods here.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from fastunroll._optional import import_optional
from fastunroll.data import load_images, remove_mean, sample_patches
from fastunroll.dictionary import learn_with_spams
from fastunroll.sklearn import UnrolledDictionaryLearning

Array = NDArray[np.floating]


class Spams(TransformerMixin, BaseEstimator):
    """SPAMS behind the interface of the others: trainDL and lasso (LARS)."""

    def __init__(self, n_components: int, alpha: float, n_epochs: int, n_threads: int) -> None:
        self.n_components, self.alpha = n_components, alpha
        self.n_epochs, self.n_threads = n_epochs, n_threads

    def fit(self, X: Array, y: None = None) -> Spams:
        atoms = learn_with_spams(
            torch.from_numpy(X),
            self.n_components,
            self.alpha,
            n_epochs=self.n_epochs,
            n_threads=self.n_threads,
        )
        self.components_ = atoms.numpy().T
        return self

    def transform(self, X: Array) -> Array:
        codes = import_optional("spams", extra="spams").lasso(
            np.asfortranarray(X.T),
            D=np.asfortranarray(self.components_.T),
            lambda1=self.alpha,
            mode=2,
            numThreads=self.n_threads,
        )
        return codes.T.toarray()


def candidates(n_atoms: int, alpha: float, threads: int) -> dict[str, Callable[[], Any]]:
    """Makers of the estimators."""

    def sklearn(**options: Any) -> Callable[[], Any]:
        return lambda: MiniBatchDictionaryLearning(
            n_atoms,
            alpha=alpha,
            fit_algorithm="cd",
            transform_algorithm="lasso_cd",
            transform_alpha=alpha,
            n_jobs=threads,
            random_state=0,
            **options,
        )

    found = {
        "fastunroll": lambda: UnrolledDictionaryLearning(
            n_atoms, alpha=alpha, n_jobs=threads, random_state=0
        ),
        "scikit-learn": sklearn(),
        "scikit-learn, 3 epochs": sklearn(max_iter=3, tol=0.0, max_no_improvement=None),
    }
    try:
        import_optional("spams", extra="spams")
    except ImportError as error:
        print(f"without SPAMS: {error}")
    else:
        found["SPAMS, 1 epoch"] = lambda: Spams(n_atoms, alpha, 1, threads)
        found["SPAMS, 3 epochs"] = lambda: Spams(n_atoms, alpha, 3, threads)
    return found


def objective(patches: Array, codes: Array, atoms: Array, alpha: float) -> float:
    """Mean of 1/2 ||x - z D||^2 + alpha ||z||_1, once the atoms are known to be short enough."""
    x, z, d = (array.astype(np.float64) for array in (patches, codes, atoms))
    if np.linalg.norm(d, axis=1).max() > 1 + 1e-4:
        raise ValueError("atoms must have norms of at most 1")
    return float((0.5 * np.square(x - z @ d).sum(axis=1) + alpha * np.abs(z).sum(axis=1)).mean())


def measure(estimator: Any, patches: Array, alpha: float) -> tuple[float, ...]:
    """Seconds of fit and transform, of the processor for both, and the objective."""
    processor, start = time.process_time(), time.perf_counter()
    estimator.fit(patches)
    fitted = time.perf_counter()
    codes = estimator.transform(patches)
    done = time.perf_counter()
    processor = time.process_time() - processor
    value = objective(patches, codes, estimator.components_, alpha)
    return fitted - start, done - fitted, processor, value


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", help="folder of images; those of scikit-image by default")
    parser.add_argument("--patches", type=int, default=50_000)
    parser.add_argument("--atoms", type=int, default=256)
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def lines(a: argparse.Namespace) -> Iterator[str]:
    """Measure, and tell the results."""
    generator = torch.Generator().manual_seed(0)
    images = load_images(a.images, split="train")
    dtype = getattr(torch, a.dtype)
    centred, _ = remove_mean(sample_patches(images, 8, a.patches, generator, dtype=dtype))
    patches = (centred / centred.std()).numpy()
    makers = candidates(a.atoms, a.alpha, a.threads)
    results: dict[str, list[tuple[float, ...]]] = {name: [] for name in makers}
    for _ in range(a.rounds):
        for name, make in makers.items():
            results[name].append(measure(make(), patches, a.alpha))
    problem = f"{a.patches} patches 8x8, {a.atoms} atoms, alpha {a.alpha:g}"
    yield f"{problem}, {a.dtype}, {a.threads} threads"
    yield f"{'':28}{'fit (s)':>9}{'transform (s)':>15}{'CPU (s)':>9}{'objective':>11}"
    for name, rounds in results.items():
        fit, transform, cpu, value = map(statistics.median, zip(*rounds, strict=True))
        yield f"{name:28}{fit:9.2f}{transform:15.2f}{cpu:9.2f}{value:11.4f}"


def main() -> None:
    a = arguments()
    warnings.simplefilter("ignore", ConvergenceWarning)
    with threadpool_limits(a.threads):
        for line in lines(a):
            print(line)


if __name__ == "__main__":
    main()
