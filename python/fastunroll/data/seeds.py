"""Seeds of the random streams of one problem."""

from __future__ import annotations

from typing import Literal

Stream = Literal["dictionary", "training", "validation", "test"]

_STREAMS = {"dictionary": 0, "training": 1, "validation": 2, "test": 3}
_SEED_BITS = 30


def stream_seed(seed: int, stream: Stream) -> int:
    """Seed for ``torch.Generator.manual_seed`` of one of the streams that a seed stands for.

    PyTorch's generator on the CPU looks at the lowest 32 bits of a seed and ignores the others. So
    the stream is told by the highest two of these, and 30 are left for the seed.

    Parameters
    ----------
    seed : int
        At least 0 and less than 2^30.
    stream : {"dictionary", "training", "validation", "test"}
        What is drawn.

    Returns
    -------
    int

    Raises
    ------
    TypeError, ValueError
        If the seed is not as above.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an int, got {type(seed).__name__}")
    if not 0 <= seed < 1 << _SEED_BITS:
        raise ValueError(f"seed must be from 0 to 2^{_SEED_BITS} - 1, got {seed}")
    return _STREAMS[stream] << _SEED_BITS | seed
