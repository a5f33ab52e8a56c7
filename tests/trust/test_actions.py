"""Everything the code writes into the chain stands in docs/record.md, and what must be in the chain is; signing asks for the password."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from core import accounts, passwords, signing
from core.accounts import Person
from core.desk.mailbox import deliver
from core.errors import Forbidden, UserError
from core.home import Home, open_home
from core.settings import ROOT
from core.signing import Proof
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session
from tests import factories

PASSWORD = "a calm morning round"
#: files in which the action is a variable: what it can be
VARIABLES = {
    "core/promotion.py": {"promote", "roll_back"},
    "core/retrieval_trials.py": {
        "propose_retrieval", "start_retrieval_trial", "advance_retrieval_trial", "promote_retrieval", "stop_retrieval_trial",
        "roll_back_retrieval",
    },
    "core/teacher/proposals.py": {"accept_proposal", "reject_proposal"},
}  # fmt: skip
#: sign-ins, administrator actions, exports, rules, teacher, reward
MUST = {
    "sign_in", "sign_in_failed", "sign_out", "add_user", "set_role", "enable_user", "disable_user", "set_password", "make_login_link",
    "export", "import", "propose_reward", "approve_reward", "reject_reward", "set_teacher_price", "close_teacher_alarm",
    "publish_guideline", "promote", "roll_back", "retract_decision", "inspect_case",
}  # fmt: skip


def words(node: ast.expr) -> Iterator[str | None]:
    """The actions an expression can be; a formatted one as a pattern with *; None for a variable."""
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.IfExp):
        yield from words(node.body)
        yield from words(node.orelse)
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)
    else:
        yield None


def actions_of_the_code() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for folder in ("core", "app", "training", "pages"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "audit.record"):
                    continue
                for word in words(node.args[1]):
                    if word is None:
                        assert name in VARIABLES, f"{name}:{node.lineno}: say in VARIABLES what this action can be"
                    for one in VARIABLES[name] if word is None else {word}:
                        found.setdefault(one, set()).add(name)
    return found


def actions_in_the_document() -> set[str]:
    text = (ROOT / "docs" / "record.md").read_text(encoding="utf-8")
    table = text.partition("<!-- actions -->")[2].partition("<!-- /actions -->")[0]
    return {word for line in table.splitlines() if line.startswith("|") for word in re.findall(r"`([\w.*]+)`", line)}


def test_the_document_names_every_action_of_the_code_and_no_other() -> None:
    code = actions_of_the_code()
    assert len(code) > 50
    assert set(code) == actions_in_the_document()
    assert set(code) >= MUST


def in_chain(action: str) -> list[t.AuditEntry]:
    with read_session() as session:
        return list(session.scalars(select(t.AuditEntry).where(t.AuditEntry.action == action).order_by(t.AuditEntry.id)))


@pytest.fixture
def person(home: Home) -> Person:
    user_id = accounts.create_user("li", "Li Na", "product", by=None)
    accounts.use_link(accounts.make_link(user_id, by=None), PASSWORD)
    found = accounts.person_for_token(accounts.open_session(user_id, "test"))
    assert found is not None
    return found


def test_sign_ins_that_fail_are_in_the_chain_also_of_unknown_names(person: Person) -> None:
    for name in ("li", "my secret password"):
        with pytest.raises(UserError, match="wrong_password"):
            passwords.authenticate(name, "wrong wrong wrong", "10.0.0.1")
    known, unknown = in_chain("sign_in_failed")
    assert (known.object_id, known.detail["is_known"]) == (str(person.id), True)
    assert (unknown.object_id, unknown.detail["is_known"]) == ("-", False)
    assert "secret" not in str(unknown.detail), "what was typed as a name may be a password"
    assert [one.actor_id for one in in_chain("sign_in")] == [person.id]


def test_signing_asks_for_the_password_each_time_unless_the_setting_lets_a_recent_one_count(home: Home, person: Person) -> None:
    assert not signing.needs_password(person), "the tests' setting: an hour, and the sign-in is fresh"
    strict = open_home(home.settings.model_copy(update={"signing_password_minutes": 0}))
    assert strict.settings.signing_password_minutes == 0
    assert signing.needs_password(person)
    with pytest.raises(UserError, match=r"trust\.wrong_signing_password"):
        signing.prove(person.id, Proof(person.session_id, "wrong wrong wrong"))
    with pytest.raises(UserError, match=r"trust\.password_needed"):
        signing.prove(person.id, Proof(person.session_id))
    signing.prove(person.id, Proof(person.session_id, PASSWORD))
    assert signing.needs_password(person), "the next signature asks again"
    assert len(in_chain("sign_in_failed")) == 1
    with read_session() as session:
        assert session.get_one(t.LoginSession, person.session_id).confirmed_at is not None
        said = signing.signature(session.get_one(t.User, person.id), "promote")
    assert said["name"] == "Li Na"
    assert said["meaning"] == "I, Li Na, approve that this version answers people."
    assert said["at"].endswith("+00:00")


def test_nothing_is_signed_without_the_signers_own_open_sign_in(home: Home, person: Person) -> None:
    other = accounts.create_user("wu", "Wu Fang", "clinician", by=None)
    for proof in (None, Proof(0), Proof(0, PASSWORD), factories.proof(other), Proof(999, PASSWORD)):
        with pytest.raises(Forbidden, match=r"trust\.proof_missing"):
            signing.prove(person.id, proof)
    accounts.sign_out(person.session_id, person)
    with pytest.raises(Forbidden, match=r"trust\.proof_missing"):
        signing.prove(person.id, Proof(person.session_id, PASSWORD))


def test_a_verdict_is_signed_within_the_hours_of_the_setting_and_never_by_a_program(home: Home) -> None:
    with write_session() as session:
        doctor, case = factories.user(session).id, factories.conflict(session, kind="control").id
    claim = {"id": "claim-01", "type": "claim", "case": case, "lease_token": "window-one"}
    form = {"verdict": "minor", "dwell_ms": 800}

    def say(kind: str, version: int, session_id: int) -> dict[str, Any]:
        message = {**claim, "id": f"{kind}-{session_id:04}", "type": kind, "version": version, "form": form}
        return deliver(doctor, "en", {"messages": [message]}, session_id=session_id)["acks"][0]

    fresh, old = factories.proof(doctor).session_id, factories.proof(doctor).session_id
    with write_session() as session:
        session.get_one(t.LoginSession, old).created_at = utc_now() - timedelta(minutes=home.settings.desk_signing_minutes)
    version = say("commit", say("claim", 0, 0)["version"], 0)["version"]
    assert say("sign", version, 0)["code"] == "trust.proof_missing"
    assert say("sign", version, old)["code"] == "desk.sign_in_again"
    assert say("sign", version, fresh)["ok"]
