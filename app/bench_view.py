"""The bench's pieces of HTML. Everything a model or a person wrote is escaped here; nothing else builds markup.

Every piece is one line: it travels through a Markdown component, where a blank line would end the block of HTML and let the
rest be read as Markdown.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from app.errors import describe
from core.bench_diff import Line, Piece, align
from core.bench_stream import Frame, Shown
from core.completions import sentences
from core.i18n import translate
from core.notices import Notice
from core.preference import Reveal, RevealedSide
from core.standings import Standings

#: sentences of answer A are a1, a2 ... and those of B are b1, b2 ...
MARKS = ("a", "b")
SIGNS = {"bad": "!!", "warn": "!", "good": "✓"}


def escape(text: str) -> str:
    """`text` as HTML on one line; line breaks survive as character references."""
    return html.escape(text).replace("\r", "").replace("\n", "&#10;")


def empty_column(side: str, language: str) -> str:
    """What stands in a column before the first comparison."""
    return _column(f"<b>{_t(f'answer_{side}', language)}</b>", f'<p class="bench-quiet">{_t("nothing_yet", language)}</p>')


def columns(frame: Frame, language: str, *, names: tuple[str, str] | None = None) -> tuple[str, str]:
    """Both columns of a frame. `names` only in open mode."""
    both = frame.left, frame.right
    lines = align(both[0].answer, both[1].answer) if frame.state == "ready" else None
    found = []
    for i, (side, shown) in enumerate(zip(("left", "right"), both, strict=True)):
        title = names[i] if names else translate(f"bench.answer_{side}", language)
        body = _body(shown, lines, language, MARKS[i])
        found.append(_column(_head(title, shown, frame, language), body, is_open=names is not None))
    return found[0], found[1]


def rows(frame: Frame, language: str) -> str:
    """Both answers sentence by sentence, side by side: shown instead of the columns' text on the second press of D."""
    if frame.state != "ready":
        return ""
    cut = [[s.text for s in sentences(shown.answer)] for shown in (frame.left, frame.right)]
    cells = "".join(
        f'<div class="row {line.kind}"><div dir="auto">{_cell(line, 0, cut, language)}</div>'
        f'<div dir="auto">{_cell(line, 1, cut, language)}</div></div>'
        for line in align(frame.left.answer, frame.right.answer)
    )
    return f'<div class="bench-rows">{cells}</div>'


def help_card(language: str) -> str:
    """The card that H opens: every key, and what the marks mean."""
    keys = (("1-7", "vote"), ("Enter", "onward"), ("N", "next"), ("T", "thinking"), ("D", "diff"), ("F", "focus"), ("V", "swap"))
    lines = (*keys, ("B", "roll_back"), ("H", "help"), ("Esc", "escape"))
    listed = "".join(f"<dt><kbd>{key}</kbd></dt><dd>{_t(f'help_{name}', language)}</dd>" for key, name in lines)
    return (
        f'<dialog id="bench-help" aria-labelledby="bench-help-title"><h3 id="bench-help-title">{_t("help_title", language)}</h3>'
        f"<dl>{listed}</dl><p>{_t('help_marks', language)}</p><p>{_t('help_blind', language)}</p>"
        f'<form method="dialog"><button class="bench-close">{_t("help_close", language)}</button></form></dialog>'
    )


def told(reveal: Reveal, language: str) -> tuple[str, str]:
    """Names, hashes, times, thinking and, where a side had some, the passages, after the vote."""
    left, right = (_told(side, place, language) for side, place in ((reveal.left, "left"), (reveal.right, "right")))
    return left, right


def contestant(name: str, language: str, *, with_evidence: bool) -> str:
    """A version's name as votes count it."""
    return f"{name} + {translate('bench.evidence', language)}" if with_evidence else name


def problem(error: Exception, language: str) -> str:
    """A sentence for a fault; a bug gets a short id and its traceback in the log."""
    return f'<div class="bench-error" role="alert">{escape(describe(error, language).text)}</div>'


def note(key: str, language: str, **params: object) -> str:
    return f'<div class="bench-quiet" role="status">{escape(translate(f"bench.{key}", language, **params))}</div>'


def strip(language: str, *, is_toy: bool) -> str:
    """The fixed notice: AI-generated, not medical advice; and that a toy is talking."""
    text = translate("common.ai_notice", language) + (" " + translate("common.toy_notice", language) if is_toy else "")
    return f'<div id="bench-strip">{escape(text)}</div>'


def statistics(s: Standings, language: str) -> str:
    """How the two versions stand, with what is still missing before anybody should believe it."""
    first = contestant(s.first, language, with_evidence=s.first_with_evidence)
    second = contestant(s.second, language, with_evidence=s.second_with_evidence)
    if s.rate is None:
        rate, bar = _t("no_votes", language), ""
    else:
        rate = f"{s.rate:.2f} [{s.low:.2f}–{s.high:.2f}]"
        bar = (
            f'<div class="bench-bar"><i style="left:{s.low:.1%};width:{s.high - s.low:.1%}"></i>'
            f'<u style="left:{s.rate:.1%}"></u><s></s></div>'
        )
    share = "–" if s.left_share is None else f"{s.left_share:.2f} [{s.left_low:.2f}–{s.left_high:.2f}]"
    missing = _t("enough_votes", language) if s.num_more_needed == 0 else _t("more_votes", language, num=s.num_more_needed)
    cells = (
        (_t("stat_rate", language, name=first), rate + bar),
        (_t("stat_wins", language, first=first, second=second), f"{s.wins_first} : {s.wins_second}"),
        (_t("stat_ties", language), f"{s.ties} + {s.both_bad}"),
        (_t("stat_votes", language), f"{s.num_votes} ({s.num_decisive} · {s.num_own_votes})"),
        (_t("stat_unsafe", language, first=first, second=second), f"{s.unsafe_first} : {s.unsafe_second}"),
        (_t("stat_left", language), share),
        (_t("stat_missing", language), missing),
    )
    return '<div class="bench-stats">' + "".join(f"<div>{label}<b>{value}</b></div>" for label, value in cells) + "</div>"


