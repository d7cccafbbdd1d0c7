"""Finds the family of a checkpoint. A family is a module in `foveal.models.families` named after its model_type."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

from foveal.core.errors import ModelLoadError
from foveal.models import families
from foveal.models.family import Family

__all__ = ["family_of", "supported_model_types"]


@cache
def supported_model_types() -> tuple[str, ...]:
    """Sorted; read from the files, so that adding a family touches one file."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(families.__path__)))


@cache
def family_of(model_type: str) -> Family:
    """The family's one instance. Raises ModelLoadError that lists what is supported."""
    if model_type not in supported_model_types():
        raise ModelLoadError(
            f"model_type is {model_type!r}, which Foveal does not run. Supported: "
            f"{', '.join(supported_model_types())}. Choose a checkpoint of one of these families, or add "
            f"src/foveal/models/families/{model_type}.py."
        )
    family = import_module(f"{families.__name__}.{model_type}").FAMILY
    assert isinstance(family, Family)
    assert family.model_type == model_type
    return family
