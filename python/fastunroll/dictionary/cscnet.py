r"""CSCNet: a convolutional sparse coding network with three sets of filters.

Encoder, from z_0 = 0 with K layers, and decoder, where * is the sum over the filters of
convolutions with stride:

    z_{k+1} = S_theta(z_k - B^T * (C * z_k - x))
    x^ = D * z_K

B, C, D and theta, one threshold per filter, are learned and shared by all layers. With B = alpha C,
C = D and a single threshold it is `ConvolutionalPUDLE`. Source: Simon, Elad, "Rethinking the CSC
Model for Natural Images", NeurIPS 2019.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastunroll._checks import check_number, check_positive_int, check_shape, check_tensor
from fastunroll.dictionary.convolution import Convolution
from fastunroll.dictionary.encoder import unroll_convolutional
from fastunroll.functional import UnrolledResult
from fastunroll.nn.network import UnrolledNetwork


class CSCNet(UnrolledNetwork):
    """CSCNet: untied analysis, synthesis and decoding filters, one threshold per filter.

    The paper denoises with 175 filters of 11 x 11 pixels, stride 8 and 12 layers.

    Parameters
    ----------
    filters : (n_filters, channels, length) or (n_filters, channels, height, width)
        What B L, C and D start from, where L bounds ||C||_2^2; float32 or float64, copied.
    n_layers : int
        K.
    stride : int
        Distance of neighbouring places of a filter, at most its size.
    threshold : float
        What every entry of theta starts from, at least 0.

    Attributes
    ----------
    analysis, synthesis, decoder : (n_filters, *filter_shape)
        B, C and D.
    thresholds : (n_filters,)
        theta.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.

    Examples
    --------
    >>> model = CSCNet(torch.randn(175, 1, 11, 11), stride=8)
    >>> source = NoisyCrops(images, 131, 4, sigma=25 / 255)
    >>> Trainer(model, source, lambda model, batch: model.loss(*batch),
    ...         [Stage(name="all", max_steps=1000, learning_rate=1e-4)],
    ...         after_step=lambda model, step: model.project()).fit()
    """

    no_program = "has a convolutional dictionary"

    def __init__(
        self, filters: Tensor, n_layers: int = 12, *, stride: int = 8, threshold: float = 0.01
    ) -> None:
        super().__init__()
        filters = check_tensor("filters", filters, (3, 4)).detach()
        if not bool(torch.isfinite(filters).all()) or not bool(filters.any()):
            raise ValueError("filters must be finite and not all zero")
        self.n_layers = check_positive_int("n_layers", n_layers)
        check_number("threshold", threshold, minimum=0.0)
        self.convolution = Convolution(tuple(filters.shape[1:]), stride)
        bound = self.convolution.lipschitz_constant(filters.flatten(1))
        self.analysis = nn.Parameter(filters / bound)
        self.synthesis = nn.Parameter(filters.clone())
        self.decoder = nn.Parameter(filters.clone())
        self.thresholds = nn.Parameter(filters.new_full((len(filters),), threshold))

    def unroll(
        self,
        b: Tensor,
        *,
        objective_weight: float | None = None,
        iterates: bool = False,
    ) -> UnrolledResult:
        """Encode x = ``b`` (batch, channels, *size); see `unroll_convolutional`."""
        return unroll_convolutional(
            self.convolution,
            b,
            self.analysis.flatten(1),
            self.synthesis.flatten(1),
            self.thresholds.expand(self.n_layers, -1),
            objective_weight=objective_weight,
            iterates=iterates,
        )

    def decode(self, codes: Tensor) -> Tensor:
        """Rebuild x^ = D z (batch, channels, *size) from codes z (batch, n_filters, *places)."""
        return self.convolution.decode(codes, self.decoder.flatten(1))

    def loss(self, b: Tensor, target: Tensor) -> Tensor:
        """1/2 ||target - D z_K||^2, mean over the batch.

        Parameters
        ----------
        b, target : (batch, channels, *size)
            Noisy and clean signals.

        Raises
        ------
        TypeError, ValueError
            If they do not fit.
        """
        estimate = self.decode(self(b))
        check_shape("target", target, tuple(b.shape), "that of b")
        return 0.5 * (target - estimate).square().flatten(1).sum(dim=1).mean()

    @torch.no_grad()
    def project(self) -> None:
        """Keep the thresholds at least 0; to be called after every optimiser step."""
        self.thresholds.clamp_(min=0.0)

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        return {"n_layers": self.n_layers, "stride": self.convolution.stride}

    @classmethod
    def from_config(cls, config: dict[str, Any], state: dict[str, Tensor]) -> CSCNet:
        """Build the network that `config` and a ``state_dict`` describe."""
        model = cls(state["decoder"], **config)
        model.load_state_dict(state)
        return model
