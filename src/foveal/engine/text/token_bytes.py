"""The bytes that each token stands for, where the tokenizer's decoder allows to tell them token by token."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer

__all__ = ["TokenBytes", "backend_of"]


def backend_of(tokenizer: Any) -> Tokenizer:
    """The `tokenizers.Tokenizer` in a HF fast tokenizer, or the argument if it is one. Raises TypeError otherwise."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(backend, Tokenizer):
        raise TypeError(f"a fast tokenizer is needed, not {type(tokenizer).__name__}; convert it to tokenizer.json")
    return backend


class TokenBytes:
    """token id -> bytes, filled as tokens are met. Build once per tokenizer and share between requests.

    Known decoders: byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM) and sentencepiece pieces with byte fallback (Llama 2,
    Gemma). `supported` is False for others (WordPiece, for one), whose text depends on neighbouring tokens.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.backend = backend_of(tokenizer)
        self.leading_spaces_to_strip = 0
        """Spaces that the decoder takes off the start of a text; sentencepiece models prefix one."""
        self._byte_level = False
        self._replacements: list[tuple[str, str]] = []
        self._byte_fallback = False
        self.supported = self._read_decoder()
        self._special_ids = {i for i, t in self.backend.get_added_tokens_decoder().items() if t.special}
        self._cache: dict[int, bytes] = {}

    def is_special(self, token_id: int) -> bool:
        return token_id in self._special_ids

    def of(self, token_id: int) -> bytes:
        """Bytes of one token; empty for ids outside the vocabulary (padded embeddings)."""
        found = self._cache.get(token_id)
        if found is None:
            found = self._cache[token_id] = self._bytes_of(self.backend.id_to_token(token_id))
        return found

    def _bytes_of(self, token: str | None) -> bytes:
        if token is None:
            return b""
        if self._byte_level:
            try:
                return bytes(_BYTE_OF_CHAR[char] for char in token)
            except KeyError:  # an added token, stored as plain text
                return token.encode()
        for pattern, content in self._replacements:
            token = token.replace(pattern, content)
        if self._byte_fallback and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            try:
                return bytes([int(token[3:5], 16)])
            except ValueError:
                pass
        return token.encode()

    def _read_decoder(self) -> bool:
        decoder = self.backend.decoder
        if decoder is None:
            return False
        spec = json.loads(decoder.__getstate__())
        steps = spec["decoders"] if spec["type"] == "Sequence" else [spec]
        if [step["type"] for step in steps] == ["ByteLevel"]:
            self._byte_level = True
            return True
        for step in steps:
            kind = step["type"]
            if kind == "Replace" and "String" in step["pattern"]:
                self._replacements.append((step["pattern"]["String"], step["content"]))
            elif kind == "ByteFallback":
                self._byte_fallback = True
            elif kind == "Strip" and step["content"] == " " and step["stop"] == 0:
                self.leading_spaces_to_strip = step["start"]
            elif kind != "Fuse":
                return False
        return self._byte_fallback


def _byte_of_char() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes (Radford et al. 2019, `encoder.py`), inverted."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    table.update({chr(256 + i): byte for i, byte in enumerate(others)})
    return table


_BYTE_OF_CHAR = _byte_of_char()
