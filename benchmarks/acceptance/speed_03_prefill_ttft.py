"""Point 3 of the list of speed: prefill beside the peers; first token and vision encode of the demo VLM beside transformers.

    python benchmarks/acceptance/speed_03_prefill_ttft.py --model .demo/foveal-demo

Prefill is read from results/peers.json (speed_01_decode.py measures it). The rest is measured here by turns, a new picture
every time: from the decoded picture to the first token, processor included, on both sides. transformers runs in bfloat16,
and in float32 beside it, because processors without bfloat16 units are slow at it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import harness_path  # noqa: F401 - finds `harness`
import numpy as np
import torch
import transformers
from harness.peer_figures import read_reports
from harness.record import write_result
from PIL import Image

from foveal.core.sampling_params import SamplingParams
from foveal.engine.config import EngineConfig
from foveal.engine.offline import OfflineEngine
from foveal.engine.scheduling.request import ImageRef, Request
from foveal.evaluation.peers.turns import turns
from foveal.models.loading import load_processor

QUESTION = "How many shapes are there, and which colours do they have?"
TTFT_RATIO, ENCODE_RATIO = 2.0, 1.5


class System(Protocol):
    def first_token(self, image: Image.Image) -> None: ...

    def encode(self, image: Image.Image) -> Callable[[], Any]:
        """Prepares the picture; the call returned runs the vision tower on it."""


class HuggingFace:
    def __init__(self, path: str, dtype: torch.dtype) -> None:
        self._processor = transformers.AutoProcessor.from_pretrained(path)
        self._model = transformers.AutoModelForImageTextToText.from_pretrained(path, dtype=dtype).eval()
        self._dtype = dtype
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
        self._text = self._processor.apply_chat_template(messages, add_generation_prompt=True)

    @torch.inference_mode()
    def first_token(self, image: Image.Image) -> None:
        inputs = self._processor(images=[image], text=[self._text], return_tensors="pt").to(self._dtype)
        self._model.generate(**inputs, do_sample=False, max_new_tokens=1)

    def encode(self, image: Image.Image) -> Callable[[], Any]:
        inputs = self._processor(images=[image], text=[self._text], return_tensors="pt").to(self._dtype)

        @torch.inference_mode()
        def run() -> Any:
            return self._model.model.get_image_features(inputs["pixel_values"], return_dict=True)

        return run


class Ours:
    def __init__(self, path: str, threads: int, quantize: str, kv_dtype: str) -> None:
        self._processor = load_processor(path)
        self._engine = OfflineEngine(
            EngineConfig(
                model=path,
                quantize=quantize,  # type: ignore[arg-type]
                kv_dtype=kv_dtype,  # type: ignore[arg-type]
                decoder="native",
                num_threads=threads,
                max_num_seqs=4,
                num_kv_blocks=4096,
                max_num_batched_tokens=2048,
            )
        )
        self._asked = 0

    def _prepare(self, image: Image.Image) -> Any:
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
        return self._processor.prepare(self._processor.apply_chat_template(messages), [image])

    def first_token(self, image: Image.Image) -> None:
        prompt = self._prepare(image)
        self._asked += 1
        row_bytes = self._engine.loop.runner.model.spec.feature_width * 4
        request = Request(
            f"ttft-{self._asked}",
            list(prompt.token_ids),
            SamplingParams(max_tokens=1, temperature=0.0),
            arrival_s=0.0,
            images=tuple(
                ImageRef(i.content_hash, i.num_tokens, i.num_tokens * row_bytes, i.encode_tokens) for i in prompt.images
            ),
            spans=prompt.spans,
        )
        self._engine.answer([(request, prompt)])

    def encode(self, image: Image.Image) -> Callable[[], Any]:
        images = list(self._prepare(image).images)
        return lambda: self._engine.loop.runner.model.encode_images(images)


def picture(number: int) -> Image.Image:
    """Blocks of colours, different for every number."""
    small = np.random.default_rng(number).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((336, 336), Image.Resampling.NEAREST)


def seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def prefill_checks() -> list[tuple[bool, str]]:
    try:
        reports = read_reports()
    except FileNotFoundError:
        return [(False, "prefill beside the peers: run speed_01_decode.py with --model and --environments first")]
    checks = []
    for report in reports.values():
        for concurrency in (1, 16):
            workload = report.workload(concurrency)
            duel = workload and report.duel_of_the_best(workload, "prefill_tok_s")
            if duel:
                checks.append((duel.ratio >= 1, f"prefill, {report.model}, {workload}: {duel}"))
            else:
                checks.append((False, f"prefill, {report.model}, {concurrency} at once: not measured"))
    return checks


def measure(systems: dict[str, System], rounds: int) -> dict[str, dict[str, float]]:
    """Medians, ms."""
    for system in systems.values():
        system.first_token(picture(10_000))
        system.encode(picture(10_000))()
    found: dict[str, dict[str, list[float]]] = {name: {"ttft_ms": [], "encode_ms": []} for name in systems}
    for number, name in turns(list(systems), rounds):
        image, system = picture(number), systems[name]
        found[name]["ttft_ms"].append(1e3 * seconds(lambda: system.first_token(image)))
        found[name]["encode_ms"].append(1e3 * seconds(system.encode(image)))
    return {
        name: {figure: statistics.median(times) for figure, times in figures.items()} for name, figures in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quantize", default="int8")
    parser.add_argument("--kv-dtype", default="auto")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    systems: dict[str, System] = {
        "HF bfloat16": HuggingFace(options.model, torch.bfloat16),
        "HF float32": HuggingFace(options.model, torch.float32),
        "Foveal": Ours(options.model, options.threads, options.quantize, options.kv_dtype),
    }
    figures = measure(systems, options.rounds)
    for name, found in figures.items():
        print(
            f"{name}: first token of a new picture {found['ttft_ms']:.1f} ms, vision encode {found['encode_ms']:.1f} ms"
        )
    ours, theirs = figures["Foveal"], figures["HF bfloat16"]
    ttft, encode = theirs["ttft_ms"] / ours["ttft_ms"], theirs["encode_ms"] / ours["encode_ms"]
    checks = [
        *prefill_checks(),
        (ttft >= TTFT_RATIO, f"first token of a new picture: {ttft:.2f}x HF bfloat16, at least {TTFT_RATIO:g}x"),
        (encode >= ENCODE_RATIO, f"vision encode: {encode:.2f}x HF bfloat16, at least {ENCODE_RATIO:g}x"),
    ]
    for name in ("ttft_ms", "encode_ms"):
        print(f"      over HF float32, for the record: {name} {figures['HF float32'][name] / ours[name]:.2f}x")
    for passed, text in checks:
        print("PASS" if passed else "FAIL", text)
    settings = {"rounds": options.rounds, "threads": options.threads, "quantize": options.quantize}
    print("written to", write_result("acceptance_speed_03_ttft", {**settings, "kv_dtype": options.kv_dtype, **figures}))
    if not all(passed for passed, _ in checks):
        sys.exit(1)


if __name__ == "__main__":
    main()
