"""The bench: two versions answer one question side by side, a person votes, and only then learns who was who (Gradio, /arena).

One Blocks object serves everybody, so nothing about a person lives in it: who is asking is read from the guard's headers in
every handler, what they see is in their own gr.State, what they did is in the database. One generator streams both answers,
because two listeners of one button would run one after the other. No named endpoint is offered to programs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

import anyio
import gradio as gr

from app import bench_view as view
from app.bench_style import CSS, HEAD, THEME
from core import accounts, bench_questions, preference
from core.accounts import Person
from core.bench_stream import stream_pair
from core.errors import Forbidden, UserError
from core.i18n import translate
from core.model_list import VersionShown, default_pair, list_versions
from core.preference import REASONS, Ballot, Decoding, Mode, Pair
from core.records import Vote
from core.standings import standings

__all__ = ["CSS", "HEAD", "THEME", "build"]

R = TypeVar("R")

#: key -> (vote, unsafe left, unsafe right)
BALLOTS: dict[int, tuple[Vote | None, bool, bool]] = {
    1: (Vote.LEFT, False, False),
    2: (Vote.RIGHT, False, False),
    3: (Vote.TIE, False, False),
    4: (Vote.BOTH_BAD, False, False),
    5: (None, True, False),
    6: (None, False, True),
    7: (None, True, True),
}
#: comparisons that may stream at once; further ones wait in Gradio's queue
MAX_STREAMS = 16
#: how long a piece of a stopped stream may still be on its way to the page
STRAGGLER_S = 0.5
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
THREADED: dict[str, Any] = {"concurrency_limit": None, **PRIVATE}
STREAMED: dict[str, Any] = {"concurrency_limit": MAX_STREAMS, "concurrency_id": "streams", **PRIVATE}

#: what a handler changes: component -> its new value or properties
Updates = dict[Any, Any]


def person_of(request: gr.Request) -> Person:
    """Who sends this, by the header that only the guard can set. Raises Forbidden."""
    raw = request.headers.get("x-auth-session") or ""
    person = accounts.person_for_session(int(raw)) if raw.isdecimal() else None
    if person is None:
        raise Forbidden("signed_out")
    if person.role not in preference.VOTERS:
        raise Forbidden("forbidden", role=person.role)
    return person


def language_of(request: gr.Request, person: Person | None = None) -> str:
    """`?lang=` of the page, else the person's language."""
    asked = request.query_params.get("lang")
    return asked if asked in ("en", "zh") else (person.language if person else "zh")


def build() -> gr.Blocks:
    """The page. Words and choices come with `load`, in the language of whoever opens it."""
    with gr.Blocks(analytics_enabled=False, title="Consilium", fill_width=True) as page:
        bench = Bench()
        bench.wire(page)
    return page


