"""Arrays of vectors, (3, ...) float64: components first, so that each operation runs along memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def dot(a: Array, b: Array) -> Array:
    """(...) a.b"""
    products = a * b
    total: Array = products[0] + products[1] + products[2]
    return total


def length(a: Array) -> Array:
    """(...) |a|"""
    out: Array = np.sqrt(dot(a, a))
    return out


def cross(a: Array, b: Array) -> Array:
    """(3, ...) a x b"""
    ax, ay, az = a
    bx, by, bz = b
    return np.array((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx))


def over(a: Array, b: Array) -> Array:
    """`a` / `b`, both finite, and 0 where `b` is 0."""
    quotient: Array = a / np.where(b == 0, np.inf, b)
    return quotient
