"""Models and Evaluations as people see them: gates, signature, roll-back, external endpoints, reports; who may do what."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select
from streamlit.testing.v1 import AppTest

from core.accounts import Person
from core.home import Home
from core.models import folder_hash, serving_version
from core.scoring import ensure_reward_config
from core.serving.token import server_token
from db import tables as t
from db.engine import read_session, write_session
from tests import factories
from tests.bench.conftest import free_port
from tests.bench.fake_endpoint import serving as endpoint
from tests.reports import evaluation_report

OpenPage = Callable[..., AppTest]


def report(regressions: list[int], completions: dict[str, dict[str, int]] | None = None) -> dict[str, object]:
    """A report of the first shape: what an earlier release stored must still be drawn."""

    def one(mean: float, name: str) -> dict[str, object]:
        part = {"mean": mean, "n": 40, "num_unscored": 0}
        slices = [
            {"by": "risk", "value": "high", "n": 40, "mean": mean, "ci_low": mean - 0.1, "ci_high": mean + 0.1},
            {"by": "risk", "value": "low", "n": 29, "mean": 0.987, "ci_low": 0.9, "ci_high": 1.0},
        ]
        kept = (completions or {}).get(name, {})
        return {
            "n": 40, "num_unscored": 2, "mean": mean, "ci_low": mean - 0.1, "ci_high": mean + 0.1, "content_hash": "",
            "parts": {"chain": part, "emergency": part}, "slices": slices, "completions": kept,
        }  # fmt: skip

    comparison = {"candidate": "rl-1", "n": 38, "difference": 0.2, "ci_low": 0.1, "ci_high": 0.3, "emergency_regressions": regressions}
    return {
        "versions": {"sft-1": one(0.4, "sft-1"), "rl-1": one(0.6, "rl-1")}, "baseline": "sft-1", "comparisons": [comparison],
        "decoding": {"temperature": 1.0}, "dataset": "demo", "split": "test", "dataset_hash": "ab" * 32, "reward_config": "v1",
        "teacher": "offline", "teacher_is_offline": True,
    }  # fmt: skip


@pytest.fixture
def quick_server(home: Home) -> Iterator[None]:
    """Answers the smoke set in the model server's place."""
    port = free_port()
    object.__setattr__(home, "settings", home.settings.model_copy(update={"model_server_port": port}))
    with endpoint(server_token(home), port) as running:
        running.piece_s = 0.0
        yield


@pytest.fixture
def two_versions(home: Home) -> None:
    ensure_reward_config()
    with write_session() as session:
        parent = None
        for name, kind in (("sft-1", "sft"), ("rl-1", "rl")):
            folder = home.models / name
            folder.mkdir()
            (folder / "adapter_model.safetensors").write_bytes(name.encode())
            values = {"path": home.relative(folder), "content_hash": folder_hash(folder), "parent_version_id": parent, "is_toy": True}
            values["manifest"] = {"kl": 4.0, "reward_config": "v1"} if kind == "rl" else {}
            parent = factories.version(session, kind, name=name, **values).id


def evaluate(regressions: list[int], completions: dict[str, dict[str, int]] | None = None) -> int:
    with write_session() as session:
        row = t.Evaluation(name="sft-vs-rl", report=report(regressions, completions))
        session.add(row)
        session.flush()
        return row.id


def measure(lost: tuple[int, ...] = ()) -> int:
    """A report of today's shape, with enough cases to know."""
    with write_session() as session:
        row = t.Evaluation(name="sft-vs-rl", report=evaluation_report("sft-1", "rl-1", lost=lost))
        session.add(row)
        session.flush()
        return row.id


def serving() -> str | None:
    with read_session() as session:
        row = serving_version(session)
        return row.name if row else None


def texts(screen: AppTest) -> str:
    pieces = [*screen.markdown, *screen.caption, *screen.error, *screen.warning, *screen.success, *screen.info]
    return "\n".join(str(p.value) for p in pieces)


def test_an_empty_house_says_what_to_do_next(open_page: OpenPage) -> None:
    for page in ("models", "evaluations"):
        screen = open_page("engineer", page)
        assert not screen.exception
        assert "Jobs page" in screen.info[0].value


@pytest.mark.parametrize("page", ["bench", "jobs"])
def test_a_clinician_is_refused(open_page: OpenPage, page: str) -> None:
    screen = open_page("clinician", page)
    assert len(screen.error) == 1
    assert not screen.header


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("page", ["models", "evaluations"])
def test_no_catalogue_key_reaches_the_screen(open_page: OpenPage, two_versions: None, page: str, language: str) -> None:
    evaluate([])
    screen = open_page("admin", page, language=language)
    assert not screen.exception
    for prefix in ("models.", "evaluations.", "common."):
        assert prefix not in texts(screen)
        assert not [b for b in screen.button if b.label.startswith(prefix)]
        assert not [c for frame in screen.dataframe for c in frame.value.columns if str(c).startswith(prefix)]


