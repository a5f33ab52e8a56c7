"""A thousand races on one case against the real server: is every save that comes too late refused with both texts, and kept?

    .venv/bin/python -m benchmarks.desk_races [--races 1000]

Two kinds in turn, both over POST /api/desk with real sign-ins. "windows": one reader corrects a signature from two windows at the
same version. "people": a reader's hold ran out, a colleague took the case, and both sign at the same moment. After each race the
database is read: exactly one text became a decision; the other stands in the answer beside what is stored, and in its author's
draft. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
from sqlalchemy import select, update

from benchmarks.load.site import Site, site
from core import audit
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

BOTH = 2


@dataclass
class Tally:
    """What was counted over all races."""

    num_races: int = 0
    stored: int = 0
    refused: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    #: races in which not exactly one text was stored
    wrong: list[str] = field(default_factory=list)
    num_without_both_texts: int = 0
    num_not_kept: int = 0
    save_ms: list[float] = field(default_factory=list)


class Window:
    """One browser window of one reader."""

    def __init__(self, where: Site, name: str) -> None:
        headers = {"Authorization": f"Bearer {where.readers[name].partition('=')[2]}"}
        self.http = httpx.Client(base_url=where.url, headers=headers, timeout=60, trust_env=False)
        self.token = ""
        self.version = 0

    def say(self, **message: Any) -> dict[str, Any]:
        """Post one message; returns its answer."""
        answer = self.http.post("/api/desk", json={"messages": [message], "view": {"have": [1]}})
        answer.raise_for_status()
        ack: dict[str, Any] = answer.json()["acks"][0]
        return ack

    def claim(self, case: int, token: str) -> None:
        ack = self.say(id=f"claim-{token}", type="claim", case=case, lease_token=token)
        assert ack["ok"], ack
        self.token, self.version = token, ack["version"]

    def decide(self, kind: str, case: int, text: str, **extra: Any) -> dict[str, Any]:
        form = {"verdict": "serious", "note": text, "who_was_right": "neither", "dwell_ms": 900, **extra}
        return self.say(id=f"{kind}-{text}", type=kind, case=case, lease_token=self.token, version=self.version, form=form)


def together(tally: Tally, *calls: Any) -> list[dict[str, Any]]:
    """Run the calls at the same moment and return their answers."""
    barrier = Barrier(len(calls))

    def run(call: Any) -> dict[str, Any]:
        barrier.wait()
        began = time.perf_counter()
        ack: dict[str, Any] = call()
        tally.save_ms.append(1000 * (time.perf_counter() - began))
        return ack

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(run, call) for call in calls]]


def free(case: int) -> None:
    """Put the case back on the desk, as a stop cord or a new reader would."""
    with write_session() as session:
        values = {"status": "open", "claimed_by": None, "lease_token": None, "lease_expires_at": None}
        session.execute(update(t.Conflict).where(t.Conflict.id == case).values(version=t.Conflict.version + 1, **values))


def expire(case: int) -> None:
    with write_session() as session:
        session.execute(update(t.Conflict).where(t.Conflict.id == case).values(lease_expires_at=utc_now() - timedelta(seconds=1)))


def last_signed(case: int) -> t.Adjudication:
    with read_session() as session:
        query = select(t.Adjudication).where(t.Adjudication.conflict_id == case, t.Adjudication.stage == "signed")
        return session.scalars(query.order_by(t.Adjudication.id.desc()).limit(1)).one()


def check(tally: Tally, case: int, number: int, texts: list[str], acks: list[dict[str, Any]], people: list[str]) -> None:
    """Hold the answers of one race against the database."""
    tally.num_races += 1
    with read_session() as session:
        query = select(t.Adjudication.note).where(t.Adjudication.conflict_id == case, t.Adjudication.note.in_(texts))
        stored = list(session.scalars(query.where(t.Adjudication.stage == "signed")))
        kept = select(t.User.username, t.Draft.payload).join(t.Draft, t.Draft.user_id == t.User.id).where(t.Draft.conflict_id == case)
        drafts: dict[str, dict[str, Any]] = {name: payload for name, payload in session.execute(kept)}  # noqa: C416 - rows are no pairs
    taken = [text for text, ack in zip(texts, acks, strict=True) if ack["ok"]]
    if len(taken) != 1 or stored != taken:
        tally.wrong.append(f"race {number}: acknowledged {taken}, stored {stored}")
    for text, ack, person in zip(texts, acks, people, strict=True):
        if ack["ok"]:
            tally.stored += 1
            continue
        tally.refused += 1
        tally.codes[ack["code"]] += 1
        current = ack.get("current") or {}
        # before the winner's text is stored there is only the name of who has the case in hand
        has_other = current.get("note") in taken or bool(current.get("holder"))
        if not has_other or (ack.get("submitted") or {}).get("note") != text:
            tally.num_without_both_texts += 1
        if drafts.get(person, {}).get("note") != text:
            tally.num_not_kept += 1


def race_of_windows(tally: Tally, case: int, number: int, windows: list[Window]) -> None:
    row = last_signed(case)
    with read_session() as session:
        version = session.get_one(t.Conflict, case).version
    texts = [f"race {number} window {n} of the same reader" for n in range(BOTH)]
    for window in windows:
        window.version = version
    acks = together(tally, *(lambda w=w, x=x: w.decide("sign", case, x, supersedes_id=row.id) for w, x in zip(windows, texts, strict=True)))
    check(tally, case, number, texts, acks, ["reader0"] * BOTH)


def race_of_people(tally: Tally, case: int, number: int, first: Window, second: Window) -> None:
    free(case)
    first.claim(case, f"first-{number}-token")
    expire(case)
    second.claim(case, f"second-{number}-token")
    texts = [f"race {number} of the one whose hold ran out", f"race {number} of the colleague"]
    acks = together(tally, lambda: first.decide("sign", case, texts[0]), lambda: second.decide("sign", case, texts[1]))
    check(tally, case, number, texts, acks, ["reader0", "reader1"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--races", type=int, default=1000)
    races = parser.parse_args().races
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder, site(Path(folder), num_cases=3, num_readers=BOTH) as where, where.database():
        with read_session() as session:
            case = session.scalars(select(t.Conflict.id).order_by(t.Conflict.id).limit(1)).one()
        windows, colleague = [Window(where, "reader0") for _ in range(BOTH)], Window(where, "reader1")
        for person in (windows[0], colleague):  # everybody has given a blind verdict; what is raced for is the signature
            free(case)
            person.claim(case, f"start-token-{id(person)}")
            assert person.decide("commit", case, f"blind {id(person)}")["ok"]
        for number in range(races):
            if number % BOTH:
                race_of_people(tally, case, number, windows[0], colleague)
                free(case)
                windows[0].claim(case, f"again-{number}-token")
                assert windows[0].decide("sign", case, f"between {number}")["ok"]
            elif number:
                race_of_windows(tally, case, number, windows)
            else:
                free(case)
                windows[0].claim(case, "very-first-token")
                assert windows[0].decide("sign", case, "the first signature")["ok"]
                race_of_windows(tally, case, number, windows)
        with read_session() as session:
            chain = audit.verify(session)
            num_signed = len(list(session.scalars(select(t.Adjudication.id).where(t.Adjudication.stage == "signed"))))
    times = sorted(tally.save_ms)
    print(
        json.dumps(
            {
                "races": tally.num_races,
                "stored": tally.stored,
                "refused": tally.refused,
                "refused_by_code": dict(tally.codes),
                "not_exactly_one": tally.wrong[:5],
                "num_not_exactly_one": len(tally.wrong),
                "refused_without_both_texts": tally.num_without_both_texts,
                "refused_and_not_kept": tally.num_not_kept,
                "signatures_in_the_database": num_signed,
                "audit_chain_breaks_at": chain,
                "save_ms_p50": round(times[len(times) // 2], 1),
                "save_ms_p95": round(times[int(0.95 * len(times))], 1),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
