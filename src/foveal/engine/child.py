"""Start a Python child that talks messages over an inherited socket.

Not `multiprocessing`: its spawn re-imports the user's `__main__`, so a script without a main guard would start itself
again, and its resource tracker outlives crashes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping

from foveal.engine.ipc import Message, read_message, write_message

__all__ = ["Child"]

_SOCKET_BUFFER_BYTES = 1 << 20
_POLL_S = 0.02


class Child:
    """A running child process and its message stream. Use from one event loop."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, module: str, hello: Message, *, environment: Mapping[str, str] | None = None) -> Child:
        """Run `python -m module FD` and send it `hello`."""
        ours, theirs = socket.socketpair()
        try:
            for sock in (ours, theirs):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(environment or {})},
                # Ctrl-C in a terminal goes to the whole foreground group: the front end alone decides when to stop.
                start_new_session=True,
            )
        finally:
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=1 << 24)
        child = cls(process, reader, writer)
        await child.send(hello)
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    async def send(self, message: Message) -> None:
        """Raises ConnectionError if the child is gone."""
        write_message(self._writer, message)
        await self._writer.drain()

    def post(self, message: Message) -> None:
        """Send without waiting; a message to a dead child is dropped, its end-of-file tells."""
        if not self._writer.is_closing():
            write_message(self._writer, message)

    async def receive(self) -> Message | None:
        """None once the child is gone."""
        return await read_message(self._reader)

    def kill(self) -> None:
        """End the child at once and reap it."""
        self._writer.close()
        self._process.kill()
        self._process.wait()

    async def stop(self, grace_s: float = 5.0) -> None:
        """Close the socket (the child exits at end-of-file), then SIGKILL after the grace period. Reaps the process."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        deadline_s = time.monotonic() + grace_s
        # Polling, not a thread that waits: this also runs at interpreter exit, when no thread can be started any more.
        while self._process.poll() is None and time.monotonic() < deadline_s:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
