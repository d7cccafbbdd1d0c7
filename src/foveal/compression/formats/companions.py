"""Files beside the weights that a compressed checkpoint needs unchanged."""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path

__all__ = ["companion_files", "copy_companions"]

# A list of what is copied, not of what is left out: a source directory may hold optimiser states or other formats.
_COMPANIONS = (
    "added_tokens.json",
    "chat_template.*",
    "generation_config.json",
    "image_processor_config.json",
    "LICENSE*",
    "merges.txt",
    "NOTICE*",
    "*.model",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "*.tiktoken",
    "tokenizer*.json",
    "video_preprocessor_config.json",
    "vocab.*",
)
_DIRECTORIES = ("additional_chat_templates",)


def companion_files(source: Path) -> list[Path]:
    """Processor, tokenizer, chat template, generation settings and licence of a checkpoint, sorted."""
    files = [path for path in source.iterdir() if path.is_file() and any(fnmatch(path.name, p) for p in _COMPANIONS)]
    for name in _DIRECTORIES:
        files += [path for path in (source / name).rglob("*") if path.is_file()]
    return sorted(files)


def copy_companions(source: Path, out: Path) -> list[Path]:
    """Copy them byte for byte. Raises OSError."""
    copies = []
    for path in companion_files(source):
        copy = out / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copies.append(Path(shutil.copyfile(path, copy)))
    return copies
