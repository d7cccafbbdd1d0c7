"""The three requests that are sent: a text question, and questions about a 650 KB and a 4 MB image."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

__all__ = ["BODIES", "write_bodies"]

BODIES = {"text": 0, "image_650k": 650_000, "image_4m": 4_000_000}
"""Characters of base64 in the body."""


def body(characters: int) -> bytes:
    text = {"type": "text", "text": "What is in this picture? Answer in one sentence."}
    content: object = text["text"]
    if characters:
        # A real JPEG header (640 x 480), so that whoever reads the size of the image finds one; then noise.
        header = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffc000110801e0028003012200021101031101")
        pixels = random.Random(characters).randbytes(characters * 3 // 4 - len(header))
        url = "data:image/jpeg;base64," + base64.b64encode(header + pixels).decode()
        content = [text, {"type": "image_url", "image_url": {"url": url}}]
    # Temperature above 0: nobody may answer from a cache.
    message = {"role": "user", "content": content}
    return json.dumps({"model": "m", "messages": [message], "max_tokens": 16, "temperature": 0.7}).encode()


def write_bodies(folder: Path) -> dict[str, Path]:
    """folder/NAME.json for each of BODIES."""
    paths = {}
    for name, characters in BODIES.items():
        paths[name] = folder / f"{name}.json"
        paths[name].write_bytes(body(characters))
    return paths
