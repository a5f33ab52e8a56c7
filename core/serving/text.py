"""Turning token ids into text piece by piece without ever emitting half a character. Pure.

A byte-level tokenizer may spread one Chinese character over several tokens; until the last of them has come, decoding ends
in U+FFFD. Such an end is held back. The window of ids that is decoded stays small, so a long answer costs no more per token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

UNFINISHED = "\ufffd"


class TextStream:
    """Feeds on ids and gives back text; the joined pieces are the decoded whole, less a character that never ended."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._shown_from = 0  # ids before this need no decoding again
        self._shown_to = 0  # text of ids before this has been emitted

    def push(self, token_id: int) -> str:
        """The text that became certain with this id; often empty inside a character."""
        self._ids.append(token_id)
        return self._advance(is_last=False)

    def finish(self) -> str:
        """What was held back, without a broken character at its end."""
        return self._advance(is_last=True)

    def _advance(self, *, is_last: bool) -> str:
        # decoding starts a few ids back because a tokenizer may write a token differently at the start of a text
        before = self._decode(self._ids[self._shown_from : self._shown_to])
        text = self._decode(self._ids[self._shown_from :])
        if is_last:
            text = text.rstrip(UNFINISHED)
        elif text.endswith(UNFINISHED):
            return ""
        if len(text) <= len(before):
            return ""
        self._shown_from, self._shown_to = self._shown_to, len(self._ids)
        return text[len(before) :]
