"""What the target is asked in order to write the draft's text, and other questions to measure on."""

from __future__ import annotations

import itertools
import random

__all__ = ["HELD_OUT_TOPICS", "held_out_prompts", "training_prompts"]

_TOPICS = (
    *("apples", "airplanes", "autumn", "baking", "bees", "bicycles", "books", "bridges", "butterflies", "candles"),
    *("cats", "caves", "chess", "chocolate", "clocks", "cooking", "cows", "dancing", "deserts", "dinosaurs", "dogs"),
    *("dolphins", "earthquakes", "elephants", "engines", "exercise", "farms", "fire", "fish", "flowers", "forests"),
    *("frogs", "geography", "glass", "gravity", "health", "horses", "houses", "ice", "insects", "islands", "kindness"),
    *("kites", "lakes", "languages", "laughter", "lemons", "light", "lions", "magnets", "maps", "medicine", "memory"),
    *("metal", "milk", "money", "monkeys", "movies", "museums", "oceans", "oil", "paper", "parks", "patience"),
    *("penguins", "pianos", "pirates", "plants", "poetry", "potatoes", "puzzles", "rabbits", "radio", "recycling"),
    *("rice", "rivers", "rockets", "roses", "running", "salt", "sand", "schools", "science", "shadows", "sheep"),
    *("ships", "silk", "snow", "soap", "soccer", "space", "spiders", "sports", "spring", "stars", "stones", "storms"),
    *("sugar", "summer", "swimming", "tea", "teamwork", "telephones", "theatre", "tigers", "tomatoes", "towers"),
    *("toys", "travel", "trust", "tunnels", "vegetables", "villages", "water", "weather", "whales", "wheels", "wind"),
    *("windows", "wine", "wolves", "wood", "wool", "work", "writing"),
)
HELD_OUT_TOPICS = (
    *("bread", "camels", "computers", "eagles", "gardens", "honey", "jazz", "lighthouses", "mirrors", "mountains"),
    *("owls", "photographs", "rainbows", "sleep", "tennis", "trains", "umbrellas", "volcanoes", "winter", "zebras"),
)
_REQUESTS = (
    "Write one sentence about {}.",
    "Explain {} to a child.",
    "What do you know about {}?",
    "Why do people like {}?",
    "Tell me a short story about {}.",
    "Give me three facts about {}.",
    "Write a short poem about {}.",
    "What are {} used for?",
    "How would you describe {} to a friend?",
    "What is the history of {}?",
    "List five words that go with {}.",
    "What should I know about {}?",
)


def training_prompts(seed: int = 0) -> list[str]:
    """Every request about every topic, shuffled."""
    return _mixed(_TOPICS, seed)


def held_out_prompts(number: int, seed: int = 1) -> list[str]:
    """The same requests about topics that the draft was not trained on."""
    return _mixed(HELD_OUT_TOPICS, seed)[:number]


def _mixed(topics: tuple[str, ...], seed: int) -> list[str]:
    prompts = [request.format(topic) for request, topic in itertools.product(_REQUESTS, topics)]
    random.Random(seed).shuffle(prompts)
    return prompts
