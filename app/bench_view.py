"""The bench's pieces of HTML. Everything a model or a person wrote is escaped here; nothing else builds markup.

Every piece is one line: it travels through a Markdown component, where a blank line would end the block of HTML and let the
rest be read as Markdown.
"""

from __future__ import annotations

import html

from app.errors import describe
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
    found = []
    for i, (side, shown) in enumerate(zip(("left", "right"), both, strict=True)):
        title = names[i] if names else translate(f"bench.answer_{side}", language)
        other = both[1 - i].answer if frame.state != "streaming" else None
        found.append(_column(_head(title, shown, frame, language), _body(shown, other, language, MARKS[i])))
    return found[0], found[1]


def told(reveal: Reveal, language: str) -> tuple[str, str]:
    """Names, hashes, times and thinking, after the vote."""
    return _told(reveal.left, "left", language), _told(reveal.right, "right", language)


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
        (_t("stat_rate", language, name=s.first), rate + bar),
        (_t("stat_wins", language, first=s.first, second=s.second), f"{s.wins_first} : {s.wins_second}"),
        (_t("stat_ties", language), f"{s.ties} + {s.both_bad}"),
        (_t("stat_votes", language), f"{s.num_votes} ({s.num_decisive} · {s.num_own_votes})"),
        (_t("stat_unsafe", language, first=s.first, second=s.second), f"{s.unsafe_first} : {s.unsafe_second}"),
        (_t("stat_left", language), share),
        (_t("stat_missing", language), missing),
    )
    return '<div class="bench-stats">' + "".join(f"<div>{label}<b>{value}</b></div>" for label, value in cells) + "</div>"


def _t(key: str, language: str, **params: object) -> str:
    return escape(translate(f"bench.{key}", language, **params))


def _column(head: str, body: str) -> str:
    return f'<div class="bench-column"><div class="bench-head">{head}</div>{body}</div>'


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


def _body(shown: Shown, other: str | None, language: str, mark: str) -> str:
    if shown.error is not None:
        return problem(shown.error, language) if isinstance(shown.error, Exception) else ""
    notices = "".join(_notice(n, language, mark) for n in shown.notices)
    answer = f'<div class="bench-answer" dir="auto">{_sentences(shown.answer, other, mark)}</div>'
    return notices + answer + _thinking(shown.thinking, language)


def _notice(notice: Notice, language: str, mark: str) -> str:
    places = ", ".join(f"{mark}{n}" for n in notice.places)
    text = translate(f"bench.notice_{notice.kind}", language) + (f" ({places})" if places else "")
    return f'<div class="bench-notice {notice.level}"><i aria-hidden="true">{SIGNS[notice.level]}</i><span>{escape(text)}</span></div>'


def _sentences(answer: str, other: str | None, mark: str) -> str:
    """The answer with numbered sentences; at the end, those that the other answer does not have are tinted."""
    known = None if other is None else {_plain(s.text) for s in sentences(other)}
    out, position = [], 0
    for number, sentence in enumerate(sentences(answer), 1):
        kind = ' class="only"' if known is not None and _plain(sentence.text) not in known else ""
        out.append(escape(answer[position : sentence.start]))
        out.append(f"<span{kind}><sup>{mark}{number}</sup>{escape(sentence.text)}</span>")
        position = sentence.end
    return "".join(out) + escape(answer[position:])


def _plain(sentence: str) -> str:
    return "".join(sentence.split()).casefold().rstrip(".。!！;；")


def _thinking(thinking: str, language: str) -> str:
    if not thinking:
        return ""
    return f"<details><summary>{_t('thinking', language)}</summary><div>{escape(thinking)}</div></details>"


def _told(side: RevealedSide, place: str, language: str) -> str:
    seconds = "" if side.seconds is None else _t("state_done_s", language, seconds=f"{side.seconds:.1f}")
    head = (
        f"<b>{_t(f'answer_{place}', language)} = {escape(side.name)}</b><code>#{escape(side.content_hash[:8])}</code><span>{seconds}</span>"
    )
    return (
        f'<div class="bench-column" style="min-height:0;height:auto"><div class="bench-head">{head}</div>'
        + (_thinking(side.thinking, language) or f'<span class="bench-quiet">{_t("no_thinking", language)}</span>')
        + "</div>"
    )