def _t(key: str, language: str, **params: object) -> str:
    return escape(translate(f"bench.{key}", language, **params))


def _column(head: str, body: str, *, is_open: bool = False) -> str:
    mark = ' data-open="1"' if is_open else ""
    return f'<div class="bench-column"{mark}><div class="bench-head">{head}</div>{body}</div>'


def _head(title: str, shown: Shown, frame: Frame, language: str) -> str:
    if shown.error is not None:
        state = _t("state_failed", language)
    elif shown.seconds is not None:
        state = _t("state_done_s", language, seconds=f"{shown.seconds:.1f}")
    elif shown.is_done:
        state = _t("state_done", language)
    else:
        state = _t("state_streaming", language, seconds=f"{frame.elapsed_s:.0f}")
    return f"<b>{escape(title)}</b><span>{state}</span>"


def _body(shown: Shown, lines: Sequence[Line] | None, language: str, mark: str) -> str:
    if shown.error is not None:
        return problem(shown.error, language) if isinstance(shown.error, Exception) else ""
    notices = "".join(_notice(n, language, mark) for n in shown.notices)
    answer = f'<div class="bench-answer" dir="auto">{_sentences(shown.answer, lines, language, mark)}</div>'
    return notices + answer + _thinking(shown.thinking, language)


def _notice(notice: Notice, language: str, mark: str) -> str:
    places = ", ".join(f"{mark}{n}" for n in notice.places)
    text = translate(f"bench.notice_{notice.kind}", language) + (f" ({places})" if places else "")
    return f'<div class="bench-notice {notice.level}"><i aria-hidden="true">{SIGNS[notice.level]}</i><span>{escape(text)}</span></div>'


def _sentences(answer: str, lines: Sequence[Line] | None, language: str, mark: str) -> str:
    """The answer with numbered sentences. At the end each says whether the other answer has it: tint, underline and a sign in words."""
    own, other = ("left", "right") if mark == MARKS[0] else ("right", "left")
    by_number = {getattr(line, own): line for line in lines or ()}
    out, position = [], 0
    for number, sentence in enumerate(sentences(answer)):
        line = by_number.get(number)
        out.append(escape(answer[position : sentence.start]))
        kind, sign, text = "", "", escape(sentence.text)
        if line is not None and line.kind == own:
            kind, sign = ' class="only"', _sign("＋", "only_here", language)
        elif line is not None and line.kind == "changed":
            partner = f"{MARKS[1 - MARKS.index(mark)]}{getattr(line, other) + 1}"
            kind, sign = ' class="changed"', _sign(f"≈{partner}", "worded_otherwise", language)
            text = _pieces(line.left_pieces if own == "left" else line.right_pieces)
        out.append(f"<span{kind}><sup>{mark}{number + 1}{sign}</sup>{text}</span>")
        position = sentence.end
    return "".join(out) + escape(answer[position:])


def _sign(sign: str, key: str, language: str) -> str:
    return f'<b class="sign" title="{_t(key, language)}">{sign}</b>'


def _pieces(pieces: Sequence[Piece]) -> str:
    return "".join(f"<u>{escape(text)}</u>" if is_new and text.strip() else escape(text) for text, is_new in pieces)


def _cell(line: Line, side: int, cut: Sequence[Sequence[str]], language: str) -> str:
    number = (line.left, line.right)[side]
    if number is None:
        return f'<span class="bench-quiet">– {_t("not_said", language)}</span>'
    pieces = (line.left_pieces, line.right_pieces)[side]
    sign = {"changed": "≈", "left": "＋", "right": "＋"}.get(line.kind, "")
    text = _pieces(pieces) if pieces else escape(cut[side][number])
    return f"<sup>{MARKS[side]}{number + 1}{sign}</sup>{text}"


def _thinking(thinking: str, language: str) -> str:
    if not thinking:
        return ""
    return f"<details><summary>{_t('thinking', language)}</summary><div>{escape(thinking)}</div></details>"


def _told(side: RevealedSide, place: str, language: str) -> str:
    seconds = "" if side.seconds is None else _t("state_done_s", language, seconds=f"{side.seconds:.1f}")
    name = escape(contestant(side.name, language, with_evidence=side.with_evidence))
    head = f"<b>{_t(f'answer_{place}', language)} = {name}</b><code>#{escape(side.content_hash[:8])}</code><span>{seconds}</span>"
    return (
        f'<div class="bench-column" style="min-height:0;height:auto"><div class="bench-head">{head}</div>'
        + (_thinking(side.thinking, language) or f'<span class="bench-quiet">{_t("no_thinking", language)}</span>')
        + (_passages(side.evidence, language) if side.with_evidence else "")
        + "</div>"
    )


def _passages(evidence: Sequence[dict[str, Any]], language: str) -> str:
    """What stood before the question, so that a citation in the answer can be checked."""
    if not evidence:
        return f'<p class="bench-quiet">{_t("no_evidence_found", language)}</p>'
    listed = "".join(
        f"<p><b>[{n}] {escape(str(p['title']))} {escape(str(p['section']))}</b> "
        f"<span>{escape(' · '.join(filter(None, (str(p['source']), str(p['date'])))))}</span><br>{escape(str(p['text']))}</p>"
        for n, p in enumerate(evidence, 1)
    )
    return f"<details><summary>{_t('evidence_read', language, num=len(evidence))}</summary>{listed}</details>"
