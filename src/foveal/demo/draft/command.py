"""Trains the demo model's draft: `python -m foveal.demo.draft --folder run --target DIR --clip-art DIR`.

About 20 minutes on two CPU cores when the features of `foveal.demo.training` lie in the folder; every step is skipped or
resumed when its result is there.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from foveal.demo.draft.learning import LearningConfig
from foveal.demo.draft.lessons import Pictures
from foveal.demo.draft.schooling import Minutes, Schooling
from foveal.demo.draft.shape import DraftShape
from foveal.demo.draft.target import load_target
from foveal.demo.sources import default_cache_dir
from foveal.demo.training.pool import PoolSizes
from foveal.demo.training.workspace import Workspace

__all__ = ["draft_worker", "main", "make_schooling", "parse_arguments"]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m foveal.demo.draft", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="a folder of foveal.demo.training, or an empty one")
    parser.add_argument("--target", type=Path, required=True, help="the demo model's checkpoint")
    parser.add_argument("--cache-dir", type=Path, default=default_cache_dir(), help="downloaded parts")
    parser.add_argument("--clip-art", type=Path, help="folder usr/share/openclipart/png of Debian's openclipart-png")
    parser.add_argument("--output", type=Path, default=Path("draft.safetensors"))
    parser.add_argument("--text-minutes", type=float, default=Minutes.texts, help="target writes texts (default 3)")
    parser.add_argument("--row-minutes", type=float, default=Minutes.rows, help="target sees pictures (default 3)")
    parser.add_argument("--minutes", type=float, default=Minutes.learning, help="draft learns (default 11)")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each (default 2)")
    parser.add_argument("--no-int8", action="store_true", help="the target sees pictures in fp32 (slower)")
    return parser.parse_args()


def make_schooling(options: argparse.Namespace, worker: int) -> Schooling:
    log = (options.folder / "draft-log.txt").open("a", buffering=1)

    def report(line: str) -> None:
        stamped = f"{time.strftime('%H:%M:%S')} {line}"
        print(stamped, flush=True)
        log.write(stamped + "\n")

    workspace = Workspace(options.folder, options.cache_dir, options.clip_art, PoolSizes(), report)
    pool, held_out = workspace.pools()
    return Schooling(
        folder=options.folder,
        target=load_target(options.target),
        pictures=Pictures(pool, np.load(options.folder / "train.npy", mmap_mode="r")),
        held_out=Pictures(held_out, np.load(options.folder / "monitor.npy", mmap_mode="r")),
        rehearsal=torch.load(options.folder / "rehearsal.pt")["texts"],
        shape=DraftShape(),
        minutes=Minutes(options.text_minutes, options.row_minutes, options.minutes),
        config=LearningConfig(minutes=options.minutes),
        report=report,
        int8=not options.no_int8,
        worker=worker,
        workers=options.workers,
    )


def draft_worker(rank: int, options: argparse.Namespace) -> None:
    """One process. One thread each, because on a busy machine two threads wait for each other in every operation."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if options.workers > 1:
        rendezvous = f"file://{(options.folder / 'draft-rendezvous').absolute()}"
        dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=options.workers)
    make_schooling(options, rank).run()
    if dist.is_initialized():
        dist.destroy_process_group()


def main() -> None:
    options = parse_arguments()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    workspace = Workspace(options.folder, options.cache_dir, options.clip_art, PoolSizes(), print)
    workspace.features()
    workspace.rehearsal()
    (options.folder / "draft-rendezvous").unlink(missing_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    multiprocessing.spawn(draft_worker, (options,), nprocs=options.workers)
    make_schooling(options, worker=0).export(options.output)
