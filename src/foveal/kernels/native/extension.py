"""The compiled kernels, if this installation has them."""

from __future__ import annotations

import importlib
import logging
from functools import cache
from types import ModuleType

from foveal.core.errors import ConfigurationError

__all__ = ["native_kernels", "require_native"]

_log = logging.getLogger(__name__)


@cache
def native_kernels() -> ModuleType | None:
    """The extension module, or None where it was not built; then one warning says so."""
    try:
        return importlib.import_module("foveal.kernels._native")
    except ImportError as error:
        _log.warning(
            "native kernels are not available (%s): running on torch, which is slower. Install a C++ compiler and "
            "reinstall foveal to build them.",
            error,
        )
        return None


def require_native() -> ModuleType:
    """The extension module. Raises ConfigurationError where it was not built."""
    found = native_kernels()
    if found is None:
        raise ConfigurationError(
            "native kernels were asked for, and this installation has none. Install a C++ compiler and reinstall foveal, "
            "or leave out --quantize, --kv-dtype int8 and decoder 'native'."
        )
    return found
