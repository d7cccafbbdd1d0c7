"""Token-exact in float32 against single-request `generate`: all families on tiny models, then the demo VLM.

python benchmarks/acceptance/01_token_exact.py --model .demo/foveal-demo
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch
import transformers
from PIL import Image
from rich.console import Console

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from harness.record import write_result  # noqa: E402

from foveal.core.clock import ManualClock  # noqa: E402
from foveal.core.sampling_params import SamplingParams  # noqa: E402
from foveal.engine.build import build_loop  # noqa: E402
from foveal.engine.config import EngineConfig  # noqa: E402
from foveal.engine.scheduling.request import ImageRef, Request  # noqa: E402
from foveal.models.image_input import PromptInput  # noqa: E402
from foveal.models.loading import load_model, load_processor  # noqa: E402

QUESTIONS = ("What color is it?", "How many shapes are there?", "Describe the image.", "What is the capital of France?")
NEW_TOKENS = 24


def tiny_families() -> str:
    """The parity and mutation tests, with their names."""
    tests = ["tests/integration/test_engine_parity.py", "tests/contract"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-header", *tests],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    last = run.stdout.strip().splitlines()[-1]
    if run.returncode:
        raise SystemExit(run.stdout)
    return last


def demo_vlm(path: str, console: Console) -> dict[str, int]:
    """Every example picture x question, through three budgets, cold and after a prefix hit."""
    images = [Image.open(p).convert("RGB") for p in sorted((ROOT / "examples" / "images").glob("*.png"))]
    processor = load_processor(path)
    prompts = []
    for image in images:
        for question in QUESTIONS:
            parts = [{"type": "image"}, {"type": "text", "text": question}]
            text = processor.apply_chat_template([{"role": "user", "content": parts}])
            prompts.append(processor.prepare(text, [image]))
    text = processor.apply_chat_template([{"role": "user", "content": QUESTIONS[-1]}])
    prompts.append(processor.prepare(text))
    expected = reference(path, prompts)
    model = load_model(path, dtype="float32")
    figures = {"requests": 0, "exact": 0}
    for budget in (5, 64, 512):
        config = EngineConfig(model=path, num_kv_blocks=8000, max_num_batched_tokens=budget)
        loop = build_loop(config, model, clock=ManualClock())
        for visit in ("cold", "prefix hit"):
            tokens: dict[str, list[int]] = {}
            for number, prompt in enumerate(prompts):
                name = f"{budget}-{visit}-{number}"
                tokens[name] = []
                loop.add(request_of(name, prompt), prompt)
            while loop.has_work:
                for event in loop.step():
                    tokens[event.request_id] += event.token_ids
            exact = sum(found == want for found, want in zip(tokens.values(), expected, strict=True))
            console.print(f"demo VLM, token budget {budget}, {visit}: {exact} of {len(prompts)} token-exact")
            figures["requests"] += len(prompts)
            figures["exact"] += exact
        loop.check_idle()
    return figures


@torch.inference_mode()
def reference(path: str, prompts: list[PromptInput]) -> list[list[int]]:
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt.token_ids])
        extra = {}
        if prompt.images:
            extra["pixel_values"] = torch.stack([torch.tensor(i.arrays["pixel_values"]) for i in prompt.images]).float()
        output = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), **extra, do_sample=False, max_new_tokens=NEW_TOKENS
        )
        answers.append(output[0, ids.shape[1] :].tolist())
    return answers


def request_of(name: str, prompt: PromptInput) -> Request:
    return Request(
        request_id=name,
        prompt_token_ids=list(prompt.token_ids),
        sampling=SamplingParams(max_tokens=NEW_TOKENS, temperature=0.0),
        arrival_s=0.0,
        images=tuple(
            ImageRef(i.content_hash, i.num_tokens, i.num_tokens * 4096, i.encode_tokens) for i in prompt.images
        ),
        spans=prompt.spans,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    options = parser.parse_args()
    console = Console()
    families = tiny_families()
    console.print(f"tiny families: {families}")
    demo = demo_vlm(options.model, console)
    path = write_result("acceptance_01_token_exact", {"tiny_families": families, "demo_vlm": demo})
    console.print(f"written to {path}")
    if demo["exact"] != demo["requests"]:
        raise SystemExit("the demo VLM is not token-exact")


if __name__ == "__main__":
    main()
