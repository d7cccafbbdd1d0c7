"""One choice on its way to the client: token ids in, ChoiceDelta out."""

from __future__ import annotations

from collections.abc import Sequence

from foveal.core.sampling_params import SamplingParams
from foveal.engine.outputs import ChoiceDelta, TokenLogprob
from foveal.engine.scheduling.request import FinishReason
from foveal.engine.text.detokenizer import detokenizer
from foveal.engine.text.stop_strings import StopMatch, StopStrings
from foveal.engine.text.token_bytes import TokenBytes

__all__ = ["ChoiceStream"]


class ChoiceStream:
    """Detokenises a choice and ends it at its first stop string.

    The engine core knows token ids only; it ends a choice at eos, stop tokens and lengths. Stop strings are found here,
    on the front end's side: when `finished` becomes True before the engine said so, abort the choice there.
    """

    def __init__(self, index: int, params: SamplingParams, table: TokenBytes, *, continues_text: bool = False) -> None:
        self.index = index
        self.finished = False
        self.num_tokens = 0
        """Tokens taken in, the ones that completed a stop string included."""
        self._min_tokens = params.min_tokens
        self._include_stop = params.include_stop_str_in_output
        self._detokenizer = detokenizer(
            table, skip_special_tokens=params.skip_special_tokens, continues_text=continues_text
        )
        self._stops = StopStrings(params.stop, include_in_output=params.include_stop_str_in_output)

    def append(
        self,
        token_ids: Sequence[int],
        logprobs: Sequence[TokenLogprob] | None = None,
        finish_reason: FinishReason | None = None,
        stop_token_id: int | None = None,
    ) -> ChoiceDelta | None:
        """Take new tokens, and the engine's reason to finish if these are the last.

        With `finish_reason` STOP the last token is the one that ended the output (eos or a stop token, in
        `stop_token_id` if it was a stop token of the request); its text is left out, unless the request set
        `include_stop_str_in_output`. Returns None once the choice has finished: late tokens are dropped.
        """
        if self.finished:
            return None
        num_visible = len(token_ids)
        if finish_reason is FinishReason.STOP and not self._include_stop:
            num_visible -= 1
        pieces: list[str] = []
        for count, token_id in enumerate(token_ids[: max(0, num_visible)], start=1):
            self.num_tokens += 1
            match = self._push(self._detokenizer.append((token_id,)))
            pieces.append(match.text)
            if match.stop is not None:
                return self._delta(pieces, token_ids[:count], logprobs, FinishReason.STOP, match.stop)
        self.num_tokens += len(token_ids) - max(0, num_visible)
        if finish_reason is None:
            return self._delta(pieces, token_ids, logprobs, None, None)
        match = self._push(self._detokenizer.flush())
        pieces.append(match.text)
        if match.stop is not None:
            return self._delta(pieces, token_ids, logprobs, FinishReason.STOP, match.stop)
        pieces.append(self._stops.flush())
        return self._delta(pieces, token_ids, logprobs, finish_reason, stop_token_id)

    def _push(self, text: str) -> StopMatch:
        return self._stops.push(text, armed=self.num_tokens >= self._min_tokens)

    def _delta(
        self,
        pieces: list[str],
        token_ids: Sequence[int],
        logprobs: Sequence[TokenLogprob] | None,
        finish_reason: FinishReason | None,
        stop_reason: str | int | None,
    ) -> ChoiceDelta:
        self.finished = finish_reason is not None
        return ChoiceDelta(
            index=self.index,
            text="".join(pieces),
            token_ids=tuple(token_ids),
            logprobs=None if logprobs is None else tuple(logprobs[: len(token_ids)]),
            finish_reason=finish_reason,
            stop_reason=stop_reason,
        )
