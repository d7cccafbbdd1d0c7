"""llama.cpp through its C interface: one context, all sequences in one batch a step, the largest logit taken with numpy."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import llama_cpp as lib
import numpy as np

_BITS = {"q4_0": 4, "q8_0": 8, "f16": 16}
_TYPES = {"q4_0": lib.LLAMA_FTYPE_MOSTLY_Q4_0, "q8_0": lib.LLAMA_FTYPE_MOSTLY_Q8_0}
_BATCH = 2048


class Runner:
    def convert(self, model: str, mode: str, out: str) -> None:
        os.makedirs(out, exist_ok=True)
        plain, target = Path(out) / "f16.gguf", Path(out) / f"{mode}.gguf"
        script = next((Path(sys.executable).parents[1] / "source").glob("*/vendor/llama.cpp/convert_hf_to_gguf.py"))
        command = [sys.executable, str(script), model, "--outfile", str(plain), "--outtype", "f16"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"convert_hf_to_gguf.py failed: {done.stdout[-1500:]}")
        if mode == "f16":
            return
        parameters = lib.llama_model_quantize_default_params()
        parameters.ftype = _TYPES[mode]
        if lib.llama_model_quantize(str(plain).encode(), str(target).encode(), ctypes.byref(parameters)):
            raise RuntimeError(f"llama_model_quantize to {mode} failed")
        plain.unlink()

    def load(self, model: str, mode: str, converted: str, limits: dict[str, int]) -> dict[str, Any]:
        lib.llama_backend_init()
        self.limits = limits
        file = Path(converted) / f"{mode}.gguf"
        parameters = lib.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = lib.llama_load_model_from_file(str(file).encode(), parameters)
        if not self.model:
            raise RuntimeError(f"{file.name} could not be loaded")
        self.vocabulary = lib.llama_n_vocab(lib.llama_model_get_vocab(self.model))
        self.contexts: dict[int, Any] = {}
        self.batch = lib.llama_batch_init(_BATCH, 0, 1)
        return {"weights": mode, "weight_bits": _BITS[mode], "kv": "f16 (default)", "file_bytes": file.stat().st_size}

    def _context(self, sequences: int) -> Any:
        """A context splits its room between its sequences: one for each number of them, made once."""
        if sequences not in self.contexts:
            parameters = lib.llama_context_default_params()
            parameters.n_ctx = sequences * (-(-self.limits["tokens"] // 256) * 256)
            parameters.n_batch, parameters.n_ubatch = _BATCH, 512
            parameters.n_seq_max = sequences
            parameters.n_threads = parameters.n_threads_batch = self.limits["threads"]
            self.contexts[sequences] = lib.llama_init_from_model(self.model, parameters)
            if not self.contexts[sequences]:
                raise RuntimeError(f"no context for {sequences} sequences")
        context = self.contexts[sequences]
        lib.llama_memory_clear(lib.llama_get_memory(context), True)
        return context

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        context = self._context(len(prompts))
        pending = [(token, at, k, at == len(ids) - 1) for k, ids in enumerate(prompts) for at, token in enumerate(ids)]
        answers: list[list[int]] = [[] for _ in prompts]
        for start in range(0, len(pending), _BATCH):
            self._step(context, pending[start : start + _BATCH], answers)
        for step in range(1, new_tokens):
            rows = [(answer[-1], len(prompts[k]) + step - 1, k, True) for k, answer in enumerate(answers)]
            self._step(context, rows, answers)
        return answers

    def logits(self, prompt: list[int]) -> Any:
        context = self._context(1)
        self._fill([(token, at, 0, True) for at, token in enumerate(prompt)])
        self._decode(context)
        return np.stack([self._row(context, k) for k in range(len(prompt))])

    def _step(self, context: Any, rows: list[tuple[int, int, int, bool]], answers: list[list[int]]) -> None:
        self._fill(rows)
        self._decode(context)
        for k, (_, _, sequence, wanted) in enumerate(rows):
            if wanted:
                answers[sequence].append(int(self._row(context, k).argmax()))

    def _fill(self, rows: list[tuple[int, int, int, bool]]) -> None:
        batch = self.batch
        batch.n_tokens = len(rows)
        for k, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[k], batch.pos[k], batch.logits[k] = token, position, wanted
            batch.n_seq_id[k] = 1
            batch.seq_id[k][0] = sequence

    def _decode(self, context: Any) -> None:
        status = lib.llama_decode(context, self.batch)
        if status:
            raise RuntimeError(f"llama_decode returned {status}")

    def _row(self, context: Any, index: int) -> Any:
        return np.ctypeslib.as_array(lib.llama_get_logits_ith(context, index), (self.vocabulary,))
