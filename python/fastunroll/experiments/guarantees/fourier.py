"""An example like magnetic resonance imaging: blocks of an image from a few Fourier coefficients.

The measurements of a block are ``n_frequencies`` complex coefficients of its unitary discrete
Fourier transform, low frequencies more often than high ones, as in undersampled k-space. The codes
are its discrete cosine coefficients. All methods know the same coefficients of every block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import fold, unfold

from fastunroll.data import load_images, overcomplete_dct, sample_patches
from fastunroll.experiments.guarantees.settings import FourierSettings
from fastunroll.metrics import psnr
from fastunroll.nn import ADMMCSNet

ZERO_FILLED, CLASSICAL = "zero-filled", "ADMM"
_LAMBDAS = (1e-3, 3e-3, 1e-2, 3e-2)
_RHOS = (0.03, 0.1, 0.3, 1.0)
_N_VALIDATION = 512


def fourier_dictionary(side: int, n_frequencies: int, seed: int) -> Tensor:
    """Undersampled Fourier transform of the blocks' cosine atoms.

    Parameters
    ----------
    side : int
        Side of a block, in pixels.
    n_frequencies : int
        Number of coefficients, at most ``side ** 2``; that of frequency 0 is among them.
    seed : int
        Seed of their choice.

    Returns
    -------
    Tensor
        (n_frequencies, side^2), complex64.
    """
    frequency = np.abs(np.fft.fftfreq(side))
    distance = np.hypot(frequency[:, None], frequency[None, :]).ravel()
    weight = 1 / (distance + 1 / side) ** 2
    weight[0] = 1e6 * weight.sum()
    rng = np.random.default_rng(seed)
    chosen = rng.choice(side**2, n_frequencies, replace=False, p=weight / weight.sum())
    atoms = overcomplete_dct(side, side**2, dtype=torch.float64).T.reshape(-1, side, side)
    coefficients = torch.fft.fft2(atoms, norm="ortho").reshape(side**2, -1)
    measured: Tensor = coefficients[:, np.sort(chosen)].T.contiguous()
    return measured.to(torch.complex64)


def fourier_example(
    s: FourierSettings, seed: int
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Train ADMM-CSNet with soft and piecewise-linear shrinkage, and compare on a test image.

    Returns
    -------
    result : dict
        PSNR in dB of every method on the test image, and lambda and rho of the classical ADMM.
    pictures : dict of ndarray
        The image and every reconstruction of it.
    """
    atoms = overcomplete_dct(s.side, s.side**2)
    dictionary = fourier_dictionary(s.side, s.n_frequencies, seed)
    generator = torch.Generator().manual_seed(seed)
    training = load_images(split="train")

    def codes_of(count: int) -> Tensor:
        return sample_patches(training, s.side, count, generator) @ atoms

    def measured(codes: Tensor) -> Tensor:
        return codes.to(dictionary.dtype) @ dictionary.mT

    validation = codes_of(_N_VALIDATION)

    def error(network: ADMMCSNet) -> float:
        with torch.no_grad():
            return float((network(measured(validation)) - validation).square().mean())

    untrained = {
        (lam, rho): ADMMCSNet(dictionary, s.n_layers, lam=lam, rho=rho)
        for lam in _LAMBDAS
        for rho in _RHOS
    }
    best = min(untrained, key=lambda pair: error(untrained[pair]))
    networks = {CLASSICAL: untrained[best]}
    lam, rho = best
    for shrinkage in ("soft", "piecewise-linear"):
        network = ADMMCSNet(dictionary, s.n_layers, lam=lam, rho=rho, shrinkage=shrinkage)
        optimiser = torch.optim.Adam(network.parameters(), s.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, s.n_steps)
        for _ in range(s.n_steps):
            target = codes_of(s.batch)
            optimiser.zero_grad()
            (network(measured(target)) - target).square().sum(dim=1).mean().backward()
            optimiser.step()
            schedule.step()
        networks[f"ADMM-CSNet, {shrinkage}"] = network

    image = _centre(load_images(split="test")[0], s.image_side)
    pixels = torch.tensor(image, dtype=torch.float32)[None, None]
    blocks = unfold(pixels, s.side, stride=s.side)[0].T
    b = measured(blocks @ atoms)
    estimates = {ZERO_FILLED: (b @ dictionary.conj()).real}
    with torch.no_grad():
        estimates |= {name: network(b) for name, network in networks.items()}
    pictures = {"image": image}
    for name, codes in estimates.items():
        size = (s.image_side, s.image_side)
        found = fold((codes @ atoms.T).T[None], size, s.side, stride=s.side)[0, 0]
        pictures[name] = found.clamp(0, 1).numpy().astype(np.float64)
    scores = {name: psnr(pictures[name], image) for name in estimates}
    return {"PSNR dB": scores, "lambda": lam, "rho": rho}, pictures


def _centre(image: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Square in the middle of an image."""
    top, left = ((n - side) // 2 for n in image.shape)
    return image[top : top + side, left : left + side]
