"""What a model costs to run, in a process of its own: peak memory is a process's, and a fresh one proves that it loads.

python -m foveal.pipeline.running_cost DIRECTORY DTYPE QUANTIZE KV_DTYPE
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from foveal.core.errors import FovealError
from foveal.evaluation.evaluation_result import Speed
from foveal.evaluation.model import Running
from foveal.models.run_formats import RunFormats
from foveal.pipeline.fresh_process import run_fresh

__all__ = ["measure_running", "peak_memory_bytes"]

_AS_SERVED = RunFormats()

REPEATS = 3
DECODED_TOKENS = 24
QUESTION = "What is in the image? Describe every thing that you see, its shape, its colour and where it is. " * 4
PICTURE_SIDE = 224


def measure_running(directory: Path, formats: RunFormats = _AS_SERVED) -> Running:
    """Start the process and read what it measured. Raises ModelLoadError with its last words when it fails."""
    failure = f"{directory} does not run in a fresh process"
    arguments = (str(directory), formats.dtype, formats.quantize, formats.kv_dtype)
    figures = json.loads(run_fresh(__name__, *arguments, failure=failure).splitlines()[-1])
    speed = Speed(
        encode_ms=figures["encode_ms"],
        prefill_tok_s=figures["prefill_tok_s"],
        decode_tok_s=figures["decode_tok_s"],
    )
    return Running(speed, figures["peak_memory_bytes"])


def _measure(directory: Path, formats: RunFormats) -> dict[str, float]:
    """Batch 1, medians of three after one warm-up: one picture encoded, its prompt prefilled, 24 tokens decoded."""
    import torch
    from PIL import Image

    from foveal.evaluation.model import Prompt
    from foveal.models.loading import load_processor
    from foveal.pipeline.prompt_preparation import prepare_prompt
    from foveal.pipeline.verified_decoding import VerifiedDecoder

    model = formats.load(directory)
    processor = load_processor(directory)
    picture = Image.new("RGB", (PICTURE_SIDE, PICTURE_SIDE), (90, 160, 220)) if model.spec.supports_images else None
    drafted = prepare_prompt(processor, Prompt(QUESTION, picture), model.spec.eos_token_ids)
    decoder = VerifiedDecoder(_Endless(model), formats.kv_format(model))  # type: ignore[arg-type]
    images = list(drafted.prompt.images)
    with torch.inference_mode():
        encode_s = _median_s(lambda: model.encode_images(images)) if images else 0.0
        one_s = _median_s(lambda: decoder.complete([[drafted]], max_tokens=1))
        all_s = _median_s(lambda: decoder.complete([[drafted]], max_tokens=1 + DECODED_TOKENS))
    return {
        "encode_ms": encode_s * 1e3,
        "prefill_tok_s": len(drafted.prompt.token_ids) / max(one_s - encode_s, 1e-9),
        "decode_tok_s": DECODED_TOKENS / max(all_s - one_s, 1e-9),
        "peak_memory_bytes": peak_memory_bytes(),
    }


def peak_memory_bytes() -> int:
    """Most memory that this process ever held. Not `ru_maxrss`: a new process begins with its parent's peak there."""
    status = Path("/proc/self/status").read_text()
    [kilobytes] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(kilobytes)


class _Endless:
    """The model without end-of-turn tokens: an answer that ends early would spoil the decode rate."""

    def __init__(self, model: object) -> None:
        from dataclasses import replace

        self._model = model
        self.spec = replace(model.spec, eos_token_ids=())  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)


def _median_s(action: Callable[[], object]) -> float:
    action()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    try:
        directory, dtype, quantize, kv_dtype = sys.argv[1:]
        formats = RunFormats(dtype=dtype, quantize=quantize, kv_dtype=kv_dtype)  # type: ignore[arg-type]
        figures = _measure(Path(directory), formats)
    except FovealError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
