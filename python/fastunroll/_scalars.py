"""Checks of numbers and choices, which need no torch."""

from __future__ import annotations

import math
import numbers


def check_positive_int(name: str, value: object) -> int:
    """Return ``value`` if it is an integer of at least 1 (TypeError, ValueError otherwise)."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def check_number(
    name: str, value: object, *, minimum: float = -math.inf, exclusive: bool = False
) -> float:
    """Return a finite number not below ``minimum`` (or strictly above it, if ``exclusive``).

    Raises
    ------
    TypeError
        If it is not a number.
    ValueError
        If it is NaN, infinite or too small.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}")
    if number < minimum or (exclusive and number == minimum):
        relation = "greater than" if exclusive else "at least"
        raise ValueError(f"{name} must be {relation} {minimum:g}, got {number:g}")
    return number


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    """Return ``value`` if it is one of ``choices`` (ValueError otherwise, listing them)."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
    return str(value)
