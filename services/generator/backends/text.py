"""Drawn tokens become text that may leave: whole characters, no placeholder, no stop string."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class TextStream:
    """The text of one row, token by token.

    Bytes of an unfinished character are held until it is whole, a placeholder leaves as its fill,
    and an ending that could grow into one of the `stop` strings waits until it cannot.
    """

    def __init__(
        self, tokenizer: Tokenizer, fills: Mapping[int, str], stop: Sequence[str] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._fills = fills
        self._stop = [text for text in stop if text]
        self._held = ""
        self.stopped = False

    def feed(self, token: int) -> str:
        """What may leave now. Sets `stopped` when a stop string is complete."""
        fill = self._fills.get(token)
        text = self._decoder.step(self._tokenizer, token) if fill is None else fill
        if not text or not self._stop:
            return text or ""
        return self._before_stop(self._held + text)

    def flush(self) -> str:
        """What was held, once no more tokens come."""
        held, self._held = self._held, ""
        return held

    def _before_stop(self, text: str) -> str:
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest ending of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
