"""The checkpoint formats by name, and whether one can express a recipe."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from foveal.compression.formats.awq import AwqFormat
from foveal.compression.formats.base import CheckpointFormat, FormatRequest
from foveal.compression.formats.bnb_nf4 import BnbNf4Format
from foveal.compression.formats.compressed_tensors import CompressedTensorsFormat
from foveal.compression.formats.gptq import GptqFormat
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.scheme import LinearScheme

__all__ = ["DEFAULT_FORMAT", "FORMAT_NAMES", "check_expressible", "format_named"]

DEFAULT_FORMAT = "compressed-tensors"
_FORMATS: dict[str, CheckpointFormat] = {
    known.name: known for known in (CompressedTensorsFormat(), GptqFormat(), AwqFormat(), BnbNf4Format())
}
FORMAT_NAMES = tuple(_FORMATS)


def format_named(name: str) -> CheckpointFormat:
    """Raises ConfigurationError that lists the formats."""
    if name not in _FORMATS:
        raise ConfigurationError(f"format {name!r} is not known. Use one of: {', '.join(FORMAT_NAMES)}.")
    return _FORMATS[name]


def check_expressible(
    schemes: Mapping[str, LinearScheme],
    format: str = DEFAULT_FORMAT,  # noqa: A002 - the option's name
    *,
    embeddings: Collection[str] = (),
    shapes: Mapping[str, tuple[int, int]] = MappingProxyType({}),
) -> None:
    """Raise ConfigurationError, with module, limit and remedy, if `format` has no way to store these schemes.

    Pure: call it before any work starts. `schemes` names modules; `embeddings` says which of them are tables, `shapes`
    [out, in] where known (some layouts pack whole words).
    """
    if not schemes:
        raise ConfigurationError(
            "no linear is quantised, so there is nothing to store. Check the recipe's rules: they match no module."
        )
    format_named(format).refuse(FormatRequest(schemes, embeddings=embeddings, shapes=shapes))
