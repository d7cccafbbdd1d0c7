"""`foveal demo-draft`: the draft as a plain Hugging Face checkpoint beside its target."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from foveal.artifacts.pinned_wheel import sha256_of
from foveal.demo.draft.weights import SHIPPED_DRAFT, load_draft
from foveal.demo.errors import ModelSourceError

__all__ = ["MANIFEST", "assemble_draft"]

MANIFEST = "foveal-demo-draft.json"
_FORMAT = 1
_TARGET_MANIFEST = "foveal-demo-model.json"


def assemble_draft(directory: Path, target: Path, weights: Path = SHIPPED_DRAFT) -> Path:
    """Writes an fp32 `LlamaForCausalLM` with the target's embedding, head and tokenizer; returns `directory`.

    Does nothing when it is there already. Raises ModelSourceError when the target or the weights are missing, when the
    directory holds something else, or when it cannot be written.
    """
    directory, target = directory.absolute(), target.absolute()
    if not (target / "config.json").is_file():
        raise ModelSourceError(f"{target} is not a checkpoint; write one first: foveal demo-model {target}")
    if not weights.is_file():
        raise ModelSourceError(f"the draft {weights} is missing; reinstall Foveal or train one (docs/demo-draft.md)")
    identity = {"format": _FORMAT, "draft_sha256": sha256_of(weights), "target": _identity_of(target)}
    if _is_complete(directory, identity):
        return directory
    _refuse_foreign(directory)
    partial = directory.with_name(f".{directory.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(partial, target, weights)
        files = {path.name: path.stat().st_size for path in sorted(partial.iterdir())}
        (partial / MANIFEST).write_text(json.dumps({"identity": identity, "files": files}, indent=1) + "\n")
        if directory.exists():
            shutil.rmtree(directory)
        os.replace(partial, directory)
    except OSError as error:
        raise ModelSourceError(f"cannot write the draft to {directory}: {error}; it needs 160 MB") from error
    return directory


def _write(partial: Path, target: Path, weights: Path) -> None:
    from foveal.demo.draft.target import load_target

    loaded = load_target(target)
    draft = load_draft(weights, loaded.language)
    draft.generation_config = loaded.language.generation_config
    draft.save_pretrained(partial)
    loaded.tokenizer.save_pretrained(partial)
    for path in partial.iterdir():
        path.chmod(0o644)  # safetensors writes files that only their owner can read


def _identity_of(target: Path) -> object:
    """The demo model's own identity; of another checkpoint, its weights' size."""
    manifest = target / _TARGET_MANIFEST
    if manifest.is_file():
        return json.loads(manifest.read_text())["identity"]
    return {path.name: path.stat().st_size for path in sorted(target.glob("*.safetensors"))}


def _is_complete(directory: Path, identity: dict[str, object]) -> bool:
    try:
        known = json.loads((directory / MANIFEST).read_text())
        sizes = {name: (directory / name).stat().st_size for name in known["files"]}
        return bool(known["identity"] == identity and sizes == known["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _refuse_foreign(directory: Path) -> None:
    """Never deletes what this command did not write."""
    if directory.exists() and not directory.is_dir():
        raise ModelSourceError(f"{directory} is a file; pass a directory for the draft")
    if directory.exists() and any(directory.iterdir()) and not (directory / MANIFEST).is_file():
        raise ModelSourceError(
            f"{directory} holds {len(list(directory.iterdir()))} files that are not a draft; pass an empty or new directory"
        )