class Bench:
    """The components of the page, shared by everybody, and their handlers. Holds nothing about a person."""

    def __init__(self) -> None:
        self.language = gr.State("zh")
        #: {id, text} of the question that was offered; a text that differs is somebody's own question
        self.picked = gr.State(None)
        #: (id, mode) of the pair on screen once its votes are open
        self.pair = gr.State(None)
        with gr.Row(equal_height=True):
            with gr.Column(min_width=200, elem_classes="bench-choice"):
                self.first = gr.Dropdown(elem_id="bench-first")
                self.first_evidence = gr.Checkbox(elem_id="bench-first-evidence")
            with gr.Column(min_width=200, elem_classes="bench-choice"):
                self.second = gr.Dropdown(elem_id="bench-second")
                self.second_evidence = gr.Checkbox(elem_id="bench-second-evidence")
            self.mode = gr.Radio(elem_id="bench-mode", min_width=220)
        # closed at first: whoever only votes needs none of it, and the vote buttons stay in sight
        with gr.Accordion(elem_id="bench-settings", open=False) as self.settings, gr.Row(equal_height=True):
            self.dataset = gr.Dropdown(elem_id="bench-dataset", min_width=150)
            self.spoken = gr.Dropdown(elem_id="bench-language", min_width=110)
            self.risk = gr.Dropdown(elem_id="bench-risk", min_width=110)
            self.temperature = gr.Slider(0, 1.5, value=0.2, step=0.1, min_width=170, buttons=[])
            self.seed = gr.Number(value=7, precision=0, minimum=0, maximum=2**31 - 1, min_width=80)
        self.question = gr.Textbox(elem_id="bench-question", lines=2, max_lines=6, max_length=bench_questions.MAX_LENGTH)
        with gr.Row(elem_id="bench-actions"):
            self.fetch = gr.Button(elem_id="bench-next", min_width=120)
            self.run = gr.Button(variant="primary", elem_id="bench-run", min_width=120)
            self.stop = gr.Button(elem_id="bench-stop", interactive=False, min_width=80)
            self.help = gr.Button(elem_id="bench-help-open", min_width=80)
        self.strip, self.status = _html(), _html("bench-status")
        with gr.Row(elem_id="bench-answers"):
            with gr.Column(min_width=330, elem_id="bench-left"):
                self.left, self.told_left = _html(), _html()
            with gr.Column(min_width=330, elem_id="bench-right"):
                self.right, self.told_right = _html(), _html()
        self.rows = _html("bench-rows")
        self.ask = _html()
        with gr.Row(elem_id="bench-votes"):
            self.votes = {n: gr.Button(interactive=False, elem_id=f"vote-{n}", size="md") for n in BALLOTS}
        with gr.Row(equal_height=True):
            self.reasons = gr.CheckboxGroup(elem_id="bench-reasons", min_width=330)
            self.remark = gr.Textbox(max_length=500, min_width=200)
        self.onward = gr.Button(interactive=False, elem_id="bench-onward")
        self.totals, self.keys, self.card = _html("bench-totals"), _html(), _html()

    def wire(self, page: gr.Blocks) -> None:
        """Bind handlers to events. Streams have their own limit; everything else is short and runs in threads."""
        board = [self.strip, self.status, self.left, self.right, self.rows, self.told_left, self.told_right, self.reasons, self.remark]
        board += [self.onward, self.totals, self.run, self.stop, self.pair, *self.votes.values()]
        evidence = [self.first_evidence, self.second_evidence]
        choices = [self.first, self.second, *evidence, self.mode, self.dataset, self.spoken, self.risk, self.temperature, self.seed]
        words = [self.language, self.settings, self.question, self.fetch, self.help, self.ask, self.keys, self.card]
        page.load(self.open_page, None, [*words, *choices, *board], **PRIVATE)
        filters = [self.language, self.first, self.second, *evidence, self.dataset, self.spoken, self.risk, self.picked]
        offered = [self.picked, self.question, self.status]
        asked = [self.language, self.first, self.second, *evidence, self.mode, self.picked, self.question, self.temperature, self.seed]
        self.fetch.click(self.offer, filters, offered, **THREADED)
        running = self.run.click(self.compare, asked, board, **STREAMED)
        again = self.onward.click(self.offer, filters, offered, **THREADED).success(self.compare, asked, board, **STREAMED)
        halted = [self.run, self.stop, self.status, self.left, self.right]
        halt = self.stop.click(self.stopped, [self.language], halted, cancels=[running, again], **PRIVATE)
        halt.then(self.settled, [self.language], halted, **PRIVATE)
        for key, button in self.votes.items():
            button.click(self.on_vote(key), [self.language, self.pair, self.reasons, self.remark], board, **THREADED)

    def on_vote(self, key: int) -> Callable[..., Updates]:
        """The handler of one vote button. A closure: Gradio hands the request to plain functions only."""

        def handler(lang: str, pair: Any, reasons: list[str] | None, remark: str, request: gr.Request) -> Updates:
            return self.vote(key, lang, pair, reasons, remark, request)

        return handler

    def words(self, lang: str) -> Updates:
        """Every label of the page in one language."""

        def t(key: str) -> str:
            return translate(f"bench.{key}", lang)

        risks = [(t("any"), ""), *((t(f"risk_{r}"), r) for r in ("high", "medium", "low"))]
        return {
            self.mode: gr.update(label=t("mode"), choices=[(t("mode_blind"), "blind"), (t("mode_open"), "open")], value="blind"),
            self.first: gr.update(label=t("first")),
            self.second: gr.update(label=t("second")),
            self.first_evidence: gr.update(label=t("with_evidence")),
            self.second_evidence: gr.update(label=t("with_evidence")),
            self.help: gr.update(value=t("help")),
            self.settings: gr.update(label=t("settings")),
            self.card: view.help_card(lang),
            self.dataset: gr.update(label=t("dataset")),
            self.spoken: gr.update(label=t("language"), choices=[(t("any"), ""), ("中文", "zh"), ("English", "en")], value=""),
            self.risk: gr.update(label=t("risk"), choices=risks, value=""),
            self.temperature: gr.update(label=t("temperature")),
            self.seed: gr.update(label=t("seed")),
            self.question: gr.update(label=t("question"), placeholder=t("question_hint")),
            self.fetch: gr.update(value=t("next")),
            self.run: gr.update(value=t("compare")),
            self.stop: gr.update(value=t("stop")),
            self.left: view.empty_column("left", lang),
            self.right: view.empty_column("right", lang),
            self.ask: view.note("which", lang),
            self.reasons: gr.update(label=t("why"), choices=[(t(f"why_{r}"), r) for r in REASONS]),
            self.remark: gr.update(label=t("remark")),
            self.onward: gr.update(value=t("onward")),
            self.keys: view.note("keys", lang),
            **{self.votes[n]: gr.update(value=t(f"vote_{n}")) for n in BALLOTS},
        }

    def open_page(self, request: gr.Request) -> Updates:
        """Who is here, which words, which versions and question sets."""
        lang = language_of(request)
        try:
            person = person_of(request)
            lang = language_of(request, person)
            versions, sets = list_versions(), bench_questions.datasets()
        except UserError as error:
            return {**self.words(lang), self.language: lang, self.status: view.problem(error, lang)}
        one, two = _asked_pair(request, versions)
        choices = [(_version_label(v, lang), v.name) for v in versions]
        return {
            **self.words(lang),
            self.language: lang,
            self.strip: view.strip(lang, is_toy=any(v.is_toy for v in versions)),
            self.first: gr.update(label=translate("bench.first", lang), choices=choices, value=one),
            self.second: gr.update(label=translate("bench.second", lang), choices=choices, value=two),
            self.dataset: gr.update(label=translate("bench.dataset", lang), choices=sets, value=sets[0] if sets else None),
            self.status: "" if len(versions) > 1 else view.note("too_few_versions", lang),
        }

    def offer(
        self,
        lang: str,
        first: str | None,
        second: str | None,
        first_evidence: bool,
        second_evidence: bool,
        dataset: str | None,
        spoken: str,
        risk: str,
        old: Any,
        request: gr.Request,
    ) -> Updates:
        """The next question on which this person has not yet compared these two contestants."""
        try:
            person = person_of(request)
            after = old["id"] if old else 0
            found = bench_questions.next_question(
                person.id,
                first or "",
                second or "",
                evidence=(bool(first_evidence), bool(second_evidence)),
                dataset=dataset or "",
                language=spoken,
                risk=risk,
                after=after,
            )
        except UserError as error:
            return {self.picked: None, self.question: "", self.status: view.problem(error, lang)}
        return {self.picked: {"id": found.id, "text": found.text}, self.question: found.text, self.status: ""}

    async def compare(
        self,
        lang: str,
        first: str | None,
        second: str | None,
        first_evidence: bool,
        second_evidence: bool,
        mode: str,
        picked: Any,
        text: str,
        temperature: float,
        seed: float | None,
        request: gr.Request,
    ) -> AsyncGenerator[Updates, None]:
        """Make the pair, stream both answers, open the votes. Closed by Gradio when the browser has gone."""
        yield self._cleared()
        decoding = Decoding(float(temperature), int(seed or 0))
        try:
            person = person_of(request)
            is_offered = bool(picked) and picked["text"] == text
            sample_id = picked["id"] if is_offered else (await _in_thread(bench_questions.own_question, person.id, text)).id
            kind: Mode = "open" if mode == "open" else "blind"
            pair = await _in_thread(
                preference.open_pair,
                person.id,
                first or "",
                second or "",
                sample_id,
                mode=kind,
                decoding=decoding,
                first_with_evidence=bool(first_evidence),
                second_with_evidence=bool(second_evidence),
            )
            names = _names(pair, lang) if pair.mode == "open" else None
            async with aclosing(stream_pair(person.id, pair, decoding)) as frames:
                async for frame in frames:
                    left, right = view.columns(frame, lang, names=names)
                    yield {self.left: left, self.right: right}
        except UserError as error:
            yield {**self._idle(), self.status: view.problem(error, lang)}
            return
        if frame.state == "ready":
            opened = {button: gr.update(interactive=True) for button in self.votes.values()}
            yield {
                **self._idle(is_onward=pair.mode == "open"),
                **opened,
                self.pair: (pair.id, pair.mode),
                self.rows: view.rows(frame, lang),
                self.status: view.note("vote_now" if pair.mode == "blind" else "vote_open", lang),
            }
        else:
            yield {**self._idle(is_onward=True), self.status: view.note("void", lang)}

    def vote(self, key: int, lang: str, pair: Any, reasons: list[str] | None, remark: str, request: gr.Request) -> Updates:
        """Store the ballot, then tell what may be told now. A press that was already stored changes nothing."""
        choice, unsafe_left, unsafe_right = BALLOTS[key]
        try:
            person = person_of(request)
            if pair is None:
                raise UserError("bench.pair_not_ready")
            pair_id, mode = pair
            ballot = Ballot(f"pair-{pair_id}-key-{key}", choice, unsafe_left, unsafe_right, tuple(reasons or ()), remark or "")
            stored = preference.cast(person.id, pair_id, ballot)
            reveal = preference.reveal(person.id, pair_id)
            newer, older = sorted((reveal.left, reveal.right), key=lambda side: side.contestant, reverse=True)
            table = standings(
                person.id,
                newer.name,
                older.name,
                first_with_evidence=newer.with_evidence,
                second_with_evidence=older.with_evidence,
            )
        except UserError as error:
            return {self.status: view.problem(error, lang)}
        told = view.told(reveal, lang) if mode == "blind" else ("", "")
        word = "stored_unsafe" if unsafe_left or unsafe_right else "stored"
        return {
            self.told_left: told[0],
            self.told_right: told[1],
            self.totals: view.statistics(table, lang),
            self.status: view.note(word, lang, choice=translate(f"bench.vote_{key}", lang), id=stored.vote_id),
            self.onward: gr.update(interactive=True),
            **{self.votes[n]: gr.update(interactive=False) for n in (1, 2, 3, 4, key)},
        }

    def stopped(self, lang: str) -> Updates:
        """The stream was cancelled by the person; its pair is void, and half an answer is nothing to judge by."""
        empty = {self.left: view.empty_column("left", lang), self.right: view.empty_column("right", lang)}
        return {**empty, self.stop: gr.update(interactive=False), self.status: view.note("stopped", lang)}

    async def settled(self, lang: str) -> Updates:
        """A last piece of the stream may have been on its way when it was stopped and have overwritten that: say it again after it."""
        await anyio.sleep(STRAGGLER_S)
        return {**self.stopped(lang), **self._idle()}

    def _cleared(self) -> Updates:
        """The board before a new pair: nothing of the last one is left, no vote is open."""
        empty: Updates = dict.fromkeys((self.rows, self.told_left, self.told_right, self.totals, self.status, self.remark), "")
        closed = {button: gr.update(interactive=False) for button in (*self.votes.values(), self.onward, self.run)}
        return {**empty, **closed, self.reasons: [], self.pair: None, self.stop: gr.update(interactive=True)}

    def _idle(self, *, is_onward: bool = False) -> Updates:
        updates: Updates = {self.run: gr.update(interactive=True), self.stop: gr.update(interactive=False)}
        return updates | ({self.onward: gr.update(interactive=True)} if is_onward else {})


