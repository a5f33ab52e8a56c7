"""The quarantine in a real browser: the preview of an upload and the waiting rows show kinds, never what was found."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from core import accounts, quarantine
from core.importing.importer import import_file
from core.jobs.configs import ImportConfig
from tests.e2e.conftest import Site

pytestmark = pytest.mark.browser
PICTURES = os.environ.get("QUARANTINE_PICTURES")
ROWS = [
    {"prompt": "血压高怎么办？", "reference": "请监测血压。"},
    {
        "prompt": "患者王建国，男，67岁，2023年5月6日因胸痛入院，电话13812345678，目前服用阿司匹林，能停药吗？",
        "reference": "请联系主治医师：李晓燕。",
    },
    {"prompt": "My name is Rosalind McAllister, MRN: 00482913, can I take ibuprofen with lisinopril?", "reference": "Ask Dr. Patel."},
]
PLANTED = ("王建国", "13812345678", "2023年5月6日", "李晓燕", "McAllister", "00482913", "Patel")


def picture(page: Page, name: str) -> None:
    """For people who look: a screenshot where QUARANTINE_PICTURES names a folder."""
    if PICTURES:
        page.wait_for_timeout(600)
        page.screenshot(path=f"{PICTURES}/{name}.png", full_page=True)


def test_rows_wait_masked_and_are_decided_with_a_reason(
    site: Site, new_page: Callable[..., Page], sign_in: Callable[..., Page], tmp_path: Path
) -> None:
    path = tmp_path / "ward.jsonl"
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in ROWS), encoding="utf-8")
    page = new_page()
    sign_in(page, "engineer", "/data")
    page.get_by_role("tab", name="Quarantine").click()
    expect(page.get_by_text("Nothing is waiting.")).to_be_visible()
    picture(page, "1_empty_en")
    page.get_by_role("tab", name="Import a file").click()
    page.locator("[data-testid='stFileUploaderDropzoneInput']").first.set_input_files(path)
    expect(page.get_by_text("2 of these 3 rows seem to identify a person")).to_be_visible()
    assert not [value for value in PLANTED if value in page.content()]
    picture(page, "2_preview_en")
    with site.database() as home:
        config = ImportConfig(path=str(path), dataset="ward")
        folder = home.root / "datasets" / "ward"
        import_file(path, config, folder=folder, card_path="datasets/ward/DATA_CARD.md", created_by=None, job_id=None)
    page.goto("/data")
    expect(page.get_by_text("2 rows of this dataset wait in quarantine.")).to_be_visible()
    page.get_by_role("tab", name="Quarantine").click()
    expect(page.get_by_text("0 rows selected")).to_be_visible()
    assert not [value for value in PLANTED if value in page.content()]
    picture(page, "3_waiting_en")
    table = page.locator("[data-testid='stDataFrame']:visible").last
    box = table.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 20, box["y"] + 52)  # the first row's box; the table is drawn on a canvas
    expect(page.get_by_text("1 rows selected")).to_be_visible()
    page.get_by_role("button", name="Decide").click()
    expect(page.get_by_text("Please give a reason of at least four characters")).to_be_visible()
    page.get_by_label("Reason (kept in the audit chain with your name)").last.fill("training set of the ward")
    page.get_by_role("button", name="Decide").click()
    expect(page.get_by_text("Decided about 1 rows.")).to_be_visible()
    picture(page, "4_decided_en")
    if PICTURES:
        with site.database():
            account = next(a for a in accounts.list_accounts() if a.role == "admin")
            admin = accounts.person_for_token(accounts.open_session(account.id, "test", "zh"))
            assert admin is not None
            quarantine.set_policy(admin, "off", "只含合成数据")
            accounts.set_preferences(admin, language="zh")
        look_round(new_page, sign_in)
        with site.database():
            quarantine.set_policy(admin, "quarantine", "back to the rule")
            accounts.set_preferences(admin, language="en")


def look_round(new_page: Callable[..., Page], sign_in: Callable[..., Page]) -> None:
    """The same in Chinese, dark and narrow, as an administrator."""
    for width, scheme in ((1440, "light"), (390, "dark")):
        page = new_page(width=width, color_scheme=scheme)
        sign_in(page, "admin", "/data")
        page.get_by_role("tab", name="Quarantine").or_(page.get_by_role("tab", name="隔离区")).click()
        page.locator("[data-testid='stApp'][data-test-script-state='notRunning']").wait_for()
        page.wait_for_timeout(1500)
        picture(page, f"5_admin_{width}_{scheme}")
