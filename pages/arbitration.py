"""Arbitration: two blind verdicts beside the decision, anonymous, row by row; the arbiter takes sides by key and says why.

What is chosen lives in the session until it is signed; `core.desk.arbitration` checks everything again and refuses what changed.
"""

from __future__ import annotations

import streamlit as st

from app.i18n import t
from app.review_widgets import PALETTE, sentences_box, show_ruled, show_side, value_name, verdict_name
from app.session import current_user, require
from app.widgets import ai_notice, guarded, page_title
from core.desk import arbitration
from core.desk.arbitration import OWN, ROWS, Dispute, Ruling
from core.desk.forms import CRITERION_VALUES
from core.records import Verdict
from core.signing import Proof

#: key of each reader's letter; C cannot be a shortcut
KEYS = {"A": "a", "B": "b", "C": "3"}


def choose(user_id: int) -> int | None:
    """The case in the address, or one from the list of those that wait."""
    rows = arbitration.waiting(user_id)
    asked = st.query_params.get("case", "")
    if asked.isdecimal():
        return int(asked)
    if not rows:
        others = arbitration.num_waiting()
        st.info(t("arbitration.empty_others", num=others) if others else t("arbitration.empty"), icon=":material/gavel:")
        return None
    marks = {one.conflict_id: f" · {t('arbitration.unsafe_mark')}" if one.has_unsafe else "" for one in rows}
    names = {one.conflict_id: f"{one.conflict_id}{marks[one.conflict_id]} · {one.question[:80]}" for one in rows}
    return st.selectbox(t("arbitration.waiting", num=len(rows)), list(names), format_func=names.__getitem__, key="arbitration_case")


def state(dispute: Dispute) -> dict[str, str]:
    """What has been taken so far in this case: row -> letter. Rows on which all readers agree are taken already."""
    key = f"arbitration_{dispute.conflict_id}_{dispute.version}"
    taken: dict[str, str] = st.session_state.setdefault(key, {row: dispute.sides[0].letter for row in ROWS if row not in dispute.differs})
    return taken


def take(dispute: Dispute, row: str, letter: str) -> None:
    """A side in one row; the next undecided row becomes the current one."""
    require("clinician")
    taken = state(dispute)
    taken[row] = letter
    left = [name for name in ROWS if name not in taken]
    if letter != OWN and left:
        st.session_state["arbitration_row"] = left[0]


def move(step: int) -> None:
    """Another row becomes the current one."""
    here = ROWS.index(st.session_state.get("arbitration_row", ROWS[0]))
    st.session_state["arbitration_row"] = ROWS[(here + step) % len(ROWS)]


def show_rows(dispute: Dispute) -> dict[str, str]:
    """The table of rows; returns the arbiter's own values."""
    taken = state(dispute)
    current = st.session_state.setdefault("arbitration_row", next((row for row in ROWS if row in dispute.differs), ROWS[0]))
    own: dict[str, str] = {}
    for row in ROWS:
        name = t(f"arbitration.row_{row}")
        with st.container(border=row == current):
            mark = f" :orange-badge[{t('arbitration.differs')}]" if row in dispute.differs else ""
            st.markdown(f"**{name}**{mark}")
            columns = st.columns(len(dispute.sides) + 1)
            for column, side in zip(columns, dispute.sides, strict=False):
                value = verdict_name(side.verdict) if row == "verdict" else value_name(side.values.get(row))
                is_taken = taken.get(row) == side.letter
                # on a filled button a coloured letter cannot be read
                label = f"**{side.letter}** {value}" if is_taken else f":{PALETTE[side.letter]}[**{side.letter}**] {value}"
                if row == "verdict" and side.blind != side.verdict:
                    label += f" ({t('arbitration.blind_was', verdict=verdict_name(side.blind))})"
                column.button(
                    label,
                    key=f"take_{row}_{side.letter}",
                    type="primary" if is_taken else "secondary",
                    icon=":material/check:" if is_taken else None,
                    shortcut=KEYS[side.letter] if row == current else None,
                    help=t("arbitration.take", letter=side.letter),
                    on_click=take,
                    args=(dispute, row, side.letter),
                    width="stretch",
                )
            columns[-1].button(
                t("arbitration.mine"),
                key=f"take_{row}_own",
                type="primary" if taken.get(row) == OWN else "secondary",
                icon=":material/check:" if taken.get(row) == OWN else None,
                shortcut="m" if row == current else None,
                on_click=take,
                args=(dispute, row, OWN),
                width="stretch",
            )
            if taken.get(row) == OWN:
                choices = [*Verdict] if row == "verdict" else ["", *CRITERION_VALUES]
                shown = verdict_name if row == "verdict" else value_name
                own[row] = str(columns[-1].selectbox(t("arbitration.own_value", row=name), choices, format_func=shown, key=f"own_{row}"))
    up, down, _ = st.columns([1, 1, 4])
    up.button(t("arbitration.row_up"), shortcut="Up", on_click=move, args=(-1,), width="stretch")
    down.button(t("arbitration.row_down"), shortcut="Down", on_click=move, args=(1,), width="stretch")
    return own


def decide(user_id: int, dispute: Dispute) -> None:
    """Rows, reason, signature."""
    own = show_rows(dispute)
    for column, side in zip(st.columns(len(dispute.sides)), dispute.sides, strict=True):
        show_side(column, side)
    reason = st.text_area(t("arbitration.reason"), key=f"reason_{dispute.conflict_id}", height=80)
    rewrite = st.text_area(t("arbitration.rewrite"), key=f"rewrite_{dispute.conflict_id}", height=80)
    if st.button(t("arbitration.sign"), type="primary", shortcut="Ctrl+Enter"):
        with guarded():
            ruling = Ruling(state(dispute), reason, own, rewrite)
            proof = Proof(current_user().session_id)
            receipt = arbitration.rule(user_id, dispute.conflict_id, dispute.version, ruling, proof=proof)
            st.session_state["arbitration_done"] = t("arbitration.signed", case=dispute.conflict_id, entry=receipt.entry)
            st.session_state.pop("arbitration_row", None)
            st.query_params.clear()
            st.rerun()
    st.caption(t("arbitration.keys"))


def main() -> None:
    person = require("clinician")
    page_title("arbitration.title")
    if done := st.session_state.pop("arbitration_done", None):
        st.success(done, icon=":material/gavel:")
    st.caption(t("arbitration.intro"))
    case = choose(person.id)
    if case is None:
        return
    dispute = arbitration.open_dispute(person.id, case)
    left, right = st.columns([5, 6], gap="medium")
    with left:
        ai_notice()
        sentences_box(person.id, dispute)
    with right:
        if dispute.ruling is None:
            decide(person.id, dispute)
        else:
            show_ruled(dispute)


with guarded():
    main()
