"""Every operation once more in float64, one number at a time, with nothing shared with the backend under test."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def linear(x: NDArray[np.float32], weight: NDArray[np.float32]) -> F64:
    out = np.zeros((x.shape[0], weight.shape[0]))
    for t in range(x.shape[0]):
        for o in range(weight.shape[0]):
            out[t, o] = math.fsum(float(a) * float(b) for a, b in zip(x[t], weight[o], strict=True))
    return out


def rms_norm(x: NDArray[np.float32], weight: NDArray[np.float32], eps: float) -> F64:
    out = np.zeros(x.shape)
    for row in np.ndindex(*x.shape[:-1]):
        mean = math.fsum(float(v) ** 2 for v in x[row]) / x.shape[-1]
        for i, v in enumerate(x[row]):
            out[(*row, i)] = float(v) / math.sqrt(mean + eps) * float(weight[i])
    return out


def rope(x: NDArray[np.float32], positions: NDArray[np.int32], theta: float, factor: float) -> F64:
    """As a product of complex numbers: element i is the real, element i + dim/2 the imaginary part."""
    out, half = np.zeros(x.shape), x.shape[-1] // 2
    for t, head in np.ndindex(*x.shape[:2]):
        for i in range(half):
            angle = int(positions[t]) / factor * theta ** (-2 * i / x.shape[-1])
            turned = complex(x[t, head, i], x[t, head, i + half]) * complex(math.cos(angle), math.sin(angle))
            out[t, head, i], out[t, head, i + half] = turned.real, turned.imag
    return out


def gelu_gate(gate: NDArray[np.float32], up: NDArray[np.float32]) -> F64:
    out = np.zeros(gate.shape)
    for i in np.ndindex(*gate.shape):
        x = float(gate[i])
        out[i] = x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) * float(up[i])
    return out


def softcap(value: float, cap: float | None) -> float:
    return value if cap is None else cap * math.tanh(value / cap)


def attend(
    query: NDArray[np.float32],
    position: int,
    keys: NDArray[np.float32],
    values: NDArray[np.float32],
    *,
    scale: float,
    window: int | None,
    cap: float | None,
) -> F64:
    """One query of one head. keys, values [position + 1 or more, dim]: those of this head, by absolute position."""
    seen = [j for j in range(position + 1) if window is None or j > position - window]
    query, keys, values = query.astype(np.float64), keys.astype(np.float64), values.astype(np.float64)
    scores = [softcap(float(query @ keys[j]) * scale, cap) for j in seen]
    best = max(scores)
    weights = [math.exp(score - best) for score in scores]
    return sum(w * values[j] for w, j in zip(weights, seen, strict=True)) / math.fsum(weights)
