"""Promotion in a real browser: a dialog that is closed stays closed, one that is signed changes who serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from core import watch
from core.models import folder_hash, serving_version
from core.promotion import history
from core.serving.token import server_token
from db import tables as t
from db.engine import read_session, write_session
from tests import factories
from tests.bench.fake_endpoint import serving
from tests.e2e.conftest import Site
from tests.reports import evaluation_report

pytestmark = pytest.mark.browser


@pytest.fixture(autouse=True)
def model_server(site: Site) -> Iterator[None]:
    """A fake in the model server's place: after a promotion the new version has to answer."""
    with site.database() as home:
        token = server_token(home)
    with serving(token, int(site.environment["CONSILIUM_MODEL_SERVER_PORT"])) as endpoint:
        endpoint.piece_s = 0.0
        yield


def add_candidate(site: Site, name: str) -> str | None:
    """A version with weights and an evaluation that opens its gates; returns the name of the version in service."""
    with site.database() as home, write_session() as session:
        folder = home.models / name
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(name.encode())
        version = factories.version(session, "sft", name=name, path=home.relative(folder), content_hash=folder_hash(folder))
        now = serving_version(session)
        report = evaluation_report(now.name, name) if now else evaluation_report(version.name)
        session.add(t.Evaluation(name="e", report=report))
        return now.name if now else None


def serving_now(site: Site) -> str:
    with site.database(), read_session() as session:
        now = serving_version(session)
        assert now is not None
        return now.name


def promote(page: Page, name: str) -> None:
    """Sign in the dialog of the version that is looked at."""
    page.get_by_role("button", name=f"Promote {name}").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("steady at night")
    dialog.get_by_label("Signature").fill("Dr Product")
    dialog.get_by_role("button", name="Sign and promote").click()
    expect(page.get_by_text(f"{name} is serving now.")).to_be_visible()


def test_close_the_dialog_then_sign_it(site: Site, page: Page, sign_in: Callable[..., Page]) -> None:
    add_candidate(site, "night-1")
    sign_in(page, "product", "/models?version=night-1")
    promote = page.get_by_role("button", name="Promote night-1")
    promote.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("SHA-256 verified")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.get_by_text("Manifest").click()
    expect(dialog).to_have_count(0)

    promote.click()
    dialog.get_by_role("button", name="Sign and promote").click()
    expect(dialog.get_by_role("alert")).to_contain_text("A reason is needed")
    dialog.get_by_label("Reason").fill("steady at night")
    dialog.get_by_label("Signature").fill("Dr Product")
    dialog.get_by_role("button", name="Sign and promote").click()
    expect(page.get_by_text("night-1 is serving now.")).to_be_visible()
    expect(dialog).to_have_count(0)
    assert serving_now(site) == "night-1"


def test_promote_watch_and_roll_back(site: Site, page: Page, sign_in: Callable[..., Page]) -> None:
    """The rehearsal: a second version goes into service, the watch finds it worse and proposes, one press goes back."""
    if add_candidate(site, "watch-1") is None:
        sign_in(page, "product", "/models?version=watch-1")
        promote(page, "watch-1")
        before = "watch-1"
    else:
        before = serving_now(site)
        sign_in(page, "product", "/models?version=watch-1")
    add_candidate(site, "watch-2")
    page.goto("/models?version=watch-2")
    promote(page, "watch-2")

    with site.database():
        with read_session() as session:
            switch = watch.current_switch(session)
        assert switch == watch.Switch(switch.event_id if switch else 0, "watch-2", before)
        assert watch.record_look(switch, [watch.Pair(n, False, False) for n in range(40)], error_rate=0.05, job_id=None) is None
    page.goto("/")
    expect(page.get_by_text("watch-2").first).to_be_visible()
    expect(page.get_by_text("The watch proposes to roll back")).to_have_count(0)
    with site.database():
        assert watch.record_look(switch, [watch.Pair(n, n < 12, False) for n in range(40)], error_rate=0.05, job_id=None) is not None
    page.goto("/")
    expect(page.get_by_text(f"The watch proposes to roll back: watch-2 → {before}")).to_be_visible()
    assert serving_now(site) == "watch-2", "nothing is switched without a person"

    page.goto("/models")
    expect(page.get_by_text("watch-2 alone failed 12 times")).to_be_visible()
    page.get_by_role("button", name=f"Roll back to {before} now").click()
    expect(page.get_by_text(f"{before} is serving again.")).to_be_visible()
    assert serving_now(site) == before
    with site.database(), read_session() as session:
        newest = history(session, limit=1)[0]
        assert (newest.action, newest.from_version, newest.signed_name) == ("roll_back", "watch-2", "Dr Product")
        assert "12 times" in newest.reason
