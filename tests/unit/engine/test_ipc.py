"""Messages survive the wire; half a message is end-of-file."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.core import errors
from foveal.core.errors import FovealError, InvalidRequestError, RequestError
from foveal.core.sampling_params import GuidedDecoding, SamplingParams
from foveal.engine.config import EngineConfig
from foveal.engine.ipc import (
    AbortGroup,
    AddRequest,
    FramedSocket,
    Message,
    StartEngine,
    StepEvents,
    TokenEvent,
    encode_frame,
)
from foveal.engine.outputs import TokenLogprob
from foveal.engine.remote_error import describe_error, rebuild_error
from foveal.engine.scheduling.request import FinishReason

SAMPLING = SamplingParams(max_tokens=None, stop=("a", "é"), guided=GuidedDecoding(json_schema={"type": "object"}))
MESSAGES: list[Message] = [
    StartEngine(EngineConfig(model="m", max_model_len=7), "/d"),
    AddRequest("r", [1, 2], (), (), None, SAMPLING, 2**63 - 1, 0, 1.5, 1.75, None, b"salt"),
    StepEvents(
        (
            TokenEvent(
                "r", 1, (5,), (TokenLogprob(5, -0.5, 1, ((5, -0.5),)),), FinishReason.STOP, None, 3, 0.1, 0.2, 0.3
            ),
        ),
        {"num_running": 1},
    ),
    AbortGroup("r"),
]


def _pair() -> tuple[FramedSocket, FramedSocket, socket.socket, socket.socket]:
    left, right = socket.socketpair()
    return FramedSocket(left), FramedSocket(right), left, right


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    ours, theirs, left, right = _pair()
    with left, right:
        ours.send(message)
        assert theirs.receive() == message


@given(st.data())
def test_a_stream_cut_anywhere_is_end_of_file_and_never_half_a_message(data: st.DataObject) -> None:
    frame = encode_frame(MESSAGES[1])
    cut = data.draw(st.integers(0, len(frame) - 1))
    _, theirs, left, right = _pair()
    with right:
        left.sendall(frame[:cut])
        left.shutdown(socket.SHUT_RDWR)
        left.close()
        assert theirs.receive() is None


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n != "FovealError"])
def test_an_error_keeps_its_class_and_message_across_processes(name: str) -> None:
    original = getattr(errors, name)("found, limit, remedy")
    rebuilt = rebuild_error(*describe_error(original))
    assert type(rebuilt) is type(original)
    assert str(rebuilt) == "found, limit, remedy"


def test_the_offending_field_crosses_too() -> None:
    rebuilt = rebuild_error(*describe_error(InvalidRequestError("no", param="stop")))
    assert isinstance(rebuilt, RequestError)
    assert rebuilt.param == "stop"


def test_an_unexpected_error_becomes_an_internal_one_that_names_its_type() -> None:
    rebuilt: FovealError = rebuild_error(*describe_error(ZeroDivisionError("division by zero")))
    assert isinstance(rebuilt, RequestError)
    assert rebuilt.status == 500
    assert "ZeroDivisionError" in str(rebuilt)
