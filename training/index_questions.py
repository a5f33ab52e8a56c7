"""Pseudo-questions of an index: written by a model, kept when they find their own chunk, remembered over a restart.

The writer is one of ours (core.retrieval.writers) or any model version or endpoint, which is asked in words. What was written is
appended to a file of the run folder batch by batch. Filtering follows Doc2Query-- (Gospodinov et al., ECIR 2023): a question that
does not lead to its own passage leads others astray. Called by training.index.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from core import model_client
from core.completions import split_completion
from core.errors import UserError
from core.i18n import translate
from core.records import Message
from core.retrieval import retrieval_models
from core.retrieval.question_filter import FORMS, EntryForm
from core.retrieval.question_words import QuestionWords
from core.retrieval.tokens import CJK, normalise, tokenise

BATCH = 32
#: longer lines are prose, not questions
MAX_CHARACTERS = 200
LIST_MARK = re.compile(r"^\s*(?:[-*•·]+|\(?\d{1,2}[.)、:：]|[Qq]\d{0,2}[:：.])\s*")


class Writer(Protocol):
    @property
    def name(self) -> str: ...
    def write(self, passages: Sequence[str], num: int, seed: int = 0) -> list[list[str]]: ...


@dataclass(frozen=True, slots=True)
class QuestionFigures:
    """What the manifest says about pseudo-questions."""

    writer: str = ""
    num_per_chunk: int = 0
    num_written: int = 0
    num_kept: int = 0
    depth: int = 0

    def plus(self, other: QuestionFigures) -> QuestionFigures:
        """Figures of an index after an update that wrote `other`."""
        return QuestionFigures(
            other.writer or self.writer,
            other.num_per_chunk or self.num_per_chunk,
            self.num_written + other.num_written,
            self.num_kept + other.num_kept,
            other.depth or self.depth,
        )

    def as_manifest(self) -> dict[str, object]:
        share = round(self.num_kept / self.num_written, 4) if self.num_written else None
        return {**asdict(self), "share_kept": share}


class ChatWriter:
    """Any model version or endpoint, asked for one question per line in the language of the passage."""

    def __init__(self, name: str) -> None:
        self.name = name

    def write(self, passages: Sequence[str], num: int, seed: int = 0) -> list[list[str]]:
        return [self._ask(passage, num, seed) for passage in passages]

    def _ask(self, passage: str, num: int, seed: int) -> list[str]:
        language = "zh" if re.search(f"[{CJK}]", passage) else "en"
        messages = [Message("user", f"{translate('index.ask_for_questions', language, num=num)}\n\n{passage}")]
        text = "".join(model_client.stream_chat(self.name, messages, temperature=0.7, seed=seed, max_new_tokens=64 * num))
        lines = [LIST_MARK.sub("", line).strip() for line in split_completion(text).answer.split("\n")]
        return [line for line in lines if line][:num]


def writer_named(name: str) -> Writer:
    """One of our question writers, else the model version of that name. Raises as `open_writer` and `stream_chat` do."""
    if _is_ours(name):
        from core.retrieval.writers import open_writer  # loads torch

        return open_writer(name)
    return ChatWriter(name)


def entry_form(name: str) -> EntryForm:
    """How this writer's questions become entries: as its own trial on held-out questions found best (training.doc2query).

    Raises UserError("index.writer_does_not_help") for one whose trial found no form better than no questions.
    """
    if _found_form(name) == "none":
        raise UserError("index.writer_does_not_help", writer=name)
    return measured_form(name)


def measured_form(name: str) -> EntryForm:
    """As `entry_form`, but for measuring: a writer that helped in no form is measured in the one that can harm least."""
    found = _found_form(name)
    return next((form for form in FORMS if form == found), "with_passage")


def words_of(writer: Writer) -> QuestionWords | None:
    """The words that a writer of ours expects in questions about a passage; None for any other."""
    found = getattr(writer, "words", None)
    return found if isinstance(found, QuestionWords) else None


def _found_form(name: str) -> str:
    return str(retrieval_models.get(name, "doc2query").manifest.get("entries", "alone")) if _is_ours(name) else "alone"


def _is_ours(name: str) -> bool:
    return name in {row.name for row in retrieval_models.listing("doc2query")}


def write_questions(writer: Writer, passages: Iterable[str], num: int, path: Path, on_batch: Callable[[int], None]) -> dict[str, list[str]]:
    """Questions by `key_of` the passage. What `path` holds from an earlier attempt is not asked for again.

    `on_batch(num_passages_done)` is called after each batch is written down, and may raise. Raises UserError
    ("index.writer_silent") when the first batches bring nothing at all.
    """
    found = dict(_written(path))
    with path.open("a", encoding="utf-8") as out:
        waiting = ((key, text) for text in passages if (key := key_of(text)) not in found)
        while batch := list(islice(waiting, BATCH)):
            for (key, _), questions in zip(batch, writer.write([text for _, text in batch], num), strict=True):
                found[key] = clean(questions, num)
                out.write(json.dumps([key, found[key]], ensure_ascii=False) + "\n")
            out.flush()
            on_batch(len(found))
            if len(found) >= 4 * BATCH and not any(found.values()):
                raise UserError("index.writer_silent", writer=writer.name, num=len(found))
    return found


def key_of(passage: str) -> str:
    """What names a passage in the file of questions: its text, so that nothing written is lost when its number changes."""
    return hashlib.blake2b(passage.encode(), digest_size=12).hexdigest()


def clean(questions: Sequence[str], num: int) -> list[str]:
    """At most `num` different questions that can be searched for."""
    kept: dict[str, str] = {}
    for question in questions:
        plain = " ".join(question.split())
        if 0 < len(plain) <= MAX_CHARACTERS and tokenise(plain):
            kept.setdefault(normalise(plain), plain)
    return list(kept.values())[:num]


def _written(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Whole lines of an earlier attempt; a broken last line is cut off."""
    if not path.is_file():
        return
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    for line in whole.splitlines():
        key, questions = json.loads(line)
        yield key, questions


def check_writer(writer: Writer) -> None:
    """Ask for one question before hours of reading, so that a dead endpoint is known at once. Raises what asking raises."""
    if isinstance(writer, ChatWriter):
        writer.write(["Aspirin thins the blood."], 1)
