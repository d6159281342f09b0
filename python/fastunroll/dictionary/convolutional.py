r"""Convolutional PUDLE: the atoms are a few filters at all places of a grid.

Encoder, from z_0 = 0 with K layers, and decoder, where * is the sum over the filters of
convolutions with stride:

    z_{k+1} = S_{alpha lambda_k}(z_k - alpha D^T * (D * z_k - x)),   lambda_k = lambda beta^k
    x^ = D * z_K

It is `PUDLE` for the matrix of all shifts of the filters, and has the same three gradients. Source:
Tolooshams, Ba, "Stable and Interpretable Unrolled Dictionary Learning", TMLR 2022.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastunroll._checks import check_positive_int, check_tensor
from fastunroll.dictionary.convolution import Convolution
from fastunroll.dictionary.encoder import unroll_convolutional
from fastunroll.dictionary.pudle import PUDLE
from fastunroll.functional import UnrolledResult


class ConvolutionalPUDLE(PUDLE):
    """PUDLE with a convolutional dictionary, for signals and images of any size.

    Samples are x (batch, channels, *size) with one axis or two, codes (batch, n_filters, *places).
    The sizes must be those that filters fill without a rest, the size of a filter plus a multiple
    of the stride; `fastunroll.dictionary.denoise_by_shifts` takes any image.

    Parameters
    ----------
    filters : (n_filters, channels, length) or (n_filters, channels, height, width)
        D to start from, float32 or float64; copied and made to meet the constraint.
    n_layers : int
        K.
    stride : int
        Distance of neighbouring places of a filter, at most its size.
    step : float, optional
        alpha. By default 1 / ||D||_2^2 for images of any size, which follows the filters; that
        takes longer than a layer in every `project`.
    prox : {"soft", "nonnegative", "hard"}
        As in `PUDLE`.
    lam, gradient, layer_decay, constraint, learn_step, learn_lam
        As in `PUDLE`; the constraint is on the norm of a filter.

    Attributes
    ----------
    dictionary : (channels * height * width, n_filters)
        The filters as columns: the learned parameter.
    lam, layer_decay, step : scalar tensors
        As in `PUDLE`.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.

    Examples
    --------
    >>> model = ConvolutionalPUDLE(torch.randn(64, 1, 9, 9), stride=4, lam=0.12, step=0.1)
    >>> train_dictionary(model, NoisyCrops(images, 129, 4, sigma=25 / 255), 1000)
    """

    no_program = "has a convolutional dictionary"

    def __init__(
        self,
        filters: Tensor,
        n_layers: int = 15,
        *,
        stride: int = 1,
        lam: float = 0.12,
        step: float | None = None,
        gradient: str = "ae-ls",
        prox: str = "soft",
        layer_decay: float = 1.0,
        constraint: str = "projected",
        learn_step: bool = False,
        learn_lam: bool = False,
    ) -> None:
        filters = check_tensor("filters", filters, (3, 4))
        # Before the base class begins: it asks for the step that follows the filters.
        self.convolution = Convolution(tuple(filters.shape[1:]), stride)
        super().__init__(
            filters.flatten(1).mT,
            n_layers,
            lam=lam,
            step=step,
            gradient=gradient,
            prox=prox,
            layer_decay=layer_decay,
            constraint=constraint,
            learn_step=learn_step,
            learn_lam=learn_lam,
        )

    @property
    def filters(self) -> Tensor:
        """D: (n_filters, channels, height, width), or one axis less."""
        return self.dictionary.mT.reshape(-1, *self.convolution.filter_shape)

    def unroll(
        self,
        b: Tensor,
        *,
        objective_weight: float | None = None,
        iterates: bool = False,
        n_layers: int | None = None,
    ) -> UnrolledResult:
        """Encode x = ``b`` with the first ``n_layers`` layers, all by default.

        Parameters
        ----------
        b : (batch, channels, *size)
            x.
        objective_weight : float, optional
            lambda; where given, F(z_k) = 1/2 ||D z_k - x||^2 + lambda ||z_k||_1 of every iterate
            is returned, (n_layers + 1, batch).
        iterates : bool
            Return every iterate, (n_layers + 1, batch, n_filters, *places).
        n_layers : int, optional
            Layers to run.

        Raises
        ------
        TypeError, ValueError
            If ``b`` does not fit.
        """
        if n_layers is not None and check_positive_int("n_layers", n_layers) > self.n_layers:
            raise ValueError(f"n_layers must be at most {self.n_layers}, got {n_layers}")
        filters = self.dictionary.mT
        return unroll_convolutional(
            self.convolution,
            b,
            self.step * filters,
            filters,
            self.thresholds[:n_layers, None],
            prox=self.prox,
            objective_weight=objective_weight,
            iterates=iterates,
        )

    def program(self) -> None:
        """None: the engine has no convolutions."""

    def decode(self, codes: Tensor) -> Tensor:
        """Rebuild x^ = D * z (batch, channels, *size) from codes z (batch, n_filters, *places)."""
        return self.convolution.decode(codes, self.dictionary.mT)

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        config = super().config()
        del config["accelerated"]
        filter_shape = list(self.convolution.filter_shape)
        return {**config, "stride": self.convolution.stride, "filter_shape": filter_shape}

    @classmethod
    def from_config(cls, config: dict[str, Any], state: dict[str, Tensor]) -> ConvolutionalPUDLE:
        """Build the network that `config` and a ``state_dict`` describe."""
        options = dict(config)
        filters = state["dictionary"].mT.reshape(-1, *options.pop("filter_shape"))
        model = super().from_config(options, {**state, "dictionary": filters})
        assert isinstance(model, ConvolutionalPUDLE)
        return model

    def _check(self, b: Tensor) -> None:
        self.convolution.check("b", b, self.dictionary)

    def _follow_dictionary(self) -> None:
        self.step.detach().fill_(1.0 / self.convolution.lipschitz_constant(self.dictionary.mT))
