"""Bytes of a request -> RequestView. The only place where the gateway parses a body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from foveal.core.errors import InvalidRequestError, PayloadTooLargeError
from foveal.core.priority import Priority
from foveal.gateway.request.body_cuts import BodyCuts, cut_data_urls
from foveal.gateway.request.body_fields import ChatFields, CommonFields, CompletionFields, is_given
from foveal.gateway.request.field_places import FieldPlaces
from foveal.gateway.request.fingerprint import prefix_digest
from foveal.gateway.request.limits import RequestLimits
from foveal.gateway.request.prompt_reader import PromptReader, PromptSummary
from foveal.gateway.request.view import Endpoint, RequestView
from foveal.protocol.decoding import explain_validation_error
from foveal.protocol.generation_fields import parse_priority

__all__ = ["read_view"]

Body = bytes | bytearray

_CHAT = msgspec.json.Decoder(ChatFields)
_COMPLETION = msgspec.json.Decoder(CompletionFields)
_PRIORITY = msgspec.json.Decoder(int | str | None)
_SALT = msgspec.json.Decoder(str | None)
_DEFAULT_LIMITS = RequestLimits()


def read_view(
    body: Body, headers: Mapping[bytes, bytes], endpoint: Endpoint, limits: RequestLimits = _DEFAULT_LIMITS
) -> RequestView:
    """What the gateway needs to know of a request. `headers` have lower-case names.

    For valid JSON the result is that of a full parse; of strings that start with `data:` only the beginning is looked at, so
    that 4 MB of base64 cost a fifth of a millisecond. What is wrong inside them is left for the backend to refuse.

    Raises InvalidRequestError (400) for what is not JSON or has a wrong type, TooManyImagesError, PayloadTooLargeError (413).
    """
    if not body:
        raise InvalidRequestError("the request body is empty; send a JSON object with content-type application/json")
    cuts = cut_data_urls(body)
    if len(cuts.text) > limits.max_text_bytes:
        raise PayloadTooLargeError(
            f"the request has {len(cuts.text):,} bytes besides its images; the limit is {limits.max_text_bytes:,}. Send "
            "less text"
        )
    if endpoint == "chat":
        fields, cuts, prompt = _chat(cuts, limits)
    else:
        fields, cuts, prompt = _completion(cuts, limits)
    places = FieldPlaces(cuts)
    model, model_start, model_end = places.model(fields.model)
    priority, priority_place = _priority(fields, places, headers)
    salt, salt_place = _cache_salt(fields, places)
    max_tokens = fields.max_tokens
    if isinstance(fields, ChatFields) and fields.max_completion_tokens is not None:
        max_tokens = fields.max_completion_tokens
    return RequestView(
        endpoint=endpoint,
        model=model,
        model_start=model_start,
        model_end=model_end,
        stream=bool(fields.stream),
        num_bytes=len(body),
        text_chars=prompt.text_chars,
        num_choices=(fields.n or 1) * prompt.num_prompts,
        max_tokens=max_tokens,
        temperature=fields.temperature,
        seed=fields.seed,
        priority=priority,
        priority_start=priority_place[0],
        priority_end=priority_place[1],
        session_id=_session_id(fields, places, headers),
        cache_salt=salt,
        cache_salt_start=salt_place[0],
        cache_salt_end=salt_place[1],
        has_tools=prompt.has_tools,
        images=tuple(prompt.images),
        prompt_ids=prompt.prompt_ids,
        num_messages=prompt.num_messages,
        other_urls=prompt.other_urls,
        prefix_digest=prefix_digest([model, *prompt.prefix]),
    )


def _chat(cuts: BodyCuts, limits: RequestLimits) -> tuple[CommonFields, BodyCuts, PromptSummary]:
    fields = _decode(_CHAT, cuts)
    reader = PromptReader(cuts, limits)
    summary = reader.read_chat(fields)
    if summary is None:
        # A remote image, or a URL in unusual notation: its place is wanted too.
        cuts = reader.finer_cuts()
        fields = _decode(_CHAT, cuts)
        summary = PromptReader(cuts, limits, is_final=True).read_chat(fields)
        assert summary is not None
    return fields, cuts, summary


def _completion(cuts: BodyCuts, limits: RequestLimits) -> tuple[CommonFields, BodyCuts, PromptSummary]:
    fields = _decode(_COMPLETION, cuts)
    return fields, cuts, PromptReader(cuts, limits).read_completion(fields)


def _decode(decoder: msgspec.json.Decoder[Any], cuts: BodyCuts) -> Any:
    try:
        return decoder.decode(cuts.text)
    except msgspec.ValidationError as error:
        raise explain_validation_error(error) from error
    except msgspec.DecodeError as error:
        # The position is that of the shortened text: it would mislead.
        what = str(error).partition(" (byte")[0]
        raise InvalidRequestError(f"the request body is not valid JSON: {what}; check how it is written") from error
    except RecursionError as error:
        raise InvalidRequestError("the request body is nested too deeply; send a flatter JSON object") from error
    except UnicodeDecodeError as error:
        raise InvalidRequestError("the request body is not UTF-8; send JSON in UTF-8") from error


def _priority(
    fields: CommonFields, places: FieldPlaces, headers: Mapping[bytes, bytes]
) -> tuple[Priority | None, tuple[int, int]]:
    if is_given(fields.priority):
        try:
            value = _PRIORITY.decode(fields.priority)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidRequestError("priority must be 0, 1 or 2, or P0, P1 or P2", param="priority") from error
        if isinstance(value, str):
            value = places.cuts.resolve(value)
        return parse_priority(value), places.value("priority")
    header = headers.get(b"x-priority")
    place = places.value("priority") if fields.priority else (0, 0)
    return parse_priority(header.decode("latin-1"), "X-Priority") if header else None, place


def _cache_salt(fields: CommonFields, places: FieldPlaces) -> tuple[str | None, tuple[int, int]]:
    if not fields.cache_salt:
        return None, (0, 0)
    try:
        salt = _SALT.decode(fields.cache_salt)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequestError("cache_salt must be a string", param="cache_salt") from error
    return None if salt is None else places.cuts.resolve(salt), places.value("cache_salt")


def _session_id(fields: CommonFields, places: FieldPlaces, headers: Mapping[bytes, bytes]) -> str | None:
    header = headers.get(b"x-session-id")
    if header:
        return header.decode("latin-1")
    key = fields.prompt_cache_key
    return None if key is None else places.cuts.resolve(key)
