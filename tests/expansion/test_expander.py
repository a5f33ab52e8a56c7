"""Ask with an expander: lines find what the question alone does not, and whatever goes wrong with them costs a note, not the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from core.ask import AskResult, ask, note_text
from core.errors import NotFound, UserError
from core.expansion import expander, schema
from core.expansion.expander import open_expander, usable
from core.expansion.term_model import TermModel, Writing
from core.home import Home
from core.models import register_version
from core.records import VersionKind
from core.retrieval import retrieval_models
from core.retrieval.plans import Plan
from core.search_plans import set_plan
from db import tables as t
from db.engine import read_session, write_session
from tests.ask.conftest import indexed  # noqa: F401 - a fixture
from tests.expansion.scripted import Scripted, serving

GOOD = "lex: chest pain aspirin\nvec: what to do about a heart attack\nhyde: Chest pain with sweating is an emergency; call an ambulance."

BAD = (
    "Here are some keywords: chest pain",
    "lex: chest pain\nSure!",
    "",
    "lex:",
    "<|im_start|>lex: chest pain",
    "vec: " + "y" * 700,
    "\n".join(f"lex: word {i}" for i in range(11)),
)


@pytest.fixture
def scripted(indexed: Home) -> Iterator[Scripted]:  # noqa: F811
    """An endpoint registered as an expansion model; nothing is remembered from another test."""
    expander.remembered.clear()
    with serving() as endpoint:
        endpoint.lines = GOOD
        with write_session() as session:
            row = register_version(session, name="endpoint", kind=VersionKind.EXTERNAL, task="expansion", manifest={"key_variable": ""})
            row.endpoint_url, row.endpoint_model = endpoint.base, "any"
        yield endpoint


def asked(question: str = "chest pain with cold sweat", budget_ms: int = 3000, name: str = "endpoint") -> AskResult:
    plan = {"expander": name, "expander_budget_ms": budget_ms}
    return ask(question, user_id=None, with_rewrite=False, with_answer=False, plan=plan)


def test_lines_are_doors_and_the_second_time_they_are_remembered(scripted: Scripted) -> None:
    found = asked()
    assert (found.expansion["status"], found.expansion["lines"]) == ("used", GOOD.split("\n"))
    doors = {door.via for context in found.contexts for door in context.why}
    assert "lex: chest pain aspirin" in doors
    # keywords go to word search alone; what is for vectors never enters it
    assert {name for name in found.stages if "lex: " in name} == {"lexical:lex: chest pain aspirin"}
    assert not any(name.startswith("lexical:vec") or name.startswith("lexical:hyde") for name in found.stages)
    messages = scripted.asked[0][1]
    assert messages == schema.prompt_messages("chest pain with cold sweat")
    again = asked()
    assert (again.expansion["status"], len(scripted.asked)) == ("remembered", 1)
    assert again.expansion["lines"] == found.expansion["lines"]
    # the plan chooses, and a request switches off
    set_plan("guidelines", Plan(expander="endpoint"), reason="test", by=None)
    by_plan = ask("chest pain with cold sweat", user_id=None, with_rewrite=False, with_answer=False)
    assert by_plan.expansion["status"] == "remembered"
    off = ask("chest pain with cold sweat", user_id=None, with_rewrite=False, with_answer=False, plan={"expander": ""})
    assert off.expansion == {}
    assert not any("lex: " in name for name in off.stages)
    with pytest.raises(UserError, match="bad_plan"):
        ask("pain", user_id=None, plan={"expander_budget_ms": -1})
    with read_session() as session:
        event = session.get_one(t.AskEvent, found.event_id)
        assert event.details["expansion"]["status"] == "used"


def test_a_late_answer_is_not_waited_for_and_serves_the_next_time(scripted: Scripted) -> None:
    plain = ask("chest pain with cold sweat", user_id=None, with_rewrite=False, with_answer=False)
    scripted.pause_s = 1.0
    found = asked(budget_ms=60)
    assert found.timings_ms["expand"] < 800
    assert (found.expansion["status"], found.expansion["lines"]) == ("late", [])
    assert [c.parent for c in found.contexts] == [c.parent for c in plain.contexts]
    assert "60" in note_text(next(n for n in found.notes if n[0] == "expansion_export.note_late"), "en")
    # a crowd behind a slow model is refused at once, and let in again when it has passed
    slow = open_expander("endpoint")
    statuses = [slow.ask(f"question {i}", budget_ms=10).status for i in range(5)]
    assert statuses == ["late"] * 3 + ["busy"] * 2
    wait_until(lambda: slow.ask("chest pain with cold sweat", budget_ms=0).status == "remembered")
    scripted.pause_s = 0
    wait_until(lambda: slow.ask("question 9", budget_ms=2000).status == "used")
    assert asked(budget_ms=60).expansion["status"] == "remembered"


def test_what_is_not_an_expansion_is_not_used_and_a_model_that_fails_costs_a_note(scripted: Scripted) -> None:
    for text in BAD:
        assert usable(text) == (), text
    scripted.lines = BAD[0]
    found = asked()
    assert (found.expansion["status"], found.expansion["lines"]) == ("bad", [])
    assert found.contexts
    assert any(note[0] == "expansion_export.note_bad" for note in found.notes)
    # a line about something else would put its own passages first: it is left out, and said so
    scripted.lines = "lex: glaucoma eye drops\nlex: chest pain with cold sweat causes"
    strayed = asked()
    assert strayed.expansion["lines"] == ["lex: chest pain with cold sweat causes"]
    assert strayed.expansion["astray"] == ["lex: glaucoma eye drops"]
    assert any(note[0] == "expansion_export.note_astray" for note in strayed.notes)
    assert not any("glaucoma" in name for name in strayed.stages)
    expander.remembered.clear()
    scripted.status = 500
    failed = asked()
    assert failed.expansion["status"] == "failed"
    assert "500" in note_text(next(n for n in failed.notes if n[0] == "expansion_export.note_failed"), "zh")
    unknown = asked(name="nobody")
    assert unknown.expansion["status"] == "failed"
    assert unknown.contexts
    with pytest.raises(NotFound, match="no_expander"):
        open_expander("nobody")


def test_lines_of_a_term_model_weigh_what_it_was_measured_best_with(indexed: Home) -> None:  # noqa: F811
    own = {"pchest": 1.0, "ppain": 1.0}
    zeros = np.zeros((1, 1), np.float32)
    folder = retrieval_models.models_folder(indexed, "terms")
    folder.mkdir(parents=True)
    TermModel(own, {"pchest": 0}, zeros, zeros, zeros[0], ["x"], Writing((0,))).save(folder)
    retrieval_models.register(indexed, kind="expander", name="terms", form="terms", folder=folder, metrics={"line_weight": 2.0})

    def weights(**plan: object) -> set[float]:
        found = ask("chest pain", user_id=None, with_rewrite=False, with_answer=False, plan={"expander": "terms", **plan})
        assert found.expansion["status"] == "used", found.expansion
        return {wording["weight"] for wording in found.wordings if str(wording["name"]).startswith("lex:")}

    assert weights() == {2.0}
    assert weights(expansion=0.7) == {0.7}, "a person's own choice comes first"
    assert Plan().line_weight == 0.5
    assert Plan.from_json({"expansion": None}) == Plan()


def wait_until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.05)
