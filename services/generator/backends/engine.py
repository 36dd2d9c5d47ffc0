"""The decode loop of the embedded decoder: one thread, a pool of key-value slots, ragged rows.

The rows that decode are always the first `n` slots, so one step is one run over a contiguous part
of the pool. Past and present are bound to the same memory and GroupQueryAttention appends in place;
each row's own length is its line of a right-padded mask. All inputs live in fixed buffers, bound
once per `n` (binding costs 110 us, a step of one row 240 us on one core of this machine).

Between two steps rows join and leave. A new row's prompt runs alone, in chunks, in the first slot
behind those that decode: a row is computed by the same operations alone or among others, and so it
draws the same text (bit for bit; prompts in one padded batch differ by 5e-7, which the kernels'
8-bit activations then amplify to 1e-2 within 40 tokens).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import mmap
import os
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from govor.errors import DeadlineExceeded, GovorError, InternalError, Overloaded, Unavailable
from services.generator.backends import Finish, Observe, Piece, Waited
from services.generator.backends.config import Shape
from services.generator.backends.prompts import Prompt
from services.generator.backends.sampling import Logits, Sampler
from services.generator.backends.text import TextStream

log = logging.getLogger(__name__)

# Tokens of a prompt between two steps of the others: 3.6 ms, and no slower a token than 256.
CHUNK = 32


@dataclass(eq=False)
class Row:
    """One text being drawn: at most `budget` tokens, which with the prompt fit the context.

    Its text goes to `pieces`, which belongs to the event loop that made the row. With `whole` it
    leaves in one piece and wakes the loop once.
    """

    prompt: Prompt
    sampler: Sampler
    text: TextStream
    budget: int
    pieces: asyncio.Queue[Piece | GovorError]
    index: int = 0
    deadline: float | None = None
    whole: bool = False

    cancelled: bool = False
    slot: int = 0
    length: int = 0
    drawn: int = 0
    parts: list[str] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)
    admitted: float = 0.0
    first: float = 0.0
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)


class Engine:
    """Decodes submitted rows until it is closed.

    `session` runs a graph of onnxruntime-genai's builder. One step is run at once, which warms it
    and shows whether the shapes are the graph's.
    """

    def __init__(
        self,
        session: Any,
        shape: Shape,
        *,
        slots: int,
        max_queued: int,
        observe: Observe,
        waited: Waited,
    ) -> None:
        self._session = session
        self._shape = shape
        self._observe = observe
        self._waited = waited
        self.max_queued = max_queued
        self.slots = slots
        self._cache = _pool(shape, slots)
        self._mask = np.zeros((slots, shape.context), np.int64)
        self._ids = np.zeros((slots, 1), np.int64)
        self._logits = np.zeros((slots, 1, shape.vocabulary), np.float32)
        self._steps = [
            self._bind(0, rows, self._ids[:rows], self._logits[:rows])
            for rows in range(1, slots + 1)
        ]
        self._mask[0, 0] = 1
        session.run_with_iobinding(self._steps[0])
        self._rows: list[Row] = []
        self._joining: Row | None = None
        self._waiting: deque[Row] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._leaving: list[tuple[Row, Piece | GovorError]] = []
        self._thread = threading.Thread(target=self._work, name="decoder", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return not self._closed and self._thread.is_alive()

    def submit(self, rows: list[Row]) -> None:
        """Queues the rows of one request, all or none.

        Raises `Overloaded` (`queue_full`) when `max_queued` rows wait, `Unavailable` when the
        engine has ended.
        """
        with self._wake:
            if not self.alive:
                raise Unavailable("the decoder has ended", code="model_unavailable")
            if len(self._waiting) + len(rows) > max(self.max_queued, len(rows)):
                raise Overloaded(f"{self.max_queued} texts are waiting", code="queue_full")
            self._waiting.extend(rows)
            self._wake.notify()

    def close(self) -> None:
        """Ends the thread between two steps; whoever still waits is told."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _work(self) -> None:
        error: GovorError = Unavailable("the decoder was closed", code="model_unavailable")
        try:
            while self._wait():
                self._prefill()
                self._step()
                self._deliver()
        except Exception:
            log.exception("the decoder's thread has died")
            error = InternalError("the decoder failed", code="generation_failed")
        with self._wake:
            self._closed = True
            joining = [self._joining] if self._joining else []
            waiting = (*self._rows, *joining, *self._waiting)
            self._leaving += [(row, error) for row in waiting]
            self._rows, self._joining = [], None
            self._waiting.clear()
        self._deliver()

    def _wait(self) -> bool:
        """Sleeps while there is nothing to do; false once closed."""
        with self._wake:
            while not (self._closed or self._rows or self._joining or self._waiting):
                self._wake.wait()
            return not self._closed

    def _prefill(self) -> None:
        """Runs prompts that wait, `CHUNK` tokens or a little more of them."""
        left = CHUNK
        while left > 0 and (row := self._next()) is not None:
            left -= self._chunk(row)

    def _next(self) -> Row | None:
        """The row whose prompt is being run, else the next one that somebody still waits for."""
        if self._joining is not None and self._joining.cancelled:
            self._joining = None
        while self._joining is None and self._waiting and len(self._rows) < self.slots:
            row = self._waiting.popleft()
            row.admitted = time.monotonic()
            self._waited(row.admitted - row.since)
            if row.cancelled:
                continue
            if row.deadline is not None and row.deadline < row.admitted:
                late = DeadlineExceeded("the deadline passed while the text waited")
                self._leaving.append((row, late))
                continue
            row.slot = len(self._rows)
            self._mask[row.slot] = 0
            self._joining = row
        return self._joining

    def _chunk(self, row: Row) -> int:
        """Runs one chunk of a prompt; after the last one the row draws, and decodes on."""
        chunk = np.array([row.prompt.ids[row.length : row.length + CHUNK]], np.int64)
        size = int(chunk.shape[1])
        logits = np.empty((1, size, self._shape.vocabulary), np.float32)
        self._mask[row.slot, row.length : row.length + size] = 1
        self._session.run_with_iobinding(self._bind(row.slot, 1, chunk, logits))
        row.length += size
        if row.length == len(row.prompt.ids):
            goes_on = self._advance(row, logits[0, -1])
            self._joining = None
            if goes_on:
                self._move(row, len(self._rows))
                self._rows.append(row)
        return size

    def _step(self) -> None:
        """Draws the next token of every row."""
        self._leave([row for row in self._rows if row.cancelled])
        if not self._rows:
            return
        for row in self._rows:
            self._mask[row.slot, row.length] = 1
            row.length += 1
        began = time.monotonic()
        self._session.run_with_iobinding(self._steps[len(self._rows) - 1])
        self._observe(len(self._rows), time.monotonic() - began)
        self._leave(
            [row for row in self._rows if not self._advance(row, self._logits[row.slot, 0])]
        )

    def _advance(self, row: Row, logits: Logits) -> bool:
        """Draws one token of a row and passes its text on; whether the row goes on."""
        token = row.sampler.draw(logits)
        self._ids[row.slot] = token
        row.first = row.first or time.monotonic()
        ended = token in self._shape.eos
        text = "" if ended else row.text.feed(token)
        row.drawn += not ended
        ended = ended or row.text.stopped
        if not ended and row.drawn < row.budget:
            if row.whole:
                row.parts.append(text)
            elif text:
                self._leaving.append((row, Piece(row.index, text)))
            return True
        finish = Finish(
            "stop" if ended else "length",
            row.text.stopped,
            len(row.prompt.ids),
            row.drawn,
            row.admitted - row.since,
            row.first - row.since,
        )
        text = "".join(row.parts) + text + row.text.flush()
        self._leaving.append((row, Piece(row.index, text, finish)))
        return False

    def _deliver(self) -> None:
        """Hands what was drawn to its event loop and yields.

        One call a step, because each wakes the loop (12 texts at once on two cores: 5,100 tokens/s,
        with a call a token 3,700). Where both share one core the loop would otherwise wait for
        this thread (first token after 8 ms, without the yield 200).
        """
        leaving, self._leaving = self._leaving, []
        for loop in {row.loop for row, _ in leaving}:
            pieces = [(row.pieces, piece) for row, piece in leaving if row.loop is loop]
            # A loop that has ended has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_put, pieces)
        if leaving:
            os.sched_yield()

    def _leave(self, rows: list[Row]) -> None:
        """Frees the rows' slots; the last row moves into each hole."""
        for row in rows:
            last = self._rows.pop()
            if last is not row:
                self._rows[row.slot] = last
                self._move(last, row.slot)

    def _move(self, row: Row, slot: int) -> None:
        """Copies what a row has in the pool (7 us a token) to another slot."""
        if row.slot != slot:
            source, length = row.slot, row.length
            self._cache[:, :, slot, :, :length] = self._cache[:, :, source, :, :length]
            self._mask[slot] = self._mask[source]
            self._ids[slot] = self._ids[source]
            row.slot = slot

    def _bind(self, slot: int, rows: int, ids: Any, logits: Any) -> Any:
        """Inputs and outputs of a run over `rows` slots from `slot` on, all by address."""
        binding = self._session.io_binding()
        mask = self._mask[slot : slot + rows]
        for name, array in (("input_ids", ids), ("attention_mask", mask)):
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for layer in range(self._shape.layers):
            for at, kind in enumerate(("key", "value")):
                part = self._cache[layer, at, slot : slot + rows]
                place = ("cpu", 0, np.float32, part.shape, part.ctypes.data)
                binding.bind_input(f"past_key_values.{layer}.{kind}", *place)
                binding.bind_output(f"present.{layer}.{kind}", *place)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        return binding


def _pool(shape: Shape, slots: int) -> NDArray[np.float32]:
    """Zeros [layers, key and value, slots, heads, context, head_dim] in pages of 4 KiB, which cost
    memory when a row first reaches them. In the huge pages that numpy asks for the first row in
    every fourth slot waited 100 ms, and positions that are never used took memory, too."""
    size = (shape.layers, 2, slots, shape.heads, shape.context, shape.head_dim)
    memory = mmap.mmap(-1, 4 * math.prod(size))
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.float32).reshape(size)


def _put(pieces: list[tuple[asyncio.Queue[Piece | GovorError], Piece | GovorError]]) -> None:
    for queue, piece in pieces:
        queue.put_nowait(piece)
