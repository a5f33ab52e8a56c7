"""The command line through its real entry point, on a home of its own: what it prints and with which exit code it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from app import __main__ as entry
from app import console
from app.commands import parse_options
from core import accounts
from core.errors import UserError
from core.home import Home
from core.jobs import views
from db import tables as t
from db.engine import write_session

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("CONSILIUM_LANGUAGE", "en")
    console.language.cache_clear()

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["app", *arguments])
        code = entry.main()
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return command


def test_options_become_values_of_the_config() -> None:
    arguments = ["--models", "a, b", "--num-samples=8", "--temperature", "0"]
    assert parse_options("evaluate", arguments) == {"models": ["a", "b"], "num_samples": "8", "temperature": "0"}
    assert parse_options("score", ["--rescore", "--model", "m"]) == {"rescore": "true", "model": "m"}
    assert parse_options("import", ["--mapping", "prompt=question,id=nr"]) == {"mapping": {"prompt": "question", "id": "nr"}}
    for wrong in (["--typo", "1"], ["stray"]):
        with pytest.raises(UserError, match="bad_option"):
            parse_options("sft", wrong)
    with pytest.raises(UserError, match="option_needs_value"):
        parse_options("sft", ["--name"])


def test_a_user_is_added_and_comes_in_by_the_printed_link(run: Run) -> None:
    code, out, _ = run("user", "add", "dr.li", "--role", "clinician", "--name", "李医生")
    assert code == 0
    token = out.strip().rpartition("/login/once/")[2]
    assert accounts.link_owner(token) == "dr.li"
    assert "李医生" in run("user", "list")[1]
    code, _, err = run("user", "add", "dr.li")
    assert code == 2
    assert "is taken" in err
    code, _, err = run("user", "reset", "nobody")
    assert code == 2
    assert err.strip().count("\n") == 0


def test_a_job_is_queued_listed_and_cancelled(run: Run) -> None:
    code, out, _ = run("train", "sft", "--name", "mine", "--lora-r", "4")
    assert code == 0
    job = views.newest()[0]
    assert str(job.id) in out
    assert job.config["lora_r"] == 4
    assert "sft" in run("jobs", "list")[1]
    assert run("jobs", "cancel", str(job.id))[0] == 0
    assert views.get(job.id).status == "cancelled"
    code, _, err = run("jobs", "cancel", str(job.id))
    assert (code, err.strip().count("\n")) == (2, 0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "nope"], "no job kind nope"),
        (["train", "sft", "--typo", "1"], "--typo"),
        (["train", "sft", "--name", "x", "--lora-r", "many"], "lora_r"),
        (["import", "/no/such/file.csv", "--dataset", "x"], "no file"),
        (["predict", "hello"], "No model version is serving"),
        (["jobs", "log", "99"], "99"),
        (["frobnicate"], "--help"),
        (["jobs", "cancel", "abc"], "--help"),
    ],
)
def test_every_mistake_is_a_sentence_and_exit_code_2(run: Run, arguments: list[str], sentence: str) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err


def test_help_lists_every_command_and_kind(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for command in (
        "serve",
        "test",
        "user",
        "import",
        "index",
        "ask",
        "predict",
        "train",
        "sample",
        "score",
        "jobs",
        "demo",
        "settings",
        "audit",
    ):
        assert command in out
    assert "ppo" in run("train", "--help")[1]
    assert "--kl-coef" in run("train", "ppo", "--help")[1]


def test_a_broken_audit_chain_is_found(run: Run) -> None:
    run("user", "add", "dr.li")
    assert "2 entries" in run("audit", "verify")[1]
    with write_session() as session:
        entry_one = session.get_one(t.AuditEntry, 1)
        entry_one.detail = {"role": "admin"}
    code, _, err = run("audit", "verify")
    assert code == 1
    assert "entry: 1" in err


def test_settings_hide_secrets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSILIUM_TEACHER_API_KEY", "sk-very-secret")
    out = run("settings")[1]
    assert "teacher_api_key" in out
    assert "sk-very-secret" not in out


def test_bad_settings_are_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSILIUM_PORT", "eighty")
    code, _, err = run("user", "list")
    assert code == 2
    assert "port" in err
    assert err.strip().count("\n") == 0


def test_a_bug_is_a_short_id_and_the_traceback_in_the_log(run: Run, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("patient Zhang is in here")

    monkeypatch.setattr(accounts, "list_accounts", broken)
    code, _, err = run("user", "list")
    assert code == 1
    assert "Zhang" not in err
    error_id = err.partition("(error ")[2][:8]
    log = (home.logs / "command.log").read_text()
    assert error_id in log
    assert "patient Zhang" in log


def test_a_script_runs_in_the_foreground_with_its_own_exit_code(run: Run, home: Home, tmp_path: object) -> None:
    code, out, _ = run("train", "score", "--dataset", "nothing-here", "--foreground")
    folder = next(home.runs.glob("score-*"))
    assert json.loads((folder / "config.json").read_text())["dataset"] == "nothing-here"
    assert json.loads((folder / "error.json").read_text())["code"] == "data.no_such_dataset"
    assert code == 4
    assert str(folder) in out
