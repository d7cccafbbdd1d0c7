"""Keep what a base model made of a suite: it is the same for every candidate that is compared with it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from foveal.core.errors import FovealError
from foveal.evaluation.evaluation_result import Evaluation
from foveal.evaluation.observation import Observation

__all__ = ["observation_path", "read_observation", "write_observation"]


_ANSWERING = ("evaluation", "kernels", "models", "pipeline")


def observation_path(cache_dir: Path, model_digest: str, suite: str, dtype: str) -> Path:
    """A name for weights, questions, number format, machine type, versions and code: anything that changes answers."""
    tools = [version(name) for name in ("foveal", "torch", "transformers")]
    key = json.dumps([model_digest, suite, dtype, platform.machine(), platform.processor(), *tools, _source_digest()])
    return cache_dir / "observations" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"


def _source_digest() -> str:
    """Over the code that asks, judges and computes, so that a change of it is not answered from before."""
    root = Path(__file__).parents[1]
    total = hashlib.sha256()
    for package in _ANSWERING:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in (".py", ".cpp", ".h", ".inl"):
                total.update(path.read_bytes())
    return total.hexdigest()


def write_observation(path: Path, observation: Observation) -> None:
    """Written whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")  # two candidates may be proved at once
    texts = json.dumps([list(observation.answers), [list(row) for row in observation.top1]])
    try:
        with partial.open("wb") as file:
            np.savez(
                file,
                evaluation=np.frombuffer(observation.evaluation.to_json(), dtype=np.uint8),
                texts=np.frombuffer(texts.encode(), dtype=np.uint8),
                logits=observation.logits,
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_observation(path: Path) -> Observation | None:
    """None when there is none, or one that cannot be read: it is measured again then."""
    try:
        # Opened here, because numpy leaves a file open that turns out to be no archive.
        with path.open("rb") as file, np.load(file) as stored:
            evaluation = Evaluation.from_json(stored["evaluation"].tobytes())
            answers, top1 = json.loads(stored["texts"].tobytes())
            return Observation(evaluation, tuple(answers), tuple(map(tuple, top1)), stored["logits"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, FovealError):
        return None
