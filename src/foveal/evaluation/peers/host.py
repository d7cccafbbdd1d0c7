"""Serves one engine over stdin and stdout, a line of JSON each way. Runs in the engine's own environment.

    PYTHON host.py RUNNER.py

Only the standard library: nothing of Foveal is installed there. RUNNER.py defines a class `Runner` with

    convert(model, mode, out)                    write what the engine loads into the folder `out`; once per model and mode
    load(model, mode, converted, limits) -> dict names and sizes of what was loaded, see `LoadedEngine`
    generate(prompts, new_tokens) -> list        greedy, the end token ignored: `new_tokens` ids for each prompt
    logits(prompt) -> float array [n, vocab]     of every position of one prompt; may be missing

Time is taken here, so it means the same for every engine.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import sys
import time
import traceback
from typing import Any

__all__ = ["answer", "serve"]


def answer(runner: Any, command: dict[str, Any]) -> dict[str, Any]:
    """What `runner` says to one command. Raises what the runner raises, and ValueError for answers of a wrong length."""
    operation = command["op"]
    if operation == "convert":
        runner.convert(command["model"], command["mode"], command["out"])
        return {}
    if operation == "load":
        started = time.perf_counter()
        loaded = runner.load(command["model"], command["mode"], command["converted"], command["limits"])
        return {**loaded, "load_s": time.perf_counter() - started}
    if operation == "generate":
        prompts, new_tokens = command["prompts"], command["new_tokens"]
        used, started = _cpu_s(), time.perf_counter()
        token_ids = runner.generate(prompts, new_tokens)
        wall_s, cpu_s = time.perf_counter() - started, _cpu_s() - used
        lengths = {len(ids) for ids in token_ids}
        if len(token_ids) != len(prompts) or lengths != {new_tokens}:
            raise ValueError(f"{len(prompts)} prompts x {new_tokens} tokens were asked for, got lengths {lengths}")
        return {"wall_s": wall_s, "cpu_s": cpu_s, "token_ids": [[int(t) for t in ids] for ids in token_ids]}
    if operation == "logits":
        import numpy

        logits = numpy.asarray(runner.logits(command["prompt"]), dtype=numpy.float32)
        if logits.ndim != 2 or len(logits) != len(command["prompt"]):
            raise ValueError(f"logits of {len(command['prompt'])} positions were asked for, got {logits.shape}")
        numpy.save(command["out"], logits)
        return {"shape": list(logits.shape)}
    raise ValueError(f"unknown operation {operation!r}")


def serve(runner: Any, commands: Any, replies: Any) -> None:
    """Until `commands` ends. An error is an answer too, with the last lines of where it came from."""
    for line in commands:
        try:
            reply = {"ok": True, **answer(runner, json.loads(line))}
        except Exception as error:
            where = traceback.format_exc()[-2000:]
            reply = {"ok": False, "error": f"{type(error).__name__}: {error}"[:2000], "traceback": where}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    # Libraries print; their words must not get between ours.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # This folder's modules must not stand in for installed ones of the same name.
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[1]))
    runner = runpy.run_path(sys.argv[1], run_name="peer_runner")["Runner"]()
    serve(runner, sys.stdin, replies)


if __name__ == "__main__":
    main()
