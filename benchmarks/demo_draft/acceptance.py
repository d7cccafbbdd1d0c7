"""How often the draft agrees with the demo model, on the demo model's own greedy answers.

    python benchmarks/demo_draft/acceptance.py TARGET DRAFT --json benchmarks/demo_draft/acceptance.json

Both checkpoints run in plain transformers, fp32. Pictures and topics are held out. Every answer token counts, also the end
of turn. "Tokens a round" is what one verification by the target gives when 4 tokens are drafted, played out exactly.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from foveal.demo.draft.acceptance import Acceptance
from foveal.demo.draft.examination import CHAT, Examination, by_subject, set_examination
from foveal.demo.draft.target import Target, load_target
from foveal.demo.training.features import patch_features, to_pixels
from foveal.demo.training.pool import Example
from foveal.evaluation.tasks.catalogue import FAMILIES, make_item

FIRST_ITEM = 1000  # training watched the first hundred of each family
_WORDED = {CHAT: "chat about topics not trained on", "pictures": "all picture questions"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("draft", type=Path)
    parser.add_argument("--pictures", type=int, default=120)
    parser.add_argument("--chats", type=int, default=60)
    parser.add_argument(
        "--answers", type=Path, help="monitor.pt of a training folder: the target need not answer again"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    target = load_target(options.target)
    draft = AutoModelForCausalLM.from_pretrained(options.draft, dtype=torch.float32).eval()
    if options.answers:
        examination = torch.load(options.answers, weights_only=False)
    else:
        examination = ask(target, options.target, options.pictures, options.chats)
    results = by_subject(target, draft, examination)
    print(table(results))
    if options.json:
        body = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        body |= {"results": {subject: asdict(result) for subject, result in results.items()}}
        options.json.write_text(json.dumps(body, indent=1) + "\n")


def ask(target: Target, directory: Path, pictures: int, chats: int) -> Examination:
    """The target's answers to chat and to two questions about each held-out picture."""
    kinds = list(FAMILIES)
    items = [make_item(kinds[i % len(kinds)], "held-out", FIRST_ITEM + i // len(kinds)) for i in range(pictures)]
    pool = [Example(item.kind, item.picture, item.questions) for item in items]
    tower = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).model.vision_tower.eval()
    features = patch_features(tower, np.stack([to_pixels(item.picture()) for item in items])).numpy()
    began = time.monotonic()
    examination = set_examination(target, pool, features, chats=chats, pictures=pictures)
    print(f"the target answered in {time.monotonic() - began:.0f} s")
    return examination


def table(results: dict[str, Acceptance]) -> str:
    lines = ["| subject | answers | tokens | same token, % | tokens a round of 4 |", "|---|---:|---:|---:|---:|"]
    first = [name for name in (CHAT, "pictures") if name in results]
    for subject in (*first, *sorted(set(results) - set(first))):
        r = results[subject]
        name = _WORDED.get(subject, subject)
        lines.append(f"| {name} | {r.answers} | {r.tokens} | {100 * r.agreement:.1f} | {r.tokens_per_round:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