def test_promotion_shows_its_gates_and_signs_with_reason_and_name(open_page: OpenPage, two_versions: None, quick_server: None) -> None:
    screen = open_page("product", "models", query={"version": "rl-1"})
    assert "no evaluation has measured this version" in texts(screen)
    assert "too few to know: 0 cases" in texts(screen)
    assert "models_promote" not in [b.key for b in screen.button]

    evaluation = measure()
    screen = open_page("product", "models", query={"version": "rl-1"})
    screen.button(key="models_promote").click().run()
    assert f"evaluation {evaluation}" in texts(screen)
    assert "SHA-256 verified" in texts(screen)
    assert "4.00 nats per sequence" in texts(screen)
    screen.button(key="models_sign").click().run()
    assert "A reason is needed" in screen.error[0].value
    assert serving() is None
    screen.text_area(key="models_reason").set_value("wins the blind test")
    screen.text_input(key="models_signature").set_value("Dr Product")
    screen.button(key="models_sign").click().run()
    assert serving() == "rl-1"
    assert "rl-1 is serving now." in screen.success[0].value
    with read_session() as session:
        event = session.scalars(select(t.ServingEvent)).one()
    assert (event.reason, event.signed_name, event.checks["evaluation_id"]) == ("wins the blind test", "Dr Product", evaluation)


def test_lost_emergency_advice_needs_two_people(
    open_page: OpenPage, sign_in: Callable[..., Person], two_versions: None, quick_server: None
) -> None:
    with write_session() as session:
        session.scalars(select(t.ModelVersion).where(t.ModelVersion.name == "sft-1")).one().status = "serving"
    measure(lost=(1005,))
    admin = sign_in("admin")
    screen = open_page(admin, "models", query={"version": "rl-1"})
    assert "1 cases with a danger sign that sft-1 passed now fail" in texts(screen)
    assert "models_promote" not in [b.key for b in screen.button]
    screen.button(key="models_override").click().run()
    screen.text_area(key="models_reason").set_value("the case was withdrawn by the desk")
    screen.text_input(key="models_signature").set_value("Dr Admin")
    screen.button(key="models_sign").click().run()
    assert serving() == "sft-1"
    assert "A second person has to countersign" in screen.success[0].value
    assert not [b.key for b in screen.button if str(b.key).startswith("models_countersign")]

    screen = open_page("clinician", "models")
    assert "Dr Admin asks to promote rl-1 although 2 gates are closed" in screen.warning[0].value
    screen.button(key="models_countersign_1").click().run()
    screen.text_area(key="models_reason").set_value("read the case, agreed")
    screen.text_input(key="models_signature").set_value("Dr Clinician")
    screen.button(key="models_sign").click().run()
    assert not screen.exception
    assert serving() == "rl-1"
    history = next(f.value for f in screen.dataframe if "Signed by" in f.value.columns)
    assert history["Signed by"][0] == "Dr Admin + Dr Clinician"


def test_a_clinician_reads_gates_but_cannot_promote(open_page: OpenPage, two_versions: None) -> None:
    measure()
    screen = open_page("clinician", "models", query={"version": "rl-1"})
    assert not screen.exception
    assert "SHA-256 verified" in texts(screen)
    assert not {"models_promote", "models_override"} & {b.key for b in screen.button}


def test_rolling_back_takes_one_press_a_reason_and_a_name(open_page: OpenPage, two_versions: None) -> None:
    with write_session() as session:
        old, new = session.scalars(select(t.ModelVersion).order_by(t.ModelVersion.id))
        for row, before in ((old, None), (new, old.id)):
            event = {"action": "promote", "to_version_id": row.id, "from_version_id": before, "reason": "r", "signed_name": "Li"}
            session.add(t.ServingEvent(**event))
        old.status, new.status = "retired", "serving"
    screen = open_page("product", "models")
    screen.button(key="models_roll_back").click().run()
    screen.text_area(key="models_reason").set_value("misses strokes at night")
    screen.text_input(key="models_signature").set_value("dr product")
    screen.button(key="models_sign").click().run()
    assert serving() == "sft-1"


def test_an_engineer_looks_but_does_not_promote(open_page: OpenPage, two_versions: None) -> None:
    measure()
    screen = open_page("engineer", "models")
    assert "models_promote" not in [b.key for b in screen.button]


