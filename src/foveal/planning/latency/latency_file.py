"""A calibrated latency model on disk: which machine, model and precision it is for, and how good it is."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foveal.core.errors import ConfigurationError
from foveal.planning.latency.fit import FitError, MeasuredStep
from foveal.planning.latency.latency_model import STEP_TERMS, VISION_TERMS, LatencyModel

__all__ = ["Calibration", "LatencyKey", "cpu_name", "latency_cache_dir", "load_calibration", "save_calibration"]

SCHEMA = 1


def latency_cache_dir() -> Path:
    return Path.home() / ".cache" / "foveal" / "latency"


def cpu_name() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyKey:
    """A calibration is used where all of this is the same."""

    cpu: str
    threads: int
    model: str
    """Digest of what the time depends on: config and tensor shapes, not values."""
    dtype: str
    decoder: str
    quantize: str
    kv_dtype: str
    version: str
    """Of Foveal: a newer one may have faster kernels."""

    @property
    def digest(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What `foveal calibrate` found."""

    key: LatencyKey
    model_name: str
    model: LatencyModel
    weight_bytes: int
    """Read once per step."""
    bandwidth_bytes_s: float
    """Median of a plain read of memory beside each round."""
    rounds: int
    seconds: float
    """What the calibration took."""
    date: str
    decoder_error: FitError | None
    vision_error: FitError | None
    steps: tuple[MeasuredStep, ...] = ()

    @property
    def weights_s(self) -> float:
        """The part of `fixed` that reading the weights explains at the measured bandwidth."""
        return min(self.model.step[0], self.weight_bytes / self.bandwidth_bytes_s)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        vision = self.model.vision
        return {
            "schema": SCHEMA,
            "key": asdict(self.key),
            "model_name": self.model_name,
            "date": self.date,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "bandwidth_bytes_s": self.bandwidth_bytes_s,
            "weight_bytes": self.weight_bytes,
            "step_s": dict(zip(STEP_TERMS, self.model.step, strict=True)),
            "fixed_of_which_weights_s": self.weights_s,
            "vision_s": None if vision is None else dict(zip(VISION_TERMS, vision, strict=True)),
            "held_out_error": {
                name: None if error is None else asdict(error)
                for name, error in (("decoder", self.decoder_error), ("vision", self.vision_error))
            },
            "steps": [_step_dict(self.model, step) for step in self.steps],
        }


def save_calibration(calibration: Calibration, directory: Path | None = None, name: str | None = None) -> Path:
    """Under its key's digest, or `name`; whole or not at all. Raises ConfigurationError if it cannot be written."""
    path = (directory or latency_cache_dir()) / (name or f"{calibration.key.digest}.json")
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(calibration.as_dict(), indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path.parent} cannot be written ({error.strerror}). Free space there, or name another place with --output."
        ) from error
    return path


def load_calibration(source: LatencyKey | Path, directory: Path | None = None) -> Calibration | None:
    """By key from the cache, None if there is none for it; or a file. Raises ConfigurationError if it cannot be read."""
    path = source if isinstance(source, Path) else (directory or latency_cache_dir()) / f"{source.digest}.json"
    if not path.is_file():
        if isinstance(source, Path):
            raise ConfigurationError(f"there is no latency model {path}. Write one with `foveal calibrate`.")
        return None
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} is not a latency model of this version ({type(error).__name__}: {error}). Remove it, or run "
            "`foveal calibrate` again."
        ) from error


def _parse(document: dict[str, Any]) -> Calibration:
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']}, not {SCHEMA}")
    vision = document["vision_s"]
    errors = document["held_out_error"]
    return Calibration(
        key=LatencyKey(**document["key"]),
        model_name=document["model_name"],
        model=LatencyModel(
            tuple(float(document["step_s"][name]) for name in STEP_TERMS),
            None if vision is None else tuple(float(vision[name]) for name in VISION_TERMS),
        ),
        weight_bytes=document["weight_bytes"],
        bandwidth_bytes_s=document["bandwidth_bytes_s"],
        rounds=document["rounds"],
        seconds=document["seconds"],
        date=document["date"],
        decoder_error=None if errors["decoder"] is None else FitError(**errors["decoder"]),
        vision_error=None if errors["vision"] is None else FitError(**errors["vision"]),
    )


def _step_dict(model: LatencyModel, step: MeasuredStep) -> dict[str, Any]:
    return {
        "name": step.name,
        "held_out": step.held_out,
        "measured_s": step.seconds,
        "predicted_s": model.step_s(step.work),
        "spread": step.spread,
        "work": asdict(step.work),
    }
