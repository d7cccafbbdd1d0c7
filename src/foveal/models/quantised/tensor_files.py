"""The tensors of a checkpoint directory by name, read one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open

from foveal.core.errors import ModelLoadError

__all__ = ["TensorFiles"]

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


class TensorFiles:
    """Safetensors files of one checkpoint. Headers are read now, tensors when asked for; safe from several threads.

    Raises ModelLoadError if there are none or one that the index names is missing, SafetensorError if one is damaged.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._handles: dict[str, safe_open] = {}
        for file in _files(self.directory):
            handle = safe_open(str(self.directory / file), framework="pt", device="cpu")
            self._handles |= dict.fromkeys(handle.keys(), handle)

    def __contains__(self, name: str) -> bool:
        return name in self._handles

    def __iter__(self) -> Iterator[str]:
        """Names, sorted."""
        return iter(sorted(self._handles))

    def read(self, name: str) -> torch.Tensor:
        """The tensor as stored. Raises ModelLoadError if the checkpoint lacks it."""
        if name not in self._handles:
            raise ModelLoadError(
                f"{self.directory} has no tensor {name}, which its other tensors need. Download or convert it again."
            )
        return self._handles[name].get_tensor(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Read from the header. Raises KeyError."""
        return tuple(self._handles[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """safetensors' name of the type: F32, F16, BF16, F8_E4M3, I32, I8, U8. Raises KeyError."""
        return str(self._handles[name].get_slice(name).get_dtype())


def _files(directory: Path) -> list[str]:
    index = directory / _INDEX
    if index.is_file():
        try:
            files = sorted({Path(name).name for name in json.loads(index.read_text())["weight_map"].values()})
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelLoadError(f"{index} is not a safetensors index ({error!r}). Download it again.") from error
    elif (directory / _SINGLE).is_file():
        files = [_SINGLE]
    else:
        raise ModelLoadError(
            f"{directory} holds neither {_SINGLE} nor {_INDEX}. Weights must be safetensors: convert the checkpoint."
        )
    missing = [file for file in files if not (directory / file).is_file()]
    if missing:
        raise ModelLoadError(f"{directory} lacks {', '.join(missing)}, which its index names. Download it again.")
    return files
