"""Load a checkpoint: the model with its weights, or the processor alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel

from foveal.core.errors import ConfigurationError, FovealError, ModelLoadError
from foveal.kernels.quantisation.scheme import LinearScheme
from foveal.models.family import Family
from foveal.models.language_model import DecoderKind, TransformersModel
from foveal.models.native_decoder import native_unsupported_reason
from foveal.models.precision import DTypeName, resolve_dtype
from foveal.models.processing.processor import Processor
from foveal.models.quantised.input_rounding import InputRounding
from foveal.models.quantised.loader import load_quantised
from foveal.models.quantised.rounded_linear import round_inputs
from foveal.models.quantised.stored_weight import StoredWeight
from foveal.models.registry import family_of
from foveal.models.weight_packer import LoadMode, WeightPacker

__all__ = ["LoadedCheckpoint", "load_checkpoint", "load_model", "load_processor"]

# Buffers that old checkpoints still carry and that transformers computes today.
_HARMLESS_KEYS = re.compile(r"rotary_emb\.inv_freq$|position_ids$|\.attn\.(masked_)?bias$")


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint as transformers runs it, before our decoder and attention take it over."""

    model: PreTrainedModel
    family: Family
    quantised_linears: Mapping[str, LinearScheme]
    stored_weights: Mapping[str, StoredWeight]
    """Module name -> codes as the checkpoint holds them."""


def load_model(
    model: str | Path,
    *,
    dtype: DTypeName = "auto",
    device: str | torch.device = "cpu",
    decoder: DecoderKind = "auto",
    quantize: LoadMode | None = None,
) -> TransformersModel:
    """Load a directory or hub id into memory, ready for `forward`.

    Weights must be safetensors (pickled ones can run code) and fit the config exactly: a missing, unexpected or
    wrongly shaped tensor or a NaN is a ModelLoadError, never a model that quietly answers nonsense. For `dtype` see
    `resolve_dtype`, for `decoder` TransformersModel.

    Quantised checkpoints (compressed-tensors, GPTQ, AWQ, bitsandbytes NF4) are dequantised while they load; linears whose
    layout has integer inputs round them.

    With `quantize` the text model runs on native kernels where it fits: stored codes as they are, other matrices rounded
    to "float16", "bfloat16", "int8" or "int4", or kept ("none", and "stored", which asks for native kernels only where
    there are stored codes).
    Raises ConfigurationError if rounding was asked for and the model does not fit.
    """
    if quantize is None and decoder == "native":
        quantize = "none"
    if quantize == "stored" and (decoder in ("fused", "hf") or not _has_codes(_existing(model))):
        quantize = None
    if quantize is not None and dtype == "auto" and torch.device(device).type == "cpu":
        dtype = "float32"  # what native kernels compute in
    loaded = load_checkpoint(model, dtype=dtype, device=device)
    packer = None
    if quantize is not None:
        stored = {loaded.model.get_submodule(name): weight for name, weight in loaded.stored_weights.items()}
        packer = WeightPacker("none" if quantize == "stored" else quantize, stored)
    built = TransformersModel(loaded.model, loaded.family, decoder, loaded.quantised_linears, packer)
    if quantize not in (None, "none", "stored") and built.native is None:
        reason = native_unsupported_reason(loaded.model.get_decoder()) or f"decoder '{decoder}' was asked for"
        raise ConfigurationError(
            f"quantize is {quantize}, which needs native kernels, and {model} cannot use them: {reason}. Leave it out, or "
            "prepare the model with `foveal compress`."
        )
    return built


