"""Versions: names, re-registration, lineage, weights on disk, external endpoints."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from sqlalchemy import select

from core import audit
from core.errors import Conflicting, Forbidden, NotFound, UserError
from core.home import Home
from core.i18n import error_text
from core.models import (
    Weights,
    add_external,
    check_name_free,
    check_weights,
    folder_hash,
    get_version,
    lineage,
    register_version,
    serving_version,
)
from db import tables as t
from db.engine import read_session, write_session
from tests import factories
from tests.databases import ON_POSTGRES


def job(session: object) -> int:
    row = t.Job(kind="sft", config={}, queue="gpu")
    session.add(row)  # type: ignore[attr-defined]
    session.flush()  # type: ignore[attr-defined]
    return row.id


def weights(folder: Path, content: bytes = b"w" * 5000) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(content)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4}))
    return folder


def test_a_name_taken_by_another_job_is_refused_before_and_after(home: Home) -> None:
    with write_session() as session:
        first, second = job(session), job(session)
        register_version(session, name="sft-1", kind="sft", path="a", content_hash="x", job_id=first)
        with pytest.raises(UserError, match="name_taken"):
            check_name_free(session, "sft-1", job_id=second)
        with pytest.raises(UserError, match="name_taken"):
            register_version(session, name="sft-1", kind="sft", path="b", content_hash="y", job_id=second)
        with pytest.raises(UserError, match="name_taken"):
            check_name_free(session, "sft-1")
        check_name_free(session, "sft-2", job_id=second)


def test_the_same_job_replaces_its_own_row_and_keeps_the_id(home: Home) -> None:
    with write_session() as session:
        one = job(session)
        before = register_version(session, name="sft-1", kind="sft", path="a", content_hash="x", job_id=one).id
        after = register_version(session, name="sft-1", kind="sft", path="a", content_hash="y", job_id=one, manifest={"step": 2})
        assert (after.id, after.content_hash, after.manifest) == (before, "y", {"step": 2})
        after.status = "serving"
        session.flush()
        with pytest.raises(Conflicting, match="is_serving"):
            register_version(session, name="sft-1", kind="sft", path="a", content_hash="z", job_id=one)


def test_registering_the_same_weights_again_returns_the_row(home: Home) -> None:
    with write_session() as session:
        first = register_version(session, name="base", kind="base", path="/models/q", content_hash="x", job_id=0)
        assert first.job_id is None
        assert register_version(session, name="base", kind="base", path="/models/q", content_hash="x").id == first.id


@pytest.mark.parametrize("name", ["", ".", "../x", "a/../b", "a b", "/etc", "a/", "x" * 101, ".hidden", "a\n"])
def test_names_that_could_leave_the_models_folder_are_refused(home: Home, name: str) -> None:
    with read_session() as session, pytest.raises(UserError, match="bad_name"):
        check_name_free(session, name)


@pytest.mark.parametrize("name", ["demo-sft", "Qwen/Qwen2.5-0.5B-Instruct", "急诊-v1", "rl_2.1"])
def test_usual_names_pass(home: Home, name: str) -> None:
    with read_session() as session:
        check_name_free(session, name)


def test_lineage_walks_to_the_base_and_ends_in_a_circle(home: Home) -> None:
    with write_session() as session:
        base = factories.version(session, "base")
        sft = factories.version(session, "sft", base_version_id=base.id)
        rl = factories.version(session, "rl", base_version_id=base.id, parent_version_id=sft.id)
        assert [v.id for v in lineage(session, rl)] == [rl.id, sft.id, base.id]
        assert [v.id for v in lineage(session, base)] == [base.id]
        base.parent_version_id = rl.id
        session.flush()
        assert len(lineage(session, rl)) == 3


def test_folder_hash_sees_every_byte_and_every_name_but_no_optimiser(tmp_path: Path) -> None:
    folder = weights(tmp_path / "v")
    first = folder_hash(folder)
    (folder / "trainer_state.json").write_text("{}")
    (folder / "README.md").write_text("hello")
    assert folder_hash(folder) == first
    weights(folder, b"w" * 4999 + b"v")
    changed = folder_hash(folder)
    assert changed != first
    (folder / "adapter_model.safetensors").rename(folder / "other.safetensors")
    assert folder_hash(folder) not in (first, changed)
    with pytest.raises(NotFound, match="no_weights"):
        folder_hash(tmp_path / "nothing")


def test_weights_on_disk_are_held_against_the_registered_hash(home: Home) -> None:
    folder = weights(home.models / "v1")
    with write_session() as session:
        row = register_version(session, name="v1", kind="sft", path=home.relative(folder), content_hash=folder_hash(folder))
        remote = factories.version(session, "external")
        unhashed = factories.version(session, "sft", path="models/v1")
    assert check_weights(home, row) == Weights.INTACT
    assert check_weights(home, remote) == Weights.REMOTE
    assert check_weights(home, unhashed) == Weights.UNKNOWN
    file = folder / "adapter_model.safetensors"
    stamp = file.stat()
    file.write_bytes(b"x" * 5000)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # same size and time: only a thorough look sees it
    assert check_weights(home, row, is_thorough=True) == Weights.CHANGED
    file.write_bytes(b"y" * 5001)
    assert check_weights(home, row) == Weights.CHANGED
    file.unlink()
    (folder / "adapter_config.json").unlink()
    assert check_weights(home, row) == Weights.MISSING


def test_an_external_version_stores_the_name_of_its_key_only(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_API_KEY", "sk-very-secret")
    with write_session() as session:
        engineer = factories.user(session, "engineer").id
    add_external(engineer, name="vllm-1", url=" https://host:8000/v1/ ", model="qwen", key_variable="OTHER_API_KEY")
    with read_session() as session:
        row = get_version(session, "vllm-1")
        assert (row.endpoint_url, row.manifest) == ("https://host:8000/v1", {"key_variable": "OTHER_API_KEY"})
        assert serving_version(session) is None
        assert [e.action for e in session.scalars(select(t.AuditEntry))] == ["register_external"]
        assert audit.verify(session) is None
    if not ON_POSTGRES:
        assert b"sk-very-secret" not in (home.root / "consilium.db").read_bytes() + (home.root / "consilium.db-wal").read_bytes()


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("url", "ftp://host", "models.bad_url"),
        ("url", "https://user:word@host/v1", "models.bad_url"),
        ("url", "https://host/v1?key=1", "models.bad_url"),
        ("key_variable", "sk-abcdef", "models.bad_key_variable"),
        ("key_variable", "HOME", "models.bad_key_variable"),
        ("key_variable", "CONSILIUM_MODEL_SERVER_TOKEN", "models.bad_key_variable"),
        ("model", " ", "models.no_endpoint_model"),
    ],
)
def test_bad_endpoints_get_a_sentence_that_does_not_repeat_a_secret(home: Home, field: str, value: str, code: str) -> None:
    with write_session() as session:
        engineer = factories.user(session, "engineer").id
    good = {"name": "x", "url": "https://host/v1", "model": "m", "key_variable": ""}
    with pytest.raises(UserError) as caught:
        add_external(engineer, **{**good, field: value})
    assert caught.value.code == code
    for language in ("en", "zh"):
        text = error_text(caught.value, language)
        assert text != code
        assert "sk-abcdef" not in text
        assert "word@" not in text


@pytest.mark.parametrize("role", ["product", "clinician"])
def test_only_engineers_and_administrators_register_endpoints(home: Home, role: str) -> None:
    with write_session() as session:
        user = factories.user(session, role).id
    with pytest.raises(Forbidden):
        add_external(user, name="x", url="https://host/v1", model="m", key_variable="")
