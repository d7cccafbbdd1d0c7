"""Model 2 of the speed tables: a Llama of 0.4 billion random weights, with the tokenizer of another checkpoint.

python benchmarks/peers/random_model.py TOKENIZER_FROM OUT_DIRECTORY
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

__all__ = ["write_random_model"]


def write_random_model(tokenizer_from: Path, out: Path, *, seed: int = 0) -> Path:
    """Hidden 896, 24 layers, 14 heads over 2 KV heads, vocabulary 49152, tied: float32 shards of at most 2 GB."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(out)
    # Added image tokens lie behind the vocabulary; llama.cpp's converter refuses ids without a row in the table.
    tokenizer = json.loads((tokenizer_from / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["id"] < config.vocab_size]
    (out / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((tokenizer_from / "tokenizer_config.json").read_text())
    settings.pop("extra_special_tokens", None)
    (out / "tokenizer_config.json").write_text(json.dumps(settings))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer_from", type=Path, help="checkpoint directory whose tokenizer is copied")
    parser.add_argument("out", type=Path, help="directory to write")
    options = parser.parse_args()
    sys.stdout.write(f"{write_random_model(options.tokenizer_from, options.out)}\n")


if __name__ == "__main__":
    main()
