"""Bytes of a request body -> a request struct. Parsed once; every mistake names the field."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from foveal.core.errors import InvalidRequestError

__all__ = ["decode_request", "explain_validation_error"]

T = TypeVar("T", bound=msgspec.Struct)

_PATH = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>\$.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(\w+)`")


def decode_request(body: bytes, request_type: type[T]) -> tuple[T, list[str]]:
    """(request, names of top-level fields that we do not know and therefore ignore).

    Raises InvalidRequestError if it is not JSON, not an object, or a field has a wrong type or is missing.
    """
    if not body:
        raise InvalidRequestError("the request body is empty; send a JSON object with content-type application/json")
    try:
        raw = msgspec.json.decode(body)
    except msgspec.MsgspecError as error:
        raise InvalidRequestError(f"the request body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRequestError("the request body is nested too deeply; send a flatter JSON object") from error
    except UnicodeDecodeError as error:
        raise InvalidRequestError("the request body is not UTF-8; send JSON in UTF-8") from error
    if not isinstance(raw, dict):
        raise InvalidRequestError(f"the request body is a JSON {_json_type(raw)}; send a JSON object")
    try:
        request = msgspec.convert(raw, request_type)
    except msgspec.ValidationError as error:
        raise explain_validation_error(error) from error
    return request, sorted(raw.keys() - set(request_type.__struct_encode_fields__))


def explain_validation_error(error: msgspec.ValidationError) -> InvalidRequestError:
    """msgspec's message -> one that names the request field."""
    match = _PATH.match(str(error))
    what, path = (match["what"], match["path"] or "") if match else (str(error), "")
    param = path.removeprefix("$").removeprefix(".")
    missing = _MISSING.search(what)
    if missing:
        param = f"{param}.{missing[1]}" if param else missing[1]
        return InvalidRequestError(f"{param} is missing; it is required", param=param)
    what = what[:1].lower() + what[1:]
    if param.endswith("].type"):
        what += "; parts of type text and image_url are supported"
    return InvalidRequestError(f"{param or 'the request body'}: {what}", param=param or None)


def _json_type(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")
