"""Which uniform bit-widths are refused or warned about (no torch)."""

from __future__ import annotations

from foveal.core.errors import ConfigurationError

__all__ = ["SAFE_UNIFORM_BITS", "refuse_uniform", "refuse_untouched"]

SAFE_UNIFORM_BITS = 4
"""Fewest bits at which every linear of a model may share one width without a warning."""

_MIN_UNIFORM_BITS = 3


def refuse_uniform(bits: int) -> str | None:
    """Judge one bit-width for every linear: None where it is safe, a warning at 3 bits.

    Raises ConfigurationError at 2 bits and below: four levels per group leave a signal-to-noise ratio near 9 dB on
    Gaussian weights, and no calibration brings a model of this size back from that.
    """
    if bits < _MIN_UNIFORM_BITS:
        raise ConfigurationError(
            f"every linear would be quantised to {bits} bits; the limit is {_MIN_UNIFORM_BITS}, because {2**bits} levels "
            "lose the model's answers whatever the method. Use 4 bits, or a budget that gives few bits only to "
            "the layers that bear them."
        )
    if bits < SAFE_UNIFORM_BITS:
        return (
            f"every linear is quantised to {bits} bits; {SAFE_UNIFORM_BITS} is the least that usually keeps accuracy. "
            "Expect losses, and check the proof; mixed precision under a budget loses less at the same size."
        )
    return None


def refuse_untouched(quantised_linears: int, linears: int) -> None:
    """Raise ConfigurationError where a recipe quantised nothing: such a result is the original under a new name."""
    if quantised_linears == 0:
        raise ConfigurationError(
            f"none of {linears} linears would be quantised; at least one must be. Check the recipe's patterns and "
            "components against the names that `foveal inspect` prints."
        )
