"""Answers as the target writes them, with what it knew at each word: the draft's lessons, and its examination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from foveal.demo.draft.target import Target
from foveal.demo.language_weights import IMAGE_TOKEN

__all__ = ["LIKELY", "Prompt", "WrittenText", "embed", "read", "render", "write"]

LIKELY = 4
"""How many of the target's most likely next tokens are kept beside its state."""


@dataclass(frozen=True)
class Prompt:
    """Token ids up to the assistant's turn; `patches` [64, hidden] stand in the place of the image tokens."""

    ids: list[int]
    patches: torch.Tensor | None = None


@dataclass(frozen=True)
class WrittenText:
    """A whole text. Row i of `states` and `likely` is what the target knew at position first + i, about the next token.

    states fp16 [n, hidden], final and normalised; likely int32 [n, LIKELY], most likely first; n = len(ids) - 1 - first.
    """

    ids: list[int]
    first: int
    states: torch.Tensor
    likely: torch.Tensor
    patches: torch.Tensor | None = None


def render(target: Target, question: str, patches: torch.Tensor | None = None) -> Prompt:
    """The chat prompt of one question, with a picture or without."""
    content: list[dict[str, str]] = [{"type": "image"}] if patches is not None else []
    content.append({"type": "text", "text": question})
    text = target.tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    if patches is not None:
        text = text.replace(IMAGE_TOKEN, IMAGE_TOKEN * len(patches))
    return Prompt(target.tokenizer.encode(text, add_special_tokens=False), patches)


def embed(target: Target, ids: Sequence[int], patches: torch.Tensor | None = None) -> torch.Tensor:
    """Input embeddings [length, hidden] of a text with a picture or without."""
    tokens = torch.tensor(ids)
    x: torch.Tensor = target.language.get_input_embeddings()(tokens)
    if patches is None:
        return x
    places = (tokens == target.image_token).nonzero()[:, 0]
    return x.index_copy(0, places, patches.to(x.dtype))


@torch.inference_mode()
def write(
    target: Target, prompts: Sequence[Prompt], most_tokens: int, temperature: float = 0.0, top_k: int = 50
) -> list[WrittenText]:
    """The target's answers to all prompts at once, to the end of its turn; greedy at temperature 0."""
    longest = max(len(prompt.ids) for prompt in prompts)
    rows = len(prompts)
    x = torch.zeros(rows, longest, target.language.config.hidden_size)
    seen = torch.zeros(rows, longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        x[row, longest - len(prompt.ids) :] = embed(target, prompt.ids, prompt.patches)
        seen[row, longest - len(prompt.ids) :] = 1
    positions = (seen.cumsum(1) - 1).clamp_min(0)
    cache, states, likely, tokens = None, [], [], []
    ended = torch.zeros(rows, dtype=torch.bool)
    while len(tokens) < most_tokens and not ended.all():
        output = target.language.model(
            inputs_embeds=x, attention_mask=seen, position_ids=positions, past_key_values=cache, use_cache=True
        )
        cache = output.past_key_values
        state = output.last_hidden_state[:, -1]
        logits = target.language.lm_head(state)
        chosen = _choose(logits, temperature, top_k)
        states.append(state.half())
        likely.append(logits.topk(LIKELY, dim=-1).indices.int())
        tokens.append(chosen)
        ended |= chosen == target.end_of_turn
        x = target.language.get_input_embeddings()(chosen[:, None])
        seen = torch.cat([seen, seen.new_ones(rows, 1)], dim=1)
        positions = positions[:, -1:] + 1
    all_states, all_likely, all_tokens = torch.stack(states, 1), torch.stack(likely, 1), torch.stack(tokens, 1)
    written = []
    for row, prompt in enumerate(prompts):
        answer = _to_the_end(all_tokens[row].tolist(), target.end_of_turn)
        known = slice(0, len(answer))
        first = len(prompt.ids) - 1
        kept = all_states[row, known].clone(), all_likely[row, known].clone()
        written.append(WrittenText(prompt.ids + answer, first, *kept, prompt.patches))
    return written


@torch.inference_mode()
def read(target: Target, texts: Sequence[list[int]]) -> list[WrittenText]:
    """What the target knows along texts that exist already."""
    found = []
    for ids in texts:
        states = target.language.model(torch.tensor(ids)[None], use_cache=False).last_hidden_state[0, :-1]
        likely = target.language.lm_head(states).topk(LIKELY, dim=-1).indices.int()
        found.append(WrittenText(list(ids), 0, states.half(), likely))
    return found


def _choose(logits: torch.Tensor, temperature: float, top_k: int) -> torch.Tensor:
    """[rows]."""
    if temperature == 0:
        return logits.argmax(-1)
    best = logits.topk(top_k, dim=-1)
    drawn = torch.multinomial((best.values / temperature).softmax(-1), 1)
    return best.indices.gather(1, drawn)[:, 0]


def _to_the_end(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens
