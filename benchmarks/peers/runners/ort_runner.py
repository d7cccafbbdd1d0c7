"""ONNX Runtime GenAI on what its own model builder writes. It has no continuous batching: one static batch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as og

_BITS = {"int4": 4, "int8": 8, "fp32": 32}
_OPTIONS = {
    "int4": ["int4_accuracy_level=4", "int4_block_size=32", "int4_is_symmetric=true"],
    "int8": ["int4_accuracy_level=4", "int4_block_size=32", "int4_is_symmetric=true"],
    "fp32": [],
}


class Runner:
    def convert(self, model: str, mode: str, out: str) -> None:
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", model, "-o", out, "-p", mode]
        command += ["-e", "cpu", "-c", f"{out}.cache"]
        if _OPTIONS[mode]:
            command += ["--extra_options", *_OPTIONS[mode]]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the model builder failed: {done.stdout[-1500:]}")

    def load(self, model: str, mode: str, converted: str, limits: dict[str, int]) -> dict[str, Any]:
        config = og.Config(converted)
        session = {"intra_op_num_threads": limits["threads"], "inter_op_num_threads": 1}
        # `min_length` would forbid the end token, and everyone else here only ignores it: the last row of the table,
        # which no prompt of text leads to, ends an answer instead. The host notices answers that are too short.
        vocabulary = json.loads((Path(converted) / "genai_config.json").read_text())["model"]["vocab_size"]
        changed = {"eos_token_id": vocabulary - 1, "decoder": {"session_options": session}}
        config.overlay(json.dumps({"model": changed}))
        self.model = og.Model(config)
        size = sum(file.stat().st_size for file in Path(converted).glob("model.onnx*"))
        return {"weights": mode, "weight_bits": _BITS[mode], "kv": "float32", "file_bytes": size}

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        length = len(prompts[0]) + new_tokens
        generator = self._generator(length, batch=len(prompts))
        generator.append_tokens(np.array(prompts, dtype=np.int32))
        for _ in range(new_tokens):
            generator.generate_next_token()
        return [list(generator.get_sequence(k)[len(prompts[0]) :]) for k in range(len(prompts))]

    def logits(self, prompt: list[int]) -> Any:
        generator = self._generator(len(prompt) + 1, batch=1)
        generator.append_tokens(np.array([prompt], dtype=np.int32))
        return generator.get_output("logits")[0]

    def _generator(self, length: int, batch: int) -> Any:
        params = og.GeneratorParams(self.model)
        params.set_search_options(max_length=length, batch_size=batch, do_sample=False)
        return og.Generator(self.model, params)
