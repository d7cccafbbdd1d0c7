"""One digest for what a model's speed depends on: its configuration and the shapes and formats of its tensors."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

__all__ = ["shape_digest"]

_LARGEST_HEADER = 100 << 20


def shape_digest(model: str | Path) -> str:
    """32 hex digits over config.json and the headers of all safetensors files. Reads no weights.

    Two fine-tunes of one model have the same digest, and so share a calibration. A hub id stands for itself.
    """
    directory = Path(model).expanduser()
    digest = hashlib.sha256()
    if not directory.is_dir():
        digest.update(str(model).encode())
        return digest.hexdigest()[:32]
    config = directory / "config.json"
    if config.is_file():
        digest.update(config.read_bytes())
    for path in sorted(directory.glob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            prefix = file.read(8)
            if len(prefix) == 8:
                digest.update(file.read(min(struct.unpack("<Q", prefix)[0], _LARGEST_HEADER)))
    return digest.hexdigest()[:32]
