"""Traced on the wire: a file full of planted identifiers goes the way of the Data page, is scored by a teacher on a real socket,
and is looked for in everything that left or is shown: request bodies, log files, job folders, tables, rendered pages."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from streamlit.testing.v1 import AppTest

from core import accounts, quarantine
from core import home as homes
from core.accounts import Person
from core.datasets import to_prompt
from core.home import Home
from core.importing import browse
from core.importing.importer import preview
from core.jobs.configs import ImportConfig
from core.records import Completion
from core.settings import ROOT
from core.teacher import open_teacher
from core.teacher.store import open_ledger
from db import tables as t
from db.base import Base
from db.engine import read_session
from tests.teacher.endpoint import ScriptedEndpoint

PLANTED = [
    "王建国", "李晓燕", "11010519491231002X", "13812345678", "010-62771234", "ZY20230415", "wang.jg@163.com", "6222021234567890128",
    "京A12345", "2023年5月6日", "1956-03-04", "漕溪北路18号3号楼1202室", "Rosalind McAllister", "42 Elm Street", "(212) 555-0187",
    "00482913", "123-45-6789", "943 476 5919", "March 5, 2021", "07/03/1985", "rosalind.m@nhs.net", "4111 1111 1111 1111",
]  # fmt: skip
ROWS = [
    {"id": 1, "prompt": "患者王建国，身份证11010519491231002X，出生日期：1956-03-04，能吃阿司匹林吗？", "reference": "请监测。"},
    {"id": 2, "prompt": "胸闷三天，怎么办？", "reference": "主治医师：李晓燕，电话13812345678或010-62771234。"},
    {"id": 3, "prompt": "住院号：ZY20230415，2023年5月6日入院，家住上海市徐汇区漕溪北路18号3号楼1202室。", "reference": "好。"},
    {"id": 4, "prompt": "发到wang.jg@163.com，银行卡6222021234567890128，车牌京A12345。", "reference": "好。"},
    {"id": 5, "prompt": "My name is Rosalind McAllister, DOB 07/03/1985, MRN: 00482913.", "reference": "Seen on March 5, 2021."},
    {"id": 6, "prompt": "I live at 42 Elm Street, call (212) 555-0187, SSN 123-45-6789.", "reference": "NHS number 943 476 5919."},
    {"id": 7, "prompt": "Mail rosalind.m@nhs.net; card 4111 1111 1111 1111.", "reference": "ok", "risk": "王建国 13812345678"},
    {"id": 8, "prompt": "突发胸痛伴大汗，是否立即拨打120？ Or 911?", "reference": "是，立即拨打120。在欧洲拨打112。"},
    {"id": 9, "prompt": "低烧两天怎么处理？", "reference": "多休息。", "risk": "王建国 13812345678"},
]


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    opened = ScriptedEndpoint()
    yield opened
    opened.close()


def leaks(text: str) -> list[str]:
    """Planted identifiers that occur in `text`, as written or as JSON escapes."""
    plain = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
    return [value for value in PLANTED if value in text or value in plain]


def files_of(home: Home) -> dict[str, str]:
    """Everything in the home but the database, the secrets and the file as it was uploaded."""
    found = (p for p in home.root.rglob("*") if p.is_file() and "uploads" not in p.parts and p.suffix not in (".db", ".db-wal", ".db-shm"))
    return {str(p.relative_to(home.root)): p.read_text(encoding="utf-8", errors="replace") for p in found if p.name != "secrets.json"}


def tables_but_quarantine() -> str:
    """Every row of every table as text; of the quarantine all but the payload."""
    said = []
    with read_session() as session:
        for table in Base.metadata.sorted_tables:
            columns = [c for c in table.columns if (table.name, c.name) != ("quarantine_items", "payload")]
            said += [str(tuple(row)) for row in session.execute(select(*columns))]
    return "\n".join(said)


def import_as_the_page_does(home: Home, tmp_path: Path, person: Person) -> str:
    """Upload, preview, queue, and the job as the worker starts it; returns what it printed."""
    content = "\n".join(json.dumps(r, ensure_ascii=False) for r in ROWS).encode()
    path = browse.keep_upload(home, "ward.jsonl", content)
    shown = preview(path)
    assert not leaks(str(shown.items) + str(shown.errors))
    job = browse.start_import(path, ImportConfig(path=home.relative(path), dataset="ward"), person.id)
    folder = home.run_dir(job)
    folder.mkdir(parents=True)
    with read_session() as session:
        (folder / "config.json").write_text(json.dumps(session.get_one(t.Job, job).config), encoding="utf-8")
    environment = {**os.environ, "CONSILIUM_JOB_ID": str(job)}
    command = [sys.executable, "-m", "training.import_data", "--run-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (folder / "log.txt").write_text(done.stdout + done.stderr)
    return done.stdout


def shown_on(at: AppTest) -> str:
    """All text that a page sent to the browser."""
    assert not at.exception
    frames = " ".join(frame.value.to_csv() for frame in at.dataframe)
    return frames + " ".join(str(getattr(e, "value", "")) + str(getattr(e, "label", "")) for e in at.main)


@pytest.mark.parametrize("action", ["quarantine", "surrogate"])
def test_no_planted_identifier_leaves_or_is_shown(
    home: Home, tmp_path: Path, endpoint: ScriptedEndpoint, action: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    admin_id = accounts.create_user("admin", "Dr Admin", "admin", by=None)
    admin = accounts.person_for_token(accounts.open_session(admin_id, "AppTest", "zh"))
    assert admin is not None
    if action != "quarantine":
        quarantine.set_policy(admin, action, "trial of the test")
    printed = import_as_the_page_does(home, tmp_path, admin)

    # every stored sample is sent to the teacher, and one answer that says a name although its prompt does not
    settings = home.settings.model_copy(update={"teacher_base_url": endpoint.url, "teacher_model": "judge", "teacher_log_text": True})
    with read_session() as session:
        prompts = [to_prompt(s) for s in session.scalars(select(t.Sample).order_by(t.Sample.id))]
    teacher = open_teacher(settings, ledger=open_ledger(settings))
    judged = teacher.judge(prompts, [Completion("请注意休息。", "", "请注意休息。") for _ in prompts])
    [told] = teacher.judge(prompts[-1:], [Completion("x", "", "患者王建国的电话是13812345678。")])
    teacher.wait_idle(10)

    sent = json.dumps([seen.body for seen in endpoint.seen], ensure_ascii=False)
    assert not leaks(sent)
    assert all(number in sent for number in ("120", "911", "112"))  # the emergency numbers stay
    assert all(j.teacher_score is not None for j in judged)
    if action == "quarantine":
        assert len(prompts) == 1
        assert told.unscored_reason == "identifiers"
        assert quarantine.counts()[""] == 7  # six rows of the file, and the stored sample with that answer
    else:
        assert len(prompts) == 7
        assert told.teacher_score is not None

    assert not leaks(printed)
    assert not leaks(caplog.text)
    assert not leaks(tables_but_quarantine())
    for name, text in files_of(home).items():
        assert not leaks(text), name

    homes.open_home(home.settings.model_copy(update={"language": "zh"}))
    for page in ("data", "jobs", "home"):
        at = AppTest.from_file(ROOT / "pages" / f"{page}.py", default_timeout=30)
        at.user = {"session_id": str(admin.session_id), "username": admin.username, "role": admin.role}
        assert not leaks(shown_on(at.run())), page
