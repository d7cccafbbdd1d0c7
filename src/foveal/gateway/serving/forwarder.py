"""One attempt: the request's bytes to one backend, and its answer up to the point where it is known to be one."""

from __future__ import annotations

from foveal.gateway.backends.backend import BackendSpec
from foveal.gateway.resilience.outcome import Outcome
from foveal.gateway.serving.answer import Answer, check_first, check_head, check_whole, is_event_stream, read_whole
from foveal.gateway.serving.call import Call
from foveal.gateway.serving.headers import forwarded_headers
from foveal.gateway.serving.splicing import Splice, inserted_field, json_text, spliced
from foveal.gateway.wire.upstream import UpstreamClient, UpstreamError, UpstreamResponse, UpstreamTimeouts

__all__ = ["Forwarder", "answer_outcome", "failure_outcome"]


class Forwarder:
    def __init__(self, client: UpstreamClient) -> None:
        self._client = client

    async def ask(self, call: Call, backend: BackendSpec, now_s: float) -> Answer:
        """Returns with the first byte of a stream, or with the whole of any other answer. Raises UpstreamError.

        Nothing was shown to the client until then: the caller may ask another backend. The caller closes the answer.
        """
        headers = forwarded_headers(call.headers, backend, call.request_id, call.priority, call.traceparent)
        response = await self._client.send(
            backend, "POST", call.path, headers, spliced(call.body, _splices(call, backend)), _timeouts(call, now_s)
        )
        try:
            return await _checked(response, backend, call.view.stream)
        except BaseException:
            await response.close()
            raise


async def _checked(response: UpstreamResponse, backend: BackendSpec, wants_stream: bool) -> Answer:
    head = response.head
    check_head(head, wants_stream)
    if head.status in (401, 403):
        # The client's key was right: it is ours that the backend refuses.
        raise UpstreamError(f"backend {backend.id} refuses the gateway's API key", "protocol")
    if is_event_stream(head):
        first = response.take()
        check_first(first)
        return Answer(backend, head, response, None, first)
    body = await read_whole(response)
    check_whole(body)
    return Answer(backend, head, response, body)


def _timeouts(call: Call, now_s: float) -> UpstreamTimeouts:
    if call.view.stream:
        return call.timeouts
    # Its first byte comes with its last one: a long answer must not pass for a frozen backend.
    left_s = max(0.0, call.deadline_s - now_s)
    return UpstreamTimeouts(call.timeouts.connect_s, left_s, call.timeouts.idle_s)


def _splices(call: Call, backend: BackendSpec) -> tuple[Splice, ...]:
    name = backend.served_name or call.model
    if name == call.view.model:
        return call.splices
    if call.view.model_end == 0:  # the client named none, and the default model answers
        return (*call.splices, inserted_field(call.body, "model", name))
    return (*call.splices, Splice(call.view.model_start, call.view.model_end, json_text(name)))


def answer_outcome(status: int) -> Outcome:
    """Of an answer that is one."""
    if status < 400:
        return Outcome.SUCCESS
    if status in (429, 503):
        return Outcome.OVERLOADED
    return Outcome.SERVER_ERROR if status >= 500 else Outcome.CLIENT_ERROR


def failure_outcome(error: UpstreamError) -> Outcome:
    if error.stage == "connect":
        return Outcome.CONNECT_FAILED
    if error.timed_out:
        return Outcome.TIMED_OUT
    return Outcome.BAD_ANSWER if error.stage == "protocol" else Outcome.BROKEN
