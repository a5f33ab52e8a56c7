"""The expansion data page in a real browser: a wrong file is refused by line, a good one imported, a row mended with a reason."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from core.expansion import sets
from tests.e2e.conftest import Site

pytestmark = pytest.mark.browser

GOOD = [
    {"query": "gout treatment", "output": [["lex", "gout colchicine urate"], ["vec", "how is gout treated with medicine"]]},
    {"query": "What are the symptoms of Gout?", "output": [["lex", "painful joint"], ["vec", "signs of gout in the foot"]]},
    {"query": "痛风能不能吃海鲜", "output": [["lex", "痛风 嘌呤 忌口"], ["vec", "痛风病人吃海鲜有没有影响"]]},
    {"query": "高血压头晕怎么办", "output": [["lex", "高血压 头晕 原因"], ["vec", "血压高引起头晕应该怎样处理"]]},
]


def picture(page: Page, name: str) -> None:
    """Kept only where somebody asks to look."""
    if folder := os.environ.get("CONSILIUM_PICTURES"):
        page.wait_for_timeout(600)
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def calm(page: Page) -> None:
    page.locator("[data-testid='stApp'][data-test-script-state='notRunning']").wait_for()


def choose(page: Page, path: Path) -> None:
    page.get_by_role("tab", name="Import", exact=True).click()
    page.locator("[data-testid='stFileUploaderDropzoneInput']").set_input_files(path)


def test_a_set_is_imported_and_a_row_mended(
    site: Site, new_page: Callable[..., Page], sign_in: Callable[..., Page], tmp_path: Path
) -> None:
    page = new_page()
    sign_in(page, "engineer", "/expansion_data")
    calm(page)
    picture(page, "1_empty")
    bad = tmp_path / "bad.jsonl"
    bad.write_text("\n".join([json.dumps(GOOD[0]), '{"query": "x", "output": [["lx", "y"]]}', "{broken"]))
    choose(page, bad)
    expect(page.get_by_text('Line 2 of bad.jsonl: output 1 begins with "lx"')).to_be_visible()
    expect(page.get_by_text("Line 3 of bad.jsonl is not valid JSON")).to_be_visible()
    picture(page, "2_bad")
    good = tmp_path / "clinic.jsonl"
    good.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in GOOD), encoding="utf-8")
    page.locator("[data-testid='stFileUploaderDropzoneInput']").set_input_files(good)
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_text("4 rows imported as clinic.")).to_be_visible()
    # the worst row is open; its line without the query's name is explained
    expect(page.get_by_text("none of the query's names (gout)").first).to_be_visible()
    calm(page)
    picture(page, "3_rows")
    page.get_by_label("Lines", exact=True).fill("lex: Gout painful joint\nvec: signs of gout in the foot\nnonsense")
    page.get_by_label("Why").fill("the disease was missing")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text('Line 3 does not begin with lex:, vec: or hyde: ("nonsense")')).to_be_visible()
    calm(page)
    page.get_by_label("Lines", exact=True).fill("lex: Gout painful joint\nvec: signs of gout in the foot")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Row 2 saved")).to_be_visible()
    calm(page)
    page.get_by_label("Why").fill("nobody asks this")
    page.get_by_role("button", name="Reject").click()
    expect(page.get_by_text("is rejected; nothing will learn from it")).to_be_visible()
    page.get_by_role("tab", name="Overview and split").click()
    page.get_by_role("button", name="Split anew").wait_for()
    calm(page)
    picture(page, "4_overview")
    narrow = new_page(width=390, color_scheme="dark")
    sign_in(narrow, "clinician", "/expansion_data")
    narrow.locator(".st-key-user_menu button").first.click()
    narrow.get_by_text("中文", exact=True).click()
    expect(narrow.locator("[data-testid='stMain'] h2").first).to_have_text("扩展数据")
    narrow.keyboard.press("Escape")
    calm(narrow)
    assert narrow.get_by_role("tab", name="导入").count() == 0  # a clinician mends rows; sets are brought in by engineers
    assert narrow.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    picture(narrow, "5_narrow")
    with site.database():
        listed = sets.listing()[0]
        assert (listed.num_rows, listed.num_rejected, listed.num_edits) == (4, 1, 2)
        edited = sets.page(listed.id, status="edited")[0]
        kinds = {edit.kind: (edit.reason, edit.by) for one in edited for edit in sets.history(one.id)}
        assert kinds["fix"] == ("the disease was missing", "Dr Engineer")
        assert kinds["reject"] == ("nobody asks this", "Dr Engineer")


def test_a_product_person_has_no_such_page(page: Page, sign_in: Callable[..., Page]) -> None:
    sign_in(page, "product", "/home")
    page.goto("/expansion_data")
    calm(page)
    assert page.get_by_role("tab", name="Rows").count() == 0