def load_checkpoint(
    model: str | Path, *, dtype: DTypeName = "auto", device: str | torch.device = "cpu"
) -> LoadedCheckpoint:
    """What `load_model` loads, as the plain transformers model: with its own forward, `generate` and gradients."""
    source = _existing(model)
    family = family_of(_model_type(source))
    device = torch.device(device)
    linears: Mapping[str, LinearScheme] = {}
    roundings: Mapping[str, InputRounding] = {}
    stored_weights: Mapping[str, StoredWeight] = {}
    # Misfits are not tolerated, but listed with the others instead of raised without a name.
    options = {"attn_implementation": "sdpa", "ignore_mismatched_sizes": True}
    with _quiet(), _explained(source):
        config = transformers.AutoConfig.from_pretrained(source)
        stored = config.dtype or config.get_text_config().dtype
        run_in = resolve_dtype(dtype, stored, device)
        if getattr(config, "quantization_config", None) is None:
            loaded, info = getattr(transformers, family.auto_class).from_pretrained(
                source, config=config, dtype=run_in, use_safetensors=True, output_loading_info=True, **options
            )
        else:
            quantised = load_quantised(source, config, family, run_in, **options)
            loaded, info = quantised.model, quantised.info
            linears, roundings, stored_weights = quantised.linears, quantised.roundings, quantised.stored
    _refuse_wrong_keys(source, info)
    _refuse_bad_numbers(source, loaded)
    loaded = loaded.to(device)
    round_inputs(loaded, roundings)
    return LoadedCheckpoint(loaded, family, linears, stored_weights)


def load_processor(model: str | Path, *, chat_template: str | None = None) -> Processor:
    """Load tokenizer, image processor and chat template of a directory or hub id; no weights.

    A Processor pickles as its source, so that each worker process loads its own. Raises ModelLoadError.
    """
    source = _existing(model)
    family = family_of(_model_type(source))
    with _quiet(), _explained(source):
        return Processor.load(source, family, chat_template=chat_template)


def _existing(model: str | Path) -> str:
    source = str(Path(model).expanduser()) if Path(model).expanduser().exists() else str(model)
    path = Path(source)
    if path.exists():
        if not (path / "config.json").is_file():
            raise ModelLoadError(f"{source} has no config.json. Point to the directory that holds the checkpoint.")
    elif isinstance(model, Path) or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise ModelLoadError(f"there is no directory {source}. Give a checkpoint directory or a hub id like org/name.")
    return source


def _model_type(source: str) -> str:
    with _quiet(), _explained(source):
        values, _ = PreTrainedConfig.get_config_dict(source)
    found = values.get("model_type")
    if not found:
        raise ModelLoadError(f"config.json of {source} names no model_type. Use a checkpoint in transformers' format.")
    return str(found)


def _has_codes(source: str) -> bool:
    with _quiet(), _explained(source):
        values, _ = PreTrainedConfig.get_config_dict(source)
    return values.get("quantization_config") is not None


def _refuse_wrong_keys(source: str, info: dict[str, Any]) -> None:
    problems = []
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = sorted(name for name in map(_describe, info.get(kind, ())) if not _HARMLESS_KEYS.search(name))
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            problems.append(f"{kind.removesuffix('_keys')}: {shown}")
    if problems:
        raise ModelLoadError(
            f"the weights of {source} do not fit its config.json ({'; '.join(problems)}). Download the checkpoint again, "
            "or convert it to transformers' format."
        )


def _describe(key: str | tuple[Any, ...]) -> str:
    """A key, or for a mismatch (key, shape found, shape expected)."""
    return key if isinstance(key, str) else f"{key[0]} is {tuple(key[1])}, not {tuple(key[2])}"


def _refuse_bad_numbers(source: str, model: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        # A sum is one pass without a temporary; it is finite unless an element is not (or, rarely, it overflows).
        if not torch.isfinite(parameter.sum(dtype=torch.float32)) and not torch.isfinite(parameter).all():
            raise ModelLoadError(
                f"{name} of {source} holds NaN or infinity. The checkpoint is damaged: download or convert it again."
            )


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """Turn what transformers and safetensors raise into a ModelLoadError with a remedy."""
    try:
        yield
    except FovealError:
        raise
    except SafetensorError as error:
        raise ModelLoadError(f"a safetensors file of {source} is damaged ({error}). Download it again.") from error
    except (OSError, ValueError, LookupError, RuntimeError, ImportError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:500]
        raise ModelLoadError(
            f"{source} could not be loaded: {reason}. Check that the checkpoint is complete (config.json, *.safetensors, "
            "tokenizer files) and in transformers' format; a hub id needs network access the first time."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' load report and progress bars: we raise instead of printing."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
