"""Where the values of top-level fields stand in the body, so that others can be spliced in."""

from __future__ import annotations

import msgspec

from foveal.core.errors import InvalidRequestError
from foveal.gateway.request.body_cuts import BodyCuts
from foveal.gateway.request.body_fields import ABSENT
from foveal.gateway.request.top_level import top_level_spans

__all__ = ["FieldPlaces"]

_MODEL = msgspec.json.Decoder(str)
# A string of which the text begins so could be mistaken for what stands between two strings.
_PUNCTUATION = b" \t\r\n,:]}"


class FieldPlaces:
    def __init__(self, cuts: BodyCuts) -> None:
        self.cuts = cuts
        self._spans: dict[str, tuple[int, int]] | None = None

    def model(self, raw: msgspec.Raw) -> tuple[str, int, int]:
        """(name, start, end) in the body, without the quotes; ("", 0, 0) if there is none.

        Raises InvalidRequestError if it is no string.
        """
        if raw is ABSENT:
            return "", 0, 0
        try:
            name = _MODEL.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidRequestError("model must be a string; send the name of a model", param="model") from error
        cut = self.cuts.index(name)
        if cut >= 0:
            return self.cuts.resolve(name), *self.cuts.spans[cut]
        written = bytes(raw)
        text = self.cuts.text
        at = text.find(written)
        # Nearly always the name occurs once. If not, or if it could stand across two strings, the fields are walked.
        if written[1] in _PUNCTUATION or (at and text[at - 1] == 0x5C) or text.find(written, at + 1) >= 0:
            start, end = self.value("model")
            return name, start + 1, end - 1
        return name, self.cuts.body_position(at + 1), self.cuts.body_position(at + len(written) - 1)

    def value(self, name: str) -> tuple[int, int]:
        """[start, end) in the body of the value of a field that is there, quotes included."""
        if self._spans is None:
            self._spans = top_level_spans(self.cuts.text)
        start, end = self._spans[name]
        return self.cuts.body_position(start), self.cuts.body_position(end)
