"""Whether image-text pairs can stand for what a model will see. Pure; numpy only.

A quantiser believes its calibration data. Placeholder pictures cost 7.6 points in a published INT8 case, so data that
cannot be representative is refused, with the reason and what to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from foveal.core.errors import ConfigurationError

__all__ = [
    "MIN_PAIRS",
    "CalibrationUnfitError",
    "is_blank",
    "is_noise",
    "neighbour_correlation",
    "picture_digest",
    "refuse_pictures",
    "refuse_texts",
]

MIN_PAIRS = 16
MAX_ODD_SHARE = 0.1
"""Noise or blank pictures tolerated among the others."""
_NOISE_CORRELATION = 0.25
_COARSE_CORRELATION = 0.1
_BUSY_ENTROPY_BITS = 6.5
_MIN_SIDE = 8


class CalibrationUnfitError(ConfigurationError):
    """Calibration data that would mislead the quantiser."""


def picture_digest(picture: Image.Image) -> bytes:
    """32 bytes over size and RGB values: equal pictures have equal digests, whatever file they came from."""
    pixels = np.asarray(picture.convert("RGB"))
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()


def neighbour_correlation(grey: npt.NDArray[np.float64]) -> float:
    """Correlation of pixels [height, width] with their right and lower neighbours: white noise 0, photographs > 0.8.

    1 for a picture of one shade.
    """
    centred = grey - grey.mean()
    variance = float((centred**2).mean())
    if variance < 1e-9:
        return 1.0
    products = [(centred[:, 1:] * centred[:, :-1]).mean(), (centred[1:] * centred[:-1]).mean()]
    return float(np.mean(products)) / variance


def is_blank(picture: Image.Image) -> bool:
    """One shade everywhere."""
    return float(_grey(picture).std()) < 0.5


def is_noise(picture: Image.Image) -> bool:
    """Neighbouring pixels say nothing about each other, or, for enlarged noise, neighbouring areas do not.

    Drawings and text also have unrelated areas, but few shades of grey; photographs have many shades and related areas.
    """
    grey = _grey(picture)
    if min(grey.shape) < 2 or grey.std() < 0.5:
        return False
    if neighbour_correlation(grey) < _NOISE_CORRELATION:
        return True
    if _entropy_bits(grey) < _BUSY_ENTROPY_BITS:
        return False
    factor = 2
    while min(grey.shape) // factor >= _MIN_SIDE:
        if neighbour_correlation(_shrunk(grey, factor)) < _COARSE_CORRELATION:
            return True
        factor *= 2
    return False


def refuse_pictures(pictures: Sequence[Image.Image]) -> None:
    """Raises CalibrationUnfitError for noise, blank or equal pictures."""
    digests = {picture_digest(picture) for picture in pictures}
    if len(digests) < max(2, len(pictures) // 10):
        raise CalibrationUnfitError(
            f"{len(pictures)} calibration pairs show only {len(digests)} different pictures; at least "
            f"{max(2, len(pictures) // 10)} are needed. Use pictures of the kind the model will see in service."
        )
    for test, word in ((is_noise, "random noise"), (is_blank, "blank")):
        odd = sum(test(picture) for picture in pictures)
        if odd > MAX_ODD_SHARE * len(pictures):
            raise CalibrationUnfitError(
                f"{odd} of {len(pictures)} calibration pictures are {word}; at most {MAX_ODD_SHARE:.0%} may be. "
                "Activations on such pictures are unlike those in service: use real pictures, or the rendered tasks."
            )


def refuse_texts(tasks: Sequence[str], questions: Sequence[str]) -> None:
    """Raises CalibrationUnfitError for too few pairs or one task only (judged by questions where no task is named).

    Passages, which have no question, are of no task.
    """
    if len(questions) < MIN_PAIRS:
        raise CalibrationUnfitError(
            f"there are {len(questions)} calibration pairs; at least {MIN_PAIRS} are needed, 100 to 200 are good. "
            "Add pairs, or use the rendered tasks."
        )
    asked = [(task, question) for task, question in zip(tasks, questions, strict=True) if question]
    tasks, questions = [task for task, _ in asked], [question for _, question in asked]
    if any(tasks):
        if len(set(tasks)) == 1:
            raise CalibrationUnfitError(
                f"all {len(tasks)} calibration pairs are of one task ({tasks[0]}). Mix at least two: a model calibrated "
                "on one forgets the others."
            )
    elif len(set(questions)) == 1:
        raise CalibrationUnfitError(
            f"all {len(questions)} calibration pairs ask the same question ({questions[0]!r}). Mix several tasks."
        )


def _grey(picture: Image.Image) -> npt.NDArray[np.float64]:
    return np.asarray(picture.convert("L"), dtype=np.float64)


def _entropy_bits(grey: npt.NDArray[np.float64]) -> float:
    counts = np.bincount(grey.astype(np.uint8).ravel(), minlength=256)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _shrunk(grey: npt.NDArray[np.float64], factor: int) -> npt.NDArray[np.float64]:
    """Means of factor x factor areas."""
    height, width = (side // factor * factor for side in grey.shape)
    areas = grey[:height, :width].reshape(height // factor, factor, width // factor, factor)
    return areas.mean((1, 3))
