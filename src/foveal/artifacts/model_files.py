"""Which files of a model directory matter to a loader, and one digest for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from foveal.artifacts.canonical_json import digest_of
from foveal.artifacts.file_digests import FileEntry, Progress, digest_files
from foveal.artifacts.storage import explain_storage_errors
from foveal.core.errors import MissingFileError

__all__ = ["is_model_file", "is_weight_file", "model_digest", "model_files", "source_digest", "weight_bytes"]

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.npz", "*.h5", "*.msgpack", "*.onnx")
# What transformers reads beside the weights; code, because `trust_remote_code` would run it.
_SETTINGS = (
    "config.json",
    "*_config.json",
    "*.index.json",
    "preprocessor_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "*.tiktoken",
    "chat_template.*",
    "additional_chat_templates/*",
    "*.py",
)


def is_weight_file(name: str) -> bool:
    return any(fnmatchcase(name.lower(), pattern) for pattern in _WEIGHTS)


def is_model_file(name: str) -> bool:
    """Weights, configuration, tokenizer or processor. Not: read-me files, licences, reports, passport.json."""
    return is_weight_file(name) or any(fnmatchcase(name.lower(), pattern) for pattern in _SETTINGS)


def model_files(directory: Path) -> list[str]:
    """Names of the model files of a directory, sorted; sub-folders are other models' or originals, except templates.

    Raises MissingFileError when there is no config.json or no weights.
    """
    with explain_storage_errors(directory):
        found = [path.name for path in directory.iterdir() if path.is_file()]
        templates = directory / "additional_chat_templates"
        if templates.is_dir():
            found += [f"{templates.name}/{path.name}" for path in templates.iterdir() if path.is_file()]
    names = sorted(name for name in found if not name.startswith(".") and is_model_file(name))
    if "config.json" not in names or not any(map(is_weight_file, names)):
        lacking = "config.json" if "config.json" not in names else "weights"
        raise MissingFileError(
            f"{directory} has no {lacking}", "a model directory", "Point to the directory that holds the checkpoint"
        )
    return names


def model_digest(files: Mapping[str, FileEntry]) -> str:
    """One digest for the model files among `files`: the same for a directory and for the passport that lists it."""
    return digest_of({name: [entry.bytes, entry.sha256] for name, entry in files.items() if is_model_file(name)})


def source_digest(directory: Path, *, progress: Progress | None = None) -> str:
    """The digest of a model directory's weights, configuration and processor files. Reads all of them once."""
    return model_digest(digest_files(directory, model_files(directory), progress=progress))


def weight_bytes(directory: Path) -> int:
    """Bytes of all weight files of a model directory."""
    return sum((directory / name).stat().st_size for name in model_files(directory) if is_weight_file(name))
