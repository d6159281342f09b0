"""Gram matrices, and a dictionary made ready for repeated use, with the kernels' copies of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastunroll import planner
from fastunroll._checks import check_choice, check_dictionary, check_like, check_tensor
from fastunroll.backend import forced_backend
from fastunroll.ops import autograd, cpu, cuda
from fastunroll.ops.pack import pack_operands
from fastunroll.ops.repeat import RepeatedCall

FORMS = ("auto", "gram", "factored")


@dataclass(frozen=True)
class PreparedDictionary:
    """A fixed dictionary A (and analysis weights W) with everything computed once.

    Made by `prepare`; passed to `unrolled_prox_gradient` in place of the dictionary. It holds
    detached copies, so no gradient reaches A or W through it.

    Attributes
    ----------
    dictionary : (m, n)
    weight : (1 or K, m, n), or None where W = A
    gram : (1 or K, n, n), or None in the factored form
    packed : copies in the layout of the device's kernels, empty where there are none
    last_call : what the kernels were told in the last call, for when it is repeated
    """

    dictionary: Tensor
    weight: Tensor | None
    gram: Tensor | None
    packed: tuple[Tensor, ...]
    last_call: RepeatedCall = field(default_factory=RepeatedCall, compare=False, repr=False)

    @property
    def form(self) -> str:
        """``"gram"`` or ``"factored"``."""
        return "factored" if self.gram is None else "gram"

    @property
    def analysis(self) -> Tensor:
        """Analysis weights W: (1 or K, m, n); A itself where W = A."""
        return self.dictionary[None] if self.weight is None else self.weight


def check_weight(weight: object, dictionary: Tensor) -> Tensor:
    """Return analysis weights as (1 or K, m, n), checked against the dictionary (m, n)."""
    weight = check_tensor("weight", weight, (2, 3))
    check_like("weight", weight, "dictionary", dictionary)
    if weight.shape[-2:] != dictionary.shape:
        raise ValueError(
            f"weight must end in the dictionary's shape {tuple(dictionary.shape)}, "
            f"got shape {tuple(weight.shape)}"
        )
    if weight.shape[0] == 0:
        raise ValueError(f"weight must hold at least one layer, got shape {tuple(weight.shape)}")
    return weight if weight.dim() == 3 else weight[None]


def prepare(
    dictionary: Tensor, weight: Tensor | None = None, *, form: str = "auto"
) -> PreparedDictionary:
    """Prepare a fixed dictionary for fast repeated use.

    The Gram matrix G = A^T W is formed in float64 and rounded once, which lowers the accuracy
    floor of the Gram form in float32 by about 20 dB.

    Parameters
    ----------
    dictionary : (m, n)
        Dictionary A, float32 or float64.
    weight : (m, n) or (K, m, n), optional
        Analysis weights W; the dictionary itself by default.
    form : {"auto", "gram", "factored"}
        How the gradient is computed; ``"auto"`` asks the planner.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or device, is not finite, or if the
        dictionary has a column of zeros.
    """
    dictionary = check_dictionary("dictionary", dictionary).detach()
    if weight is not None:
        weight = check_weight(weight, dictionary).detach()
        if not bool(torch.isfinite(weight).all()):
            raise ValueError("weight contains NaN or Inf")
    if check_choice("form", form, FORMS) == "auto":
        n_weights = 1 if weight is None else len(weight)
        device = dictionary.device.type
        form = planner.plan_prepared(dictionary.shape, n_weights, device=device).form
    native = dictionary.device.type == "cpu"
    with torch.no_grad():
        gram = None
        if form == "gram":
            analysis = dictionary[None] if weight is None else weight
            # In our own product on the CPU: `fastunroll.runtime` forms the same G, bit for bit.
            product = cpu.multiply if native else torch.matmul
            gram = product(dictionary.double().mT, analysis.double()).to(dictionary.dtype)
        packed: tuple[Tensor, ...] = ()
        if native:
            symmetric = weight is None
            packed = pack_operands(gram, dictionary, weight, analysis=True, symmetric=symmetric)
        elif dictionary.device.type == "cuda" and cuda.BACKEND is not None:
            packed = cuda.BACKEND.prepare(gram, dictionary, weight)
        return PreparedDictionary(dictionary, weight, gram, packed)


def gram_operands(
    b: Tensor, dictionary: Tensor, weight: Tensor | None, gram: Tensor | None
) -> tuple[Tensor | None, Tensor]:
    """Return c = b W, if its gradient is needed, and G = A^T W, if it is not given.

    Else the kernels compute c, in the same way, and its gradient where G is learned, too. Shapes
    (1 or K, B, n) and (1 or K, n, n).
    """
    learns = autograd.needs_grad((b, dictionary, weight))
    if gram is not None and (gram.requires_grad or not learns):
        return None, gram
    if torch.is_autocast_enabled(b.device.type):
        with torch.autocast(b.device.type, enabled=False):
            return gram_operands(b, dictionary, weight, gram)
    analysis = dictionary[None] if weight is None else weight
    if gram is None:
        if weight is None and not learns and runs_natively(dictionary):
            return None, cpu.gram(dictionary)[None]
        # One plain matrix product where it does: the batched one is slower.
        one = analysis.shape[0] == 1
        gram = (dictionary.mT @ analysis[0])[None] if one else dictionary.mT @ analysis
    return autograd.multiply(b, analysis) if learns else None, gram


def runs_natively(dictionary: Tensor) -> bool:
    """Whether the kernels of the CPU, and nothing else, see a dictionary."""
    return forced_backend() != "reference" and autograd.is_plain((dictionary,))
