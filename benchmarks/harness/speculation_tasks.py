"""What speculation is measured on: five kinds of answers, from predictable to random."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from foveal.core.sampling_params import GuidedDecoding, SamplingParams
from foveal.engine.loop import EngineLoop
from foveal.engine.scheduling.request import ImageRef, Request
from foveal.models.image_input import PromptInput
from foveal.models.processing.processor import Processor

__all__ = ["TASKS", "Answer", "Task", "answer", "make_tasks"]

TASKS = ("json", "extraction", "captions", "chat", "random")
PREDICTABLE = ("json", "extraction", "captions")

_IMAGES = Path(__file__).parents[2] / "examples" / "images"
_SHAPE = {
    "type": "object",
    "properties": {
        "shape": {"enum": ["circle", "square", "triangle", "star"]},
        "color": {"enum": ["red", "green", "blue", "yellow", "orange", "purple"]},
        "is_larger_than_the_others": {"type": "boolean"},
    },
    "required": ["shape", "color", "is_larger_than_the_others"],
    "additionalProperties": False,
}
_SCHEMA = {
    "type": "object",
    "properties": {
        "background_color": {"enum": ["white", "black", "gray"]},
        "number_of_shapes": {"type": "integer", "minimum": 0, "maximum": 99},
        "shapes": {"type": "array", "items": _SHAPE, "minItems": 4, "maxItems": 6},
    },
    "required": ["background_color", "number_of_shapes", "shapes"],
    "additionalProperties": False,
}
_RECORDS = (
    "Order 3310 from Anna Smith: 2 oak shelves, 4 garden chairs and 1 desk lamp, to be delivered to 8 Hill Road, Dover.",
    "Order 4471 from Maria Lopez: 3 blue chairs, 2 wooden tables and 1 floor lamp, to be delivered to 12 Garden Street, "
    "Springfield, on Tuesday morning between nine and eleven; the phone number for questions is 555 0134.",
)
_CAPTIONS = (
    "Part 1: there is a red circle on the left side of the picture.",
    "Part 2: there is a blue square on the right side of the picture.",
    "Part 3: there is a",
)


@dataclass(frozen=True)
class Task:
    """One request."""

    name: str
    prompt: PromptInput
    sampling: SamplingParams
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    token_ids: tuple[int, ...]
    decode_s: float
    """From the first token to the last."""
    steps: int
    """Engine steps in that time."""

    @property
    def tokens_per_s(self) -> float:
        return (len(self.token_ids) - 1) / self.decode_s

    @property
    def tokens_per_step(self) -> float:
        return (len(self.token_ids) - 1) / self.steps


def make_tasks(processor: Processor, num_tokens: int) -> dict[str, list[Task]]:
    """A few requests of each kind, `num_tokens` long (JSON: as long as it needs, about 100)."""
    images = [Image.open(path).convert("RGB") for path in sorted(_IMAGES.glob("*.png"))][:2]
    # The end token is forbidden rather than passed over: what follows it is another conversation.
    greedy = SamplingParams(max_tokens=num_tokens, min_tokens=num_tokens, temperature=0.0)
    guided = SamplingParams(max_tokens=200, temperature=0.0, guided=GuidedDecoding(json_schema=_SCHEMA))
    hot = SamplingParams(max_tokens=num_tokens, temperature=2.0, ignore_eos=True)
    tasks: dict[str, list[Task]] = {name: [] for name in TASKS}
    for k, image in enumerate(images):
        tasks["json"].append(Task("json", _ask(processor, "List the shapes of this picture as JSON.", image), guided))
        # The answer has begun: it goes on in the same pattern.
        captions = _ask(processor, "Describe the picture part by part.", image, begun=" ".join(_CAPTIONS))
        tasks["captions"].append(Task("captions", captions, greedy))
        records = [record.replace("Order ", f"Order {k}") for record in _RECORDS]
        text = f"Text: {records[0]}\nCopy: {records[0]}\n\nText: {records[1]}\nCopy:"
        tasks["extraction"].append(Task("extraction", processor.prepare(text), greedy))
    for k, question in enumerate(("What is a good way to learn to cook?", "Why do people like to travel?")):
        tasks["chat"].append(Task("chat", _ask(processor, question), greedy))
        tasks["random"].append(Task("random", _ask(processor, question), hot, seed=k))
    return tasks


def _ask(processor: Processor, question: str, image: Image.Image | None = None, begun: str = "") -> PromptInput:
    parts = [{"type": "text", "text": question}]
    if image is not None:
        parts.insert(0, {"type": "image"})
    text = processor.apply_chat_template([{"role": "user", "content": parts}])
    return processor.prepare(text + begun, [] if image is None else [image])


def answer(loop: EngineLoop, tasks: Sequence[Task], feature_row_bytes: int) -> list[Answer]:
    """Run the requests of one kind one after the other (concurrency 1) on an engine in this process."""
    answers = []
    for task in tasks:
        loop.scheduler.clear_caches()
        prompt, name = task.prompt, f"{task.name}-{time.monotonic_ns()}"
        request = Request(
            request_id=name,
            prompt_token_ids=list(prompt.token_ids),
            sampling=replace(task.sampling),
            arrival_s=time.monotonic(),
            images=tuple(
                ImageRef(i.content_hash, i.num_tokens, i.num_tokens * feature_row_bytes, i.encode_tokens)
                for i in prompt.images
            ),
            spans=prompt.spans,
        )
        guide = loop.compile_guide(task.sampling) if task.sampling.guided is not None else None
        loop.add(request, prompt, seed=task.seed, guide=guide)
        tokens: list[int] = []
        began_s, steps = 0.0, 0
        while loop.has_work:
            for event in loop.step():
                tokens += event.token_ids
            if began_s:
                steps += 1
            elif tokens:
                began_s = time.perf_counter()
        answers.append(Answer(tuple(tokens), time.perf_counter() - began_s, steps))
    return answers
