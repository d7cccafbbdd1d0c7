"""The access log and the slow-request log."""

from __future__ import annotations

import io
import json

import pytest

from foveal.core.clock import ManualClock
from foveal.observability.exchange_record import ExchangeRecord
from foveal.observability.request_log import RequestLog
from foveal.observability.waterfall import Waterfall


def _record() -> ExchangeRecord:
    return ExchangeRecord("req-1", "/v1/chat/completions", "m", tenant="t", status=200, outcome="success")


def _waterfall(read_s: float, backend_s: float) -> Waterfall:
    clock = ManualClock(5.0)
    waterfall = Waterfall(clock.now_s)
    clock.advance(read_s)
    waterfall.mark("read")
    clock.advance(backend_s)
    waterfall.mark("backend")
    return waterfall


def _log(stream: io.StringIO, **settings: object) -> RequestLog:
    return RequestLog(stream, wall_time_s=lambda: 1_800_000_000.0, **settings)  # type: ignore[arg-type]


def test_a_request_is_one_json_line_with_its_id() -> None:
    stream = io.StringIO()
    log = _log(stream)
    record = _record()
    record.traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert not log.write(record, _waterfall(1.0, 0.25))
    log.flush()
    (line,) = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (line["event"], line["request_id"], line["duration_ms"]) == ("request", "req-1", 250.0)
    assert line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert line["timestamp"] == "2027-01-15T08:00:00.000Z"


def test_a_slow_request_is_a_warning_with_its_waterfall_even_without_an_access_log() -> None:
    stream = io.StringIO()
    log = _log(stream, access=False, slow_s=0.5)
    assert not log.write(_record(), _waterfall(9.0, 0.4)), "a slow upload is the client's"
    assert log.write(_record(), _waterfall(0.1, 0.6))
    log.flush()
    (line,) = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (line["event"], line["level"]) == ("slow request", "warning")
    assert line["waterfall_ms"] == {"read": 100.0, "backend": 600.0}


def test_what_is_usual_is_left_out_of_a_line() -> None:
    stream = io.StringIO()
    log = _log(stream)
    record = _record()
    record.attempts = 1
    log.write(record, _waterfall(0.0, 0.1))
    record.attempts, record.served_model, record.num_images, record.code = 2, "small", 1, "x"
    log.write(record, _waterfall(0.0, 0.1))
    log.flush()
    usual, unusual = [set(json.loads(line)) for line in stream.getvalue().splitlines()]
    assert unusual - usual == {"attempts", "served_model", "images", "code"}


def test_text_lines_are_for_people() -> None:
    stream = io.StringIO()
    log = _log(stream, log_format="text", slow_s=0.5)
    log.write(_record(), _waterfall(0.0, 0.6))
    log.flush()
    assert "slow request request_id=req-1" in stream.getvalue()
    assert stream.getvalue().endswith("[backend 600.0 ms]\n")


def test_lines_are_written_many_at_a_time_but_not_for_ever() -> None:
    stream = io.StringIO()
    log = _log(stream)
    log.write(_record(), _waterfall(0.0, 0.1))
    assert stream.getvalue() == ""
    for _ in range(300):
        log.write(_record(), _waterfall(0.0, 0.1))
    assert stream.getvalue().count("\n") >= 256


def test_the_milliseconds_of_a_timestamp_move_within_a_second() -> None:
    stream, times = io.StringIO(), iter([1_800_000_000.25, 1_800_000_000.75, 1_800_000_001.0])
    log = RequestLog(stream, wall_time_s=lambda: next(times))
    for _ in range(3):
        log.write(_record(), _waterfall(0.0, 0.1))
    log.flush()
    stamps = [json.loads(line)["timestamp"] for line in stream.getvalue().splitlines()]
    assert stamps == ["2027-01-15T08:00:00.250Z", "2027-01-15T08:00:00.750Z", "2027-01-15T08:00:01.000Z"]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_line_cannot_be_forged_by_a_name(log_format: str) -> None:
    stream = io.StringIO()
    log = _log(stream, log_format=log_format)
    record = _record()
    record.model = 'x\n{"event": "forged"}'
    log.write(record, _waterfall(0.0, 0.1))
    log.flush()
    assert stream.getvalue().count("\n") == 1
