"""A model's help for the search: a short pseudo-document for a short question, the gist of a long one. Never waited for longer
than the budget, never shown as fact, remembered in memory for the next time the same is asked. Called by core.ask.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict

from core import model_client
from core.errors import UserError
from core.home import Home
from core.i18n import translate
from core.records import Message
from core.retrieval.rewrite import LONG, language_of
from core.retrieval.search import Note
from core.retrieval.tokens import count
from db import tables as t

MAX_TOKENS = 64
#: longest pseudo-document in characters: what is longer drifts from the question
MAX_CHARACTERS = 80
#: A shorter rewriting says nothing that the question did not.
MIN_TOKENS = 4
NUM_REMEMBERED = 512


class Remembered:
    """The rewritings of this process, the oldest forgotten first. Nothing of it is written down."""

    def __init__(self, size: int = NUM_REMEMBERED) -> None:
        self._size = size
        self._texts: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str]) -> str | None:
        with self._lock:
            if key in self._texts:
                self._texts.move_to_end(key)
            return self._texts.get(key)

    def put(self, key: tuple[str, str], text: str) -> None:
        with self._lock:
            self._texts[key] = text
            self._texts.move_to_end(key)
            while len(self._texts) > self._size:
                self._texts.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._texts.clear()


remembered = Remembered()


def rewriting(home: Home, version: t.ModelVersion, question: str, notes: list[Note]) -> str:
    """What the model wrote within the budget, cut to length; "" with a note when it was late or failed."""
    key = (f"{version.id}:{version.name}", question)
    known = remembered.get(key)
    if known is not None:
        return known
    pieces: list[str] = []
    failure: list[UserError] = []
    is_over, is_complete = threading.Event(), threading.Event()

    def read() -> None:
        stream = model_client.stream_chat(version.name, _messages(version, question), temperature=0.0, seed=0, max_new_tokens=MAX_TOKENS)
        try:
            for piece in stream:
                if is_over.is_set():
                    return
                pieces.append(piece)
            is_complete.set()
        except UserError as error:
            failure.append(error)

    reader = threading.Thread(target=read, name="rewrite", daemon=True)
    reader.start()
    reader.join(home.settings.ask_budget_ms / 1000)
    is_over.set()
    text = shortened(" ".join(re.sub(r"</?think>", " ", "".join(pieces)).split()))
    if count(text) >= MIN_TOKENS:
        if is_complete.is_set():  # half a text is better than none now, but the next time may bring the whole
            remembered.put(key, text)
        return text
    if failure:
        notes.append(("ask.note_rewrite_failed", {"reason": failure[0]}))
    else:
        notes.append(("ask.note_rewrite_late", {"budget": home.settings.ask_budget_ms}))
    return ""


def shortened(text: str) -> str:
    """The first MAX_CHARACTERS of a text, cut between words or characters of Chinese."""
    if len(text) <= MAX_CHARACTERS:
        return text
    cut = text[:MAX_CHARACTERS]
    is_inside_word = re.search(r"[A-Za-z0-9]$", cut) and re.match(r"[A-Za-z0-9]", text[MAX_CHARACTERS])
    return (re.sub(r"\s*[A-Za-z0-9]+$", "", cut) if is_inside_word else cut).strip()


def _messages(version: t.ModelVersion, question: str) -> list[Message]:
    """The demonstration model only knows how to answer; any other is told what is wanted."""
    if version.is_toy:
        return [Message("user", question)]
    key = "ask.instruct_gist" if count(question) > LONG else "ask.instruct_pseudo_doc"
    return [Message("system", translate(key, language_of(question))), Message("user", question)]
