"""The desk's one conversation: the page posts a list of messages, and gets receipts and what it needs to show next.

Every message is its own transaction and gets its own answer, so that one refusal holds up nothing. The browser keeps a
decision until it is acknowledged and resends it; the answer to a repeat is the first receipt. No state lives here: the page
says which cases it has (`have`) and which come next (`ahead`), and gets what is missing; the list of cases and its counts, which
cost most, come again when the list is another, when it is old, or when something was refused. Called by pages/case_desk.py.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from functools import cache
from typing import Any, TypeGuard

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import adjudication, guidelines
from core.adjudication import Decision, Receipt
from core.desk import citations, followups, forms, lease, tour
from core.desk.cases import blind_case, may_see_reveal, reveal, state_of
from core.desk.queue import FILTERS, ORDERS, PAGE, Wish, counts, queue, topics
from core.errors import Conflicting, NotFound, Unavailable, UserError
from core.home import current_home
from core.i18n import catalogue, error_text, translate
from core.records import ConflictStatus
from core.signing import Proof
from db import tables as t
from db.base import utc_now
from db.engine import read_session

log = logging.getLogger("consilium.desk")

#: Cases sent ahead of the one on screen, so that the next one is painted without waiting.
NUM_AHEAD = 3
MAX_MESSAGES = 200
#: a list that the page got so long ago is sent again with the next answer
LIST_FRESH_S = 10
#: cases that a claim in advance names as just as good
MAX_OTHERS = 10

#: What the page asks for before it sends, in the words of the refusal that it would get.
NEEDS = {
    "verdict": "verdict_unknown",
    "cannot": "reason_needed",
    "note": "note_needed",
    "reason": "revision_reason_needed",
    "right": "who_was_right_needed",
}

DECISIONS: dict[str, Callable[[int, Decision], Receipt]] = {
    "commit": adjudication.commit_blind,
    "sign": adjudication.sign,
    "skip": adjudication.skip,
    "stop_cord": adjudication.stop_cord,
}


def deliver(
    user_id: int, language: str, posted: Mapping[str, Any] | None = None, *, open_case: int | None = None, session_id: int = 0
) -> dict[str, Any]:
    """Handle what the browser posted ({messages, view}) and say what it should show. `open_case` is a deep link; `session_id` the
    sign-in that posts (0: a program's token, which signs nothing).

    Raises Forbidden when the person may not review (any more); a refused message is an answer in `acks`, not an exception.
    """
    with read_session() as session:
        name = lease.reviewer(session, user_id).display_name
    posted = posted if isinstance(posted, Mapping) else {}
    messages = posted.get("messages")
    acks = [_answer(user_id, language, m, session_id) for m in (messages if isinstance(messages, list) else [])[:MAX_MESSAGES]]
    reply: dict[str, Any] = {"now": utc_now().isoformat(), "acks": acks, "language": language}
    try:
        with read_session() as session:
            reply |= {"user": {"id": user_id, "name": name}} | _screen(session, user_id, language, posted.get("view"), acks, open_case)
    except Unavailable as error:
        reply["problem"] = error_text(error, language)
    return reply


def _answer(user_id: int, language: str, message: Any, session_id: int) -> dict[str, Any]:
    """Do one message. `ok` with what was asked for, or the sentence that says why not; `retry` asks the browser to keep it."""
    if not isinstance(message, Mapping):
        message = {}
    kind, case = message.get("type"), message.get("case")
    ack: dict[str, Any] = {"id": message.get("id"), "type": kind, "case": case}
    try:
        if not _is_id(case):
            raise UserError("desk.field_unknown", field="case")
        return ack | {"ok": True} | _do(user_id, language, str(kind), case, message, session_id)
    except UserError as error:
        shown = {"current": error.params["current"]} if "current" in error.params else {}
        if isinstance(error, Conflicting) and kind in ("commit", "sign") and _is_id(case):
            shown["submitted"] = _keep(user_id, case, message.get("form"))
        refused = {"ok": False, "code": error.code, "text": error_text(error, language), "retry": isinstance(error, Unavailable)}
        return ack | refused | shown


def _keep(user_id: int, case: int, form: Any) -> dict[str, Any]:
    """What was refused stays the person's draft: a lost race must not lose words, even when the browser is closed on it.

    Returns its words, to be shown beside the stored ones.
    """
    form = form if isinstance(form, Mapping) else {}
    try:
        lease.save_draft(user_id, case, {key: value for key, value in form.items() if key != "dwell_ms"})
    except UserError:
        log.warning("the refused verdict on case %s could not be kept as a draft", case)
    return {key: form[key] for key in forms.WORDS if form.get(key)}


def _do(user_id: int, language: str, kind: str, case: int, message: Mapping[str, Any], session_id: int) -> dict[str, Any]:
    token = str(message.get("lease_token") or "")
    form = message.get("form")
    form = form if isinstance(form, Mapping) else {}
    if kind in DECISIONS:
        version = message.get("version")
        proof = Proof(session_id)
        decision = Decision(case, str(message.get("id")), form, token, version if isinstance(version, int) else None, proof)
        receipt = DECISIONS[kind](user_id, decision)
        return _jsonable(asdict(receipt)) | {"at": receipt.saved_at.isoformat()}
    if kind == "claim":
        claimed = _claim_first(user_id, [case, *_ids(message.get("others"))[:MAX_OTHERS]], token or None)
        return _jsonable(asdict(claimed)) | {"case": claimed.conflict_id} | _draft(user_id, claimed.conflict_id)
    if kind == "heartbeat":
        return {"expires_at": lease.heartbeat(user_id, case, token).isoformat()}
    if kind == "release":
        lease.release(user_id, case, token)
        return {}
    if kind == "draft":
        return {"at": lease.save_draft(user_id, case, dict(form)).isoformat()}
    if kind == "hand_over":
        to = message.get("to")
        return {"expires_at": lease.hand_over(user_id, case, token, to if _is_id(to) else 0).isoformat()}
    if kind == "colleagues":
        return {"colleagues": lease.colleagues(user_id)}
    if kind == "list":
        return {}
    if kind == "evidence":
        return citations.find(case, str(message.get("about")), language)
    if kind == "guideline":
        now = guidelines.current()
        shown = [{"heading": part.heading, "text": part.text} for part in guidelines.paragraphs(now.text(language))]
        return {"version": now.version, "paragraphs": shown}
    if kind == "flag":
        return {"flag": guidelines.flag(user_id, str(message.get("paragraph")), str(message.get("note") or ""), conflict_id=case)}
    if kind == "follow":
        return {"follow_up": followups.request(user_id, case, str(message.get("kind")))}
    if kind == "tour":
        tour.mark_seen(user_id)
        return {}
    if kind == "look":
        return _draft(user_id, case) | _state(case)
    raise UserError("desk.field_unknown", field="type")


def _screen(session: Session, user_id: int, language: str, view: Any, acks: list[dict[str, Any]], open_case: int | None) -> dict[str, Any]:
    view = view if isinstance(view, Mapping) else {}
    asked = _asked(view)
    listed = {} if _is_fresh(view.get("listed"), asked, acks) else _list(session, user_id, asked)
    have = set(_ids(view.get("have")))
    wanted = _wanted([row["id"] for row in listed["queue"]] if listed else None, view, acks, open_case)
    texts = strings(language)
    screen: dict[str, Any] = {
        "cases": [_case(session, user_id, case) for case in wanted if case not in have and _exists(session, case)],
        "reveals": [_reveal(session, user_id, case) for case in _revealed(session, user_id, acks)],
        "strings_version": texts["version"],
    }
    if open_case is not None and _exists(session, open_case):
        screen["open"] = open_case
    if view.get("strings_version") != texts["version"]:
        screen["strings"] = texts["words"]
        screen["topics"] = topics(session)
    return screen | listed


def _asked(view: Mapping[str, Any]) -> dict[str, Any]:
    """Which list the page asks for; what it cannot mean falls back to the usual."""
    return {
        "status": view.get("status") if view.get("status") in FILTERS else "open",
        "order": view.get("order") if view.get("order") in ORDERS else "mixed",
        "language": view.get("language") if view.get("language") in ("en", "zh") else None,
        "topic": _short(view.get("topic")),
        "risk": _short(view.get("risk")),
        "text": _short(view.get("text")) or "",
    }


def _list(session: Session, user_id: int, asked: dict[str, Any]) -> dict[str, Any]:
    """The list of cases, its counts, and what belongs to the frame around them."""
    wish = Wish(asked["language"], asked["topic"], asked["risk"], asked["text"])
    return {
        "view": asked,
        "queue": queue(session, user_id, status=asked["status"], order=asked["order"], wish=wish),
        "page": PAGE,
        "counts": counts(session, user_id, wish=wish),
        "listed": {"of": asked, "at": utc_now().isoformat()},
        "num_signed_today": _num_signed_today(session, user_id),
        "has_seen_tour": tour.has_seen(session, user_id),
        "lease_minutes": current_home().settings.case_lease_minutes,
        "correction_minutes": adjudication.CORRECTION_MINUTES,
    }


def _claim_first(user_id: int, cases: list[int], token: str | None) -> lease.Claim:
    """The first of `cases` that is free: who takes a case in advance does not mind which. Raises what the first refusal was."""
    refusal: Conflicting | None = None
    for case in cases:
        try:
            return lease.claim(user_id, case, lease_token=token)
        except Conflicting as error:
            refusal = refusal or error
    raise refusal or NotFound("desk.queue_empty")


def _is_fresh(listed: Any, asked: dict[str, Any], acks: list[dict[str, Any]]) -> bool:
    """Whether the list in the page will do: the same list, a few seconds old, nothing refused, and nobody asked for it."""
    if not isinstance(listed, Mapping) or listed.get("of") != asked:
        return False
    if not acks or any(ack["type"] == "list" or not ack["ok"] for ack in acks):
        return False
    try:
        age = (utc_now() - datetime.fromisoformat(str(listed.get("at")))).total_seconds()
    except (ValueError, TypeError):  # no time, or one without a zone
        return False
    return 0 <= age < LIST_FRESH_S


def _wanted(rows: list[int] | None, view: Mapping[str, Any], acks: list[dict[str, Any]], open_case: int | None) -> list[int]:
    """The case on screen, those asked for, and the next few after it: by a new list, or as the page counts on from the one it has."""
    current = view.get("current")
    asked = [ack["case"] for ack in acks if ack["type"] in ("look", "claim") and _is_id(ack["case"])]
    first = [case for case in (open_case, current) if _is_id(case)]
    if rows is None:
        ahead = _ids(view.get("ahead"))[: NUM_AHEAD + 1]
    else:
        here = rows.index(current) + 1 if current in rows else 0
        ahead = [*rows[here : here + NUM_AHEAD + 1], *rows[:NUM_AHEAD]]
    return list(dict.fromkeys([*first, *asked, *ahead]))


def _ids(values: Any) -> list[int]:
    return [case for case in values if _is_id(case)] if isinstance(values, list) else []


def _case(session: Session, user_id: int, conflict_id: int) -> dict[str, Any]:
    """The blind case, and whether this person has already committed on it (so the page asks for the reveal)."""
    return blind_case(session, conflict_id) | {"is_committed": may_see_reveal(session, user_id, conflict_id)}


def _reveal(session: Session, user_id: int, conflict_id: int) -> dict[str, Any]:
    """The reveal, with what follows from the decision once there is one."""
    conflict = session.get_one(t.Conflict, conflict_id)
    is_decided = conflict.status in (ConflictStatus.ADJUDICATED, ConflictStatus.DEFERRED)
    return reveal(session, user_id, conflict_id) | {"next": followups.what_follows(session, conflict) if is_decided else None}


def _is_id(value: Any) -> TypeGuard[int]:
    """A number that can be a row's id; the browser's numbers are exact up to 2**53."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _short(value: Any) -> str | None:
    """A word of a filter as the browser sent it, or None."""
    return value.strip()[:200] or None if isinstance(value, str) else None


def _exists(session: Session, conflict_id: int) -> bool:
    return session.get(t.Conflict, conflict_id) is not None


def _revealed(session: Session, user_id: int, acks: list[dict[str, Any]]) -> list[int]:
    """Cases whose reveal was just earned or asked for."""
    asked = [
        a["case"] for a in acks if _is_id(a["case"]) and (a["type"] in ("look", "claim", "follow") or (a["type"] == "commit" and a["ok"]))
    ]
    return [case for case in dict.fromkeys(asked) if may_see_reveal(session, user_id, case)]


def _draft(user_id: int, conflict_id: int) -> dict[str, Any]:
    with read_session() as session:
        row = session.scalar(select(t.Draft).where(t.Draft.conflict_id == conflict_id, t.Draft.user_id == user_id))
        return {"draft": row.payload if row else None}


def _state(conflict_id: int) -> dict[str, Any]:
    with read_session() as session:
        conflict = session.get(t.Conflict, conflict_id)
        if conflict is None:
            raise NotFound("desk.no_such_case", case=conflict_id)
        return {"state": state_of(session, conflict)}


def _num_signed_today(session: Session, user_id: int) -> int:
    midnight = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    query = select(func.count(t.Adjudication.id)).where(
        t.Adjudication.user_id == user_id, t.Adjudication.stage == "signed", t.Adjudication.supersedes_id.is_(None)
    )
    return session.scalar(query.where(t.Adjudication.created_at >= midnight)) or 0


@cache
def strings(language: str) -> dict[str, Any]:
    """The words of the screen: the `ui_` keys of desk.toml and the names in scoring.toml, with a version by content."""
    words = {key.removeprefix("ui_"): text[language] for key, text in catalogue("desk").items() if key.startswith("ui_")}
    words |= {f"need_{name}": translate(f"desk.{key}", language) for name, key in NEEDS.items()}
    words |= {key: translate(f"common.{key}", language) for key in ("ai_notice", "toy_notice")}
    words |= {f"scoring.{key}": text[language] for key, text in catalogue("scoring").items()}
    digest = hashlib.sha256(json.dumps(words, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    return {"words": words, "version": digest[:12]}


def _jsonable(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in values.items()}
