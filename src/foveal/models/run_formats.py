"""In which number formats a model runs: what --dtype, --quantize and --kv-dtype say, for server and proof alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from foveal.core.errors import ConfigurationError
from foveal.models.base import LanguageModel
from foveal.models.language_model import DecoderKind, TransformersModel
from foveal.models.loading import load_model
from foveal.models.precision import DTypeName
from foveal.models.weight_packer import LoadMode, QuantizeMode

__all__ = ["KvDtypeName", "RunFormats"]

KvDtypeName = Literal["auto", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFormats:
    """The default is what a server runs when it is told nothing: stored codes on native kernels, the rest as stored.

    Raises ConfigurationError.
    """

    dtype: DTypeName = "auto"
    quantize: QuantizeMode = "none"
    """Round what the checkpoint holds in full precision when it loads."""
    kv_dtype: KvDtypeName = "auto"
    decoder: DecoderKind = "auto"

    def __post_init__(self) -> None:
        for name, choices in (("quantize", get_args(QuantizeMode)), ("kv_dtype", get_args(KvDtypeName))):
            if getattr(self, name) not in choices:
                raise ConfigurationError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}")

    @property
    def load_mode(self) -> LoadMode:
        """What native kernels should make of the weights."""
        if self.quantize != "none":
            return self.quantize
        return "none" if self.kv_dtype == "int8" or self.decoder == "native" else "stored"

    def load(self, model: str | Path) -> TransformersModel:
        """See `load_model`."""
        return load_model(model, dtype=self.dtype, decoder=self.decoder, quantize=self.load_mode)

    def kv_format(self, model: LanguageModel) -> torch.dtype:
        """The KV cache's number format. Raises ConfigurationError if `model` cannot read the one that was asked for."""
        if self.kv_dtype != "int8":
            return getattr(model, "kv_dtype", model.dtype)
        if getattr(model, "native", None) is None:
            raise ConfigurationError(
                f"kv_dtype is int8, which only the native decoder reads, and this {model.spec.model_type} model does not "
                "run on it. Use kv_dtype auto."
            )
        return torch.int8
