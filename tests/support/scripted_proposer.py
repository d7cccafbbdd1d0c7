"""A proposer that knows the answers, and gets some of them wrong on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from foveal.engine.execution.proposers.base import DraftJob
from foveal.engine.execution.speculator import Speculator
from support.engine_driver import EngineDriver

__all__ = ["ScriptedProposer", "speculate_from_script"]


class ScriptedProposer:
    """For a prompt in `script` it proposes the tokens of the answer; every fourth position is a wrong one.

    So drafts are accepted in runs of 0 to 3, and rejected at every place of a row.
    """

    name = "ngram"
    is_free = True
    most_tokens: int | None = None

    def __init__(self, script: Mapping[tuple[int, ...], Sequence[int]], *, wrong_every: int = 4) -> None:
        self._script = script
        self._wrong_every = wrong_every

    def propose(self, jobs: Sequence[DraftJob]) -> list[list[int]]:
        return [self._propose(job) for job in jobs]

    def _propose(self, job: DraftJob) -> list[int]:
        answer = self._script[tuple(job.request.prompt_token_ids)]
        done = len(job.request.output_token_ids)
        guess = [
            token + 1 if (position % self._wrong_every) == self._wrong_every - 1 else token
            for position, token in enumerate(answer)
        ]
        return list(guess[done : done + job.limit])

    def forget(self, request_id: str) -> None:
        pass

    @property
    def num_held(self) -> int:
        return 0


def speculate_from_script(
    driver: EngineDriver, script: Mapping[tuple[int, ...], Sequence[int]], *, wrong_every: int = 4, most_tokens: int = 5
) -> Speculator:
    """Let `driver` verify drafts of a ScriptedProposer, whether it pays or not."""
    loop = driver.loop
    loop.speculator = Speculator(
        [ScriptedProposer(script, wrong_every=wrong_every)],
        driver.clock,
        most_tokens=most_tokens,
        context_limit=loop.scheduler.context_limit,
        adaptive=False,
    )
    return loop.speculator