def _html(elem_id: str | None = None) -> gr.Markdown:
    """A piece of the view. gr.HTML would evaluate a template from a string, which our headers forbid; in gr.Markdown one line
    of HTML passes untouched, and app.bench_view escapes whatever was written by a person or a model."""
    return gr.Markdown(elem_id=elem_id, sanitize_html=False, latex_delimiters=[], container=False)


def _asked_pair(request: gr.Request, versions: list[VersionShown]) -> tuple[str | None, str | None]:
    """The versions that a link asks for (?first=&second=), else the pair that a newcomer compares."""
    known = {v.name for v in versions}
    one, two = (request.query_params.get(key) for key in ("first", "second"))
    return (one, two) if one in known and two in known else default_pair(versions)


def _names(pair: Pair, lang: str) -> tuple[str, str]:
    left = view.contestant(pair.left, lang, with_evidence=pair.left_with_evidence)
    return left, view.contestant(pair.right, lang, with_evidence=pair.right_with_evidence)


def _version_label(version: VersionShown, lang: str) -> str:
    marks = [version.kind, *(["★ " + translate("bench.serving", lang)] if version.status == "serving" else [])]
    return f"{version.name} · {' · '.join(marks)}"


async def _in_thread(function: Callable[..., R], *arguments: Any, **options: Any) -> R:
    """Database work beside the event loop that all streams share."""
    return await anyio.to_thread.run_sync(partial(function, *arguments, **options))
