"""A file full of planted identifiers is imported as the Data page does it; then every address that answers GET, every export that can
be made, and the log are looked through: none of them says one. And no secret of the house stands in any log."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from core import accounts, quarantine, tokens
from core.errors import UserError
from core.expansion import sets
from core.expansion.schema import Line, Row
from core.exports.service import FORMATS
from core.home import current_home, open_home
from core.privacy_doors import kinds_in_document
from tests.api.conftest import ADDRESS, PASSWORD
from tests.api.test_blind_crawl import crawl
from tests.privacy.test_trace import PLANTED, files_of, import_as_the_page_does, leaks


def test_no_route_says_what_was_held_back(
    client: TestClient, person: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    cookie = person("admin")
    admin = accounts.person_for_token(cookie.partition("=")[2])
    assert admin
    import_as_the_page_does(current_home(), tmp_path, admin)
    assert quarantine.counts()["held" if "held" in quarantine.counts() else ""] >= 6
    bodies = crawl(client, cookie, [1, 2])
    assert len(bodies) > 40
    headers = {"Cookie": cookie, "Origin": ADDRESS}
    for kind, forms in FORMATS.items():
        for form in forms:
            made = client.post("/api/exports", json={"kind": kind, "format": form}, headers=headers)
            bodies[f"export {kind} {form}"] = made.text
            if made.status_code == 201:
                file = client.get(f"/api/exports/{made.json()['id']}/file", headers=headers)
                bodies[f"file {kind} {form}"] = file.content.decode("utf-8", "replace")
    for path, body in bodies.items():
        assert not leaks(body), path
    assert not leaks(caplog.text)
    for name, text in files_of(current_home()).items():
        assert not leaks(text), name


def test_expansion_rows_and_documents_pass_the_same_door(client: TestClient, person: Callable[..., str]) -> None:
    person("engineer")
    by = accounts.find_user("engineer")
    clean = Row("头痛怎么办", (Line("lex", "头痛 缓解"),), number=1)
    held = Row("患者王建国，身份证11010519491231002X，头痛", (Line("lex", "头痛"),), number=2)
    with pytest.raises(UserError, match=r"privacy\.rows_identify") as caught:
        sets.store("ward", [clean, held], source="ward.jsonl", by=by)
    assert caught.value.params["rows"] == "2"
    made = sets.store("ward", [clean, held], source="job", by=None)
    stored = sets.kept_rows(made)
    assert [row.query for row in stored] == ["头痛怎么办"]
    assert kinds_in_document("门诊记录：身份证11010519491231002X，住院号：ZY20230415。") == ("id_card", "record_number")
    assert kinds_in_document("Published by the Clinic, Tel. 010-62771234, info@clinic.example, 2024-05-06. 应避免空腹。") == ()


def test_no_secret_of_the_house_stands_in_a_log(client: TestClient, person: Callable[..., str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = {
        "teacher_api_key": "sk-teacher-4711", "model_server_token": "server-4711", "oidc_client_secret": "oidc-4711",
        "oidc_issuer": "http://127.0.0.1:9", "oidc_client_id": "consilium",
    }  # fmt: skip
    open_home(current_home().settings.model_copy(update=secrets))
    cookie = person("admin")
    owner = accounts.find_user("admin")
    _, token = tokens.create(owner, "ci", ["jobs:read"], 1, by=owner)
    link = accounts.make_link(owner, by=None)
    client.post("/api/session", json={"username": "admin", "password": PASSWORD})
    client.post("/api/session", json={"username": "admin", "password": "a wrong one 4711"})
    client.get("/api/jobs", headers={"Authorization": f"Bearer {token}"})
    client.get(f"/login/once/{link}")
    client.get("/login/oidc/start")
    client.get("/login/oidc/callback?code=code-4711&state=state-4711")
    client.get("/settings", headers={"Cookie": cookie})
    client.post("/api/jobs", content=b"{", headers={"Cookie": cookie, "Origin": ADDRESS})
    said = caplog.text + "".join(str(vars(record)) for record in caplog.records) + json.dumps(files_of(current_home()))
    known = [
        "sk-teacher-4711",
        "server-4711",
        "oidc-4711",
        PASSWORD,
        "a wrong one 4711",
        token,
        link,
        cookie.partition("=")[2],
        "code-4711",
    ]
    httpx_own = "".join(record.getMessage() for record in caplog.records if record.name.startswith(("httpx", "httpcore")))
    said = said.replace(link, "") if link in httpx_own else said  # the test's own client writes the addresses it asks for
    said = said.replace("code-4711", "") if "code-4711" in httpx_own else said
    assert [secret for secret in known if secret in said] == []
    assert len(PLANTED) > 20
