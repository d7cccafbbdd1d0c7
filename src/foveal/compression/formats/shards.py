"""Write tensors to safetensors files of bounded size, with the same bytes every time."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

__all__ = ["DEFAULT_SHARD_BYTES", "clear_shards", "write_shards"]

DEFAULT_SHARD_BYTES = 4 * 1024**3
_INDEX = "model.safetensors.index.json"
_OURS = re.compile(r"model(-\d{5}(-of-\d{5})?)?\.safetensors(\.index\.json)?")


def write_shards(
    directory: Path, tensors: Iterable[tuple[str, torch.Tensor]], *, max_shard_bytes: int = DEFAULT_SHARD_BYTES
) -> list[Path]:
    """Save tensors in the order given, a new file before one would grow past `max_shard_bytes`; more than one file get
    an index. Memory holds one shard at a time. Returns the files.

    Raises OSError if the disk is full or the directory cannot be written.
    """
    shards: list[dict[str, torch.Tensor]] = [{}]
    written: list[tuple[Path, list[str]]] = []
    size = total = 0
    for name, tensor in tensors:
        if shards[-1] and size + tensor.nbytes > max_shard_bytes:
            written.append(_write(directory, len(written) + 1, shards.pop()))
            shards.append({})
            size = 0
        # Copies of views, because safetensors refuses shared storage and would write more than the view.
        shards[-1][name] = tensor.contiguous().clone() if tensor._is_view() else tensor.contiguous()
        size += tensor.nbytes
        total += tensor.nbytes
    written.append(_write(directory, len(written) + 1, shards.pop()))
    if len(written) == 1:
        return [written[0][0].rename(directory / "model.safetensors")]
    weight_map = {}
    files = []
    for number, (path, names) in enumerate(written, 1):
        files.append(path.rename(directory / f"model-{number:05d}-of-{len(written):05d}.safetensors"))
        weight_map |= dict.fromkeys(names, files[-1].name)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / _INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    return [*files, directory / _INDEX]


def clear_shards(directory: Path) -> None:
    """Remove what an interrupted `write_shards` left behind."""
    for path in directory.iterdir():
        if _OURS.fullmatch(path.name):
            path.unlink()


def _write(directory: Path, number: int, tensors: dict[str, torch.Tensor]) -> tuple[Path, list[str]]:
    path = directory / f"model-{number:05d}.safetensors"
    try:
        # Files differ from run to run if metadata has more than one entry: safetensors writes them in hash order.
        save_file(dict(sorted(tensors.items())), path, metadata={"format": "pt"})
    except SafetensorError as error:
        if "os error 28" in str(error):
            raise OSError(errno.ENOSPC, "no space left on the device", str(path)) from error
        raise OSError(f"{path} could not be written ({error})") from error
    return path, sorted(tensors)
