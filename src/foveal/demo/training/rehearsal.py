"""Keeps the text chat alive: the base model's own answers, replayed with its own next-word distribution as the target.

No outside text is used. Prompts are built from small word lists; the base model writes the rest, with a fixed seed.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from foveal.demo.training.decoder import Decoder

__all__ = ["Rehearsal", "prompts", "write_texts"]

_TOPICS = (
    *("the sea", "the moon", "a city", "trees", "music", "bread", "a garden", "winter", "the sun", "trains", "a horse"),
    *("time", "a river", "coffee", "the desert", "friendship", "a library", "clouds", "football", "mathematics"),
    *("a castle", "the heart", "electricity", "birds", "history", "a bridge", "the internet", "gold", "rain"),
    *("a good teacher", "mountains", "cheese", "sleep", "robots", "volcanoes", "paintings", "a market", "the brain"),
    *("honey", "dreams"),
)
_PLACES = (
    *("France", "Japan", "Italy", "Egypt", "Spain", "Germany", "Canada", "India", "Brazil", "England", "Greece"),
    *("China", "Russia", "Mexico", "Sweden"),
)
_REQUESTS = (
    "Write one sentence about {}.",
    "Explain {} to a child.",
    "What do you know about {}?",
    "Why do people like {}?",
    "Give me three words about {}.",
    "Tell me a short story about {}.",
)
_OPENINGS = (
    "The history of {} begins",
    "In this chapter we look at {} and",
    "{} was first described",
    "When the old man thought of {}, he",
    "Scientists who study {} have found",
    "A report on {} published last year",
)
_PLAIN = (
    "Hello! How are you?",
    "Who are you?",
    "What is 2 + 3?",
    "Name the planets.",
    "How many days are in a week?",
    "What is the opposite of hot?",
    "Translate 'good morning' into French.",
    "Give me a recipe for soup.",
    "How do I learn to cook?",
    "What colour is the sky?",
    "What should I do when I am tired?",
    "Write a Python function that adds two numbers.",
    "Which animals live in the sea?",
    "List four fruits.",
    "What is a photograph?",
    "Describe a sunny day.",
)


def prompts(number_chat: int, number_plain: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Chat requests and openings of plain text."""
    rng = random.Random(seed)
    chat = [request.format(topic) for request, topic in itertools.product(_REQUESTS, _TOPICS)]
    rng.shuffle(chat)
    fixed = list(_PLAIN)
    for place in _PLACES:
        fixed += [f"What is the capital of {place}?", f"What language do people speak in {place}?"]
    openings = [opening.format(topic) for opening, topic in itertools.product(_OPENINGS, _TOPICS)]
    rng.shuffle(openings)
    openings = [text[0].upper() + text[1:] for text in openings]
    return (fixed + chat)[:number_chat], openings[:number_plain]


@torch.inference_mode()
def write_texts(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    number_chat: int,
    number_plain: int,
    new_tokens: int = 72,
    seed: int = 0,
) -> list[list[int]]:
    """Token ids of whole dialogues (greedy answers) and of plain text (sampled)."""
    chat, openings = prompts(number_chat, number_plain, seed)
    rendered = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False)
        for text in chat
    ]
    texts: list[list[int]] = []
    tokenizer.padding_side = "left"
    torch.manual_seed(seed)
    for batch, sampled in ((rendered, False), (openings, True)):
        inputs = tokenizer(batch, return_tensors="pt", padding=True)
        choice = {"do_sample": True, "temperature": 0.9, "top_k": 50} if sampled else {"do_sample": False}
        output = model.generate(**inputs, max_new_tokens=new_tokens, pad_token_id=tokenizer.pad_token_id, **choice)
        end = tokenizer.eos_token_id
        for row, kept in zip(output.tolist(), inputs["attention_mask"].tolist(), strict=True):
            ids = row[kept.index(1) :]
            length = sum(kept)
            while len(ids) > length and ids[-1] == end and ids[-2] == end:
                ids.pop()
            texts.append(ids)
    return texts


@dataclass(frozen=True)
class Rehearsal:
    """Texts with the base model's final states: fp16 [length, hidden] each, from which its distribution follows."""

    texts: list[list[int]]
    states: list[torch.Tensor]

    @classmethod
    @torch.inference_mode()
    def remember(cls, texts: list[list[int]], base: Decoder) -> Rehearsal:
        states = []
        for ids in texts:
            row = torch.tensor(ids)[None]
            length = row.shape[1]
            mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
            state = base(base.embeddings[row], torch.arange(length)[None], mask)[0]
            states.append(state.half())
        return cls(texts, states)
