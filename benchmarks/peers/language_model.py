"""The language model of a LLaVA checkpoint as a plain text-only checkpoint, for peers that do not read the pictures.

python benchmarks/peers/language_model.py VLM_DIRECTORY OUT_DIRECTORY
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file

__all__ = ["extract_language_model"]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
_TEXT_TENSOR = re.compile(r"^(?:model\.language_model\.|language_model\.model\.)")
_HEAD_TENSOR = re.compile(r"^(?:language_model\.)?lm_head\.")


def extract_language_model(checkpoint: Path, out: Path) -> Path:
    """Write `out` from the safetensors, text config and tokenizer of `checkpoint`; names become `model.layers.…`.

    The chat template is left behind: it writes image tokens, and the samples here are running text. Raises ValueError
    where the text model is not a Llama.
    """
    config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text())
    text = config["text_config"]
    if text["model_type"] != "llama":
        raise ValueError(
            f"the text model is {text['model_type']}, and only llama is known. Extend `architectures` here."
        )
    out.mkdir(parents=True, exist_ok=True)
    text |= {"architectures": ["LlamaForCausalLM"], "dtype": config.get("dtype", "float32")}
    text["tie_word_embeddings"] = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    (out / "config.json").write_text(json.dumps(text, indent=1) + "\n")
    tensors = {}
    for shard in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(shard, "pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - not a mapping
                if _TEXT_TENSOR.match(name):
                    tensors[_TEXT_TENSOR.sub("model.", name)] = stored.get_tensor(name)
                elif _HEAD_TENSOR.match(name) and not text["tie_word_embeddings"]:
                    tensors[_HEAD_TENSOR.sub("lm_head.", name)] = stored.get_tensor(name)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    for name in _TOKENIZER_FILES:
        if (checkpoint / name).exists():
            shutil.copy(checkpoint / name, out / name)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="LLaVA checkpoint directory")
    parser.add_argument("out", type=Path, help="directory to write")
    options = parser.parse_args()
    extract_language_model(options.checkpoint, options.out)
    sys.stdout.write(f"{options.out}\n")


if __name__ == "__main__":
    main()