def test_a_role_lost_after_the_page_was_opened_counts_at_the_press(
    open_page: OpenPage, sign_in: Callable[..., Person], two_versions: None
) -> None:
    measure()
    person = sign_in("product")
    screen = open_page(person, "models", query={"version": "rl-1"})
    screen.button(key="models_promote").click().run()
    screen.text_area(key="models_reason").set_value("wins the blind test")
    screen.text_input(key="models_signature").set_value("Dr Product")
    with write_session() as session:
        session.get_one(t.User, person.id).role = "engineer"
    screen.button(key="models_sign").click().run()
    assert screen.error
    assert serving() is None


def test_registering_an_endpoint_and_being_told_what_is_wrong_with_one(open_page: OpenPage) -> None:
    screen = open_page("engineer", "models")
    for name, value in (("name", "vllm-1"), ("url", "not an address"), ("model", "qwen")):
        screen.text_input(key=f"models_ext_{name}").set_value(value)
    screen.button[0].click().run()
    assert "http://" in screen.error[0].value
    screen.text_input(key="models_ext_url").set_value("http://10.0.0.5:8000/v1")
    screen.button[0].click().run()
    assert "vllm-1 is registered." in screen.success[0].value
    assert "http://10.0.0.5:8000/v1" in texts(screen)


def test_an_administrator_closes_a_safety_case_with_a_reason(open_page: OpenPage, two_versions: None) -> None:
    with write_session() as session:
        version = session.scalars(select(t.ModelVersion).where(t.ModelVersion.name == "rl-1")).one()
        completion = factories.completion(session, model_version_id=version.id)
        case = t.SafetyCase(completion_id=completion.id, reported_by=factories.user(session).id, origin="desk")
        session.add(case)
        session.flush()
        case_id = case.id
    assert not open_page("product", "models", query={"version": "rl-1"}).text_area
    screen = open_page("admin", "models", query={"version": "rl-1"})
    assert f"Safety case {case_id}" in screen.warning[0].value
    screen.text_area(key=f"models_case_reason_{case_id}").set_value("read again: the advice is right")
    next(b for b in screen.button if b.label == f"Close safety case {case_id}").click().run()
    assert not screen.warning
    with read_session() as session:
        assert session.get_one(t.SafetyCase, case_id).closed_reason == "read again: the advice is right"


# --- evaluations ------------------------------------------------------------------------------------------------------


def test_harm_comes_first_with_the_very_answers(open_page: OpenPage, two_versions: None) -> None:
    with write_session() as session:
        sample = factories.sample(session)
        ids = {}
        for name in ("sft-1", "rl-1"):
            version = session.scalars(select(t.ModelVersion).where(t.ModelVersion.name == name)).one()
            text = f"<think>\nx\n</think>\nAnswer by {name}."
            ids[name] = {str(sample.id): factories.completion(session, text, sample=sample, model_version_id=version.id).id}
        sample_id = sample.id
    evaluate([sample_id], ids)
    screen = open_page("product", "evaluations")
    assert not screen.exception
    assert "lost the emergency advice" in screen.error[0].value
    shown = [e.value for e in screen.text]
    assert {"Answer by sft-1.", "Answer by rl-1."} <= set(shown)
    assert any("0.200 [0.100, 0.300]" in m.value for m in screen.markdown)
    assert "offline teacher" in texts(screen)


def test_small_slices_say_too_few_and_give_no_number(open_page: OpenPage, two_versions: None) -> None:
    evaluate([])
    screen = open_page("product", "evaluations")
    table = next(f.value for f in screen.dataframe if "Group" in f.value.columns)
    small = table[table["Value"] == "low"]
    assert set(small.iloc[:, -1]) == {"too few"}
    assert "0.987" not in table.to_string()
    assert screen.success[0].value.startswith("rl-1 lost no emergency advice")


def test_an_evaluation_has_an_address(open_page: OpenPage, two_versions: None) -> None:
    first, _second = evaluate([]), evaluate([])
    screen = open_page("product", "evaluations", query={"evaluation": str(first)})
    assert screen.selectbox(key="evaluations_chosen").value == first


# --- bench page -------------------------------------------------------------------------------------------------------


def test_the_bench_says_when_the_model_server_is_down(open_page: OpenPage, two_versions: None) -> None:
    screen = open_page("product", "bench")
    assert not screen.exception
    assert "model server does not answer" in screen.warning[0].value
    assert screen.button(key="bench_retry")


def test_the_bench_needs_two_versions(open_page: OpenPage) -> None:
    assert "two model versions" in open_page("product", "bench").info[0].value
