"""Messages between the front end, the engine process and the preprocessing workers, and their framing.

Every message is a msgspec struct in MessagePack behind a 4-byte little-endian length, over a local socket pair that a
child inherits. When either side dies the other one reads end-of-file: no heartbeat is needed.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, Literal

import msgspec

from foveal.core.image_span import ImageSpan
from foveal.core.sampling_params import SamplingParams
from foveal.engine.config import EngineConfig
from foveal.engine.outputs import TokenLogprob
from foveal.engine.scheduling.request import FinishReason
from foveal.protocol.model_costs import LatencyCoefficients, VisionFacts

__all__ = [
    "AbortGroup",
    "AddRequest",
    "Envelope",
    "FinishChoice",
    "FramedSocket",
    "Message",
    "PackedArray",
    "PackedImage",
    "Prepare",
    "PrepareFailed",
    "Prepared",
    "Ready",
    "RequestFailed",
    "StartEngine",
    "StartFailed",
    "StartWorker",
    "StepEvents",
    "TokenEvent",
    "WorkerReady",
    "read_message",
    "write_message",
]

MAX_MESSAGE_BYTES = 1 << 30
_LENGTH = struct.Struct("<I")


class Envelope(msgspec.Struct, frozen=True, tag=True, array_like=True, omit_defaults=False):
    """Base of all messages: a tagged array, so that a union of them decodes by tag."""


# front end -> engine


class StartEngine(Envelope, frozen=True, tag=True):
    config: EngineConfig
    segment_directory: str


class PackedArray(Envelope, frozen=True, tag=True):
    """One numpy array inside a segment file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


class PackedImage(Envelope, frozen=True, tag=True):
    """A preprocessed image; its arrays lie in `segment`, a file in memory that the engine reads once and unlinks."""

    content_hash: bytes
    num_tokens: int
    encode_tokens: int
    arrays: tuple[PackedArray, ...]
    num_bytes: int


class AddRequest(Envelope, frozen=True, tag=True):
    request_id: str
    token_ids: list[int]
    images: tuple[PackedImage, ...]
    spans: tuple[ImageSpan, ...]
    segment: str | None
    sampling: SamplingParams
    seed: int
    priority: int
    arrival_s: float
    prepared_s: float
    """When it was ready for the engine: from then on it waits, if only for the step that runs to end."""
    deadline_s: float | None
    cache_salt: bytes


class AbortGroup(Envelope, frozen=True, tag=True):
    request_id: str


class FinishChoice(Envelope, frozen=True, tag=True):
    """The front end found a stop string: this choice is done."""

    request_id: str
    index: int


# engine -> front end


class Ready(Envelope, frozen=True, tag=True):
    max_model_len: int
    supports_images: bool
    num_kv_blocks: int
    kv_bytes: int
    dtype: str
    decoder: str
    load_s: float
    eos_token_ids: tuple[int, ...]
    kv_bytes_per_token: int = 0
    latency: LatencyCoefficients | None = None
    """Of the calibration in use."""


class StartFailed(Envelope, frozen=True, tag=True):
    """The child could not start; `kind` is the name of the error class."""

    kind: str
    message: str


class TokenEvent(Envelope, frozen=True, tag=True):
    request_id: str
    index: int
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None
    finish_reason: FinishReason | None
    stop_token_id: int | None
    cached_tokens: int
    queue_s: float
    encode_s: float
    prefill_s: float


class RequestFailed(Envelope, frozen=True, tag=True):
    request_id: str
    kind: str
    message: str
    param: str | None = None


class StepEvents(Envelope, frozen=True, tag=True):
    events: tuple[TokenEvent, ...]
    stats: dict[str, int | float]


# front end <-> preprocessing worker


class StartWorker(Envelope, frozen=True, tag=True):
    model: str
    segment_directory: str
    max_image_pixels: int
    log_level: str
    log_format: Literal["text", "json"]


class WorkerReady(Envelope, frozen=True, tag=True):
    tokenizer_json: str
    vision: VisionFacts | None = None
    """How a picture's size becomes tokens; None for a text model."""


class Prepare(Envelope, frozen=True, tag=True):
    job_id: int
    messages: list[dict[str, Any]] | None
    prompt: str | None
    token_ids: list[int] | None
    images: list[bytes]
    details: list[str]
    chat_template_kwargs: dict[str, Any]
    add_generation_prompt: bool


class Prepared(Envelope, frozen=True, tag=True):
    job_id: int
    token_ids: list[int]
    images: tuple[PackedImage, ...]
    spans: tuple[ImageSpan, ...]
    segment: str | None


class PrepareFailed(Envelope, frozen=True, tag=True):
    job_id: int
    kind: str
    message: str
    param: str | None = None


Message = (
    StartEngine
    | AddRequest
    | AbortGroup
    | FinishChoice
    | Ready
    | StartFailed
    | RequestFailed
    | StepEvents
    | StartWorker
    | WorkerReady
    | Prepare
    | Prepared
    | PrepareFailed
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode_frame(message: Message) -> bytes:
    body = _encoder.encode(message)
    if len(body) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message has {len(body):,} bytes; the limit is {MAX_MESSAGE_BYTES:,}")
    return _LENGTH.pack(len(body)) + body


def write_message(writer: asyncio.StreamWriter, message: Message) -> None:
    writer.write(encode_frame(message))


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """None at end-of-file, also in the middle of a message: the peer died."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return _decoder.decode(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


class FramedSocket:
    """The blocking end, for child processes. One thread may receive while another one sends."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = sock.makefile("rb")

    @classmethod
    def from_fd(cls, fd: int) -> FramedSocket:
        return cls(socket.socket(fileno=fd))

    def send(self, message: Message) -> None:
        """Raises OSError if the peer is gone."""
        self._sock.sendall(encode_frame(message))

    def receive(self) -> Message | None:
        """Blocks; None at end-of-file."""
        try:
            header = self._reader.read(_LENGTH.size)
            if len(header) < _LENGTH.size:
                return None
            (length,) = _LENGTH.unpack(header)
            body = self._reader.read(length)
        except OSError:
            return None
        return _decoder.decode(body) if len(body) == length else None
