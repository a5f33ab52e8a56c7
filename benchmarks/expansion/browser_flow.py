"""The whole expansion track by clicks in a real Chromium, on a server started as ./run.sh starts it: validate, base, SFT, GRPO, evaluate,
compare, export, use in Ask.

    python -m benchmarks.expansion.browser_flow --out DIR [--chromium /usr/bin/chromium] [--steps 12] [--converter FILE-OR-FOLDER]

DIR gets a fresh home, the rows and documents that a person would bring, a screenshot of every station in both languages and both themes,
and report.json with how long each took. Nothing is put into the database but through the pages; the only thing read from a
terminal is the link for the first administrator, which is how anybody begins. The model is made here and tiny: what is shown is that
nobody gets stuck. Takes 10 to 20 minutes on two busy cores, so it is no part of the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect, sync_playwright

from core.jobs.kinds import job_kind
from core.settings import ROOT

#: what is shown is that nobody gets stuck, not how fast a busy machine is
PATIENCE_MS = 600_000
PASSWORD = "a calm morning round"
NAMES = {
    "en": ("gout", "asthma", "anemia", "migraine", "psoriasis", "measles", "scurvy", "cataract", "pneumonia", "mumps", "eczema", "rickets"),
    "zh": ("痛风", "哮喘", "贫血", "偏头痛", "银屑病", "麻疹", "白内障", "肺炎", "腮腺炎", "湿疹", "佝偻病", "胃炎"),
}
#: how it is asked -> keywords, the question in other words, a sentence of the document
SAID = {
    "en": (
        ("treatment of {}", "{} medicine dose", "how do doctors treat {}", "The treatment of {} is medicine in a small dose and rest."),
        ("symptoms of {}", "{} signs pain", "which signs does {} have", "The symptoms of {} are pain and fever, and these signs vary."),
        ("causes of {}", "{} risk factors", "why do people get {}", "The causes of {} are risk factors such as age and infection."),
    ),
    "zh": (
        ("{}怎么治疗", "{} 治疗 药物", "{}应该用什么药治疗", "{}的治疗以药物为主，注意休息并定期复查。"),
        ("{}有什么症状", "{} 症状 表现", "{}一般有哪些表现", "{}的症状表现为发热和乏力，早期不明显。"),
        ("{}是什么原因引起的", "{} 原因 诱因", "为什么会得{}", "{}的原因与饮食、劳累和感染等诱因有关。"),
    ),
}
ENDED = re.compile("succeeded|failed|cancelled|stopped|lost", re.IGNORECASE)


def bring(folder: Path) -> None:
    """rows.jsonl, a file with mistakes, a corpus in BEIR form, and documents for Ask."""
    rng, rows, passages, pairs = random.Random(0), list[dict[str, Any]](), list[dict[str, str]](), list[dict[str, str]]()
    documents = folder / "documents"
    documents.mkdir(parents=True)
    for language, names in NAMES.items():
        for name in names:
            sections = []
            for asked, keys, other, said in SAID[language]:
                query, number = asked.format(name), f"{language}-{len(passages)}"
                lines = [["lex", keys.format(name)], ["vec", other.format(name)], ["hyde", said.format(name)]]
                rows.append({"query": query, "output": lines, "language": language})
                passages.append({"_id": number, "title": name, "text": said.format(name)})
                pairs.append({"query": query, "pos": number})
                sections.append(f"## {query}\n\n{said.format(name)}\n")
            (documents / f"{name}.md").write_text(f"# {name}\n\n" + "\n".join(sections), encoding="utf-8")
    rng.shuffle(rows)
    dump(folder / "rows.jsonl", rows)
    (folder / "wrong.jsonl").write_text(json.dumps(rows[0]) + '\n{"query": "x", "output": [["lx", "y"]]}\n{broken\n', encoding="utf-8")
    (folder / "corpus").mkdir()
    dump(folder / "corpus" / "corpus.jsonl", passages)
    dump(folder / "corpus" / "train_pairs.jsonl", pairs)
    dump(folder / "corpus" / "queries.jsonl", [{"_id": "q", "text": "a question that nobody trains on"}])
    (folder / "corpus" / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\ten-0\t1\n", encoding="utf-8")


def dump(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Drive:
    """One person at the pages. `took` holds the seconds of every station."""

    def __init__(self, page: Page, url: str, shots: Path) -> None:
        self.page, self.url, self.shots = page, url, shots
        self.took: dict[str, float] = {}
        self.jobs: dict[str, str] = {}

    def calm(self) -> None:
        self.page.locator("[data-testid='stApp'][data-test-script-state='notRunning']").wait_for()
        self.page.wait_for_timeout(400)

    def go(self, path: str) -> None:
        self.page.goto(f"{self.url}/{path}")
        self.calm()

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()
        self.calm()

    def shot(self, name: str) -> None:
        self.page.wait_for_timeout(700)
        self.page.screenshot(path=str(self.shots / f"{name}.png"), full_page=True)

    def field(self, kind: str, name: str) -> Locator:
        return self.page.locator(f".st-key-jobs_new_{kind}_0_{name}").first

    def fill(self, kind: str, name: str, value: object) -> None:
        """As a person does: type into a box, choose from a list (or type and press Enter), flip a switch."""
        box = self.field(kind, name)
        if not box.is_visible():
            self.page.locator("[data-testid='stForm'] [data-testid='stExpander'] summary").first.click()
            box.wait_for()
        if isinstance(value, bool):
            is_on = box.locator("input").is_checked()
            if is_on != value:
                box.locator("label").first.click()
        elif box.locator("[data-testid='stSelectbox'], [data-testid='stMultiSelect']").count():
            for one in value if isinstance(value, list) else [value]:
                box.locator("input").click()
                box.locator("input").fill(str(one))
                self.page.get_by_role("option", name=str(one), exact=True).first.click()
            self.page.keyboard.press("Escape")
        else:
            box.locator("input").fill(str(value))
            box.locator("input").press("Tab")
        self.page.wait_for_timeout(250)

    def start(self, kind: str, values: dict[str, object], *, station: str = "") -> None:
        """Fill in the form that is open, start the job, wait on its page until it has ended well."""
        began = time.monotonic()
        self.field(kind, "name" if kind != "expansion_export" else "model").wait_for()
        self.calm()
        for name, value in values.items():
            self.fill(kind, name, value)
        self.shot(f"form_{kind}")
        self.page.locator(f".st-key-jobs_new_{kind}_0_go button").click()
        try:
            self.page.wait_for_url("**job=*")
        except Exception:
            self.shot(f"stuck_{kind}")
            raise
        number = self.page.url.rpartition("=")[2]
        self.jobs[station or kind] = number
        print(f"{station or kind}: job {number}", flush=True)
        deadline = time.monotonic() + 3000
        while time.monotonic() < deadline:
            status = self.page.locator("[data-testid='stMain'] .stBadge, [data-testid='stMain'] [class*='stMarkdownBadge']").first
            text = status.inner_text() if status.count() else ""
            if ENDED.search(text):
                break
            self.page.wait_for_timeout(2000)
        self.shot(f"job_{station or kind}")
        if "succeeded" not in text.lower():
            raise SystemExit(f"{kind} ended as {text!r}; see {self.shots}/job_{station or kind}.png")
        self.took[station or kind] = round(time.monotonic() - began, 1)

    def follow(self, kind: str) -> None:
        """Click the page's link to the form of a kind of job."""
        label = job_kind(kind).en
        self.page.get_by_test_id("stPageLink").filter(has_text=label, visible=True).first.locator("a").click()
        self.field(kind, "model" if kind == "expansion_export" else "name").wait_for()
        self.calm()


def validate(drive: Drive, folder: Path) -> None:
    """A wrong file is refused line by line, a good one stored and split."""
    page = drive.page
    drive.go("expansion_data")
    drive.shot("data_empty")
    drive.tab("Import")
    box = page.locator("[data-testid='stFileUploaderDropzoneInput']")
    box.set_input_files(folder / "wrong.jsonl")
    expect(page.get_by_text("Line 3 of wrong.jsonl is not valid JSON")).to_be_visible()
    drive.shot("data_wrong")
    box.set_input_files(folder / "rows.jsonl")
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_text("72 rows imported as rows.")).to_be_visible()
    drive.calm()
    drive.shot("data_rows")


def train(drive: Drive, folder: Path, steps: int, first: int = 0) -> None:
    """The trainings and the evaluation, each from its link on the page."""
    corpus = str(folder / "corpus")
    small = {"num_epochs": 40, "vocab_size": 500, "hidden_size": 64, "num_layers": 2, "tokens_per_batch": 512, "learning_rate": 0.004}
    stations: tuple[tuple[str, dict[str, object]], ...] = (
        ("expansion_base", {"name": "flow-base", "data": "rows", **small}),
        ("expansion_sft", {"name": "flow-sft", "base_model": "flow-base", "data": "rows", "num_epochs": 20, "engine": "compact"}),
        ("expansion_grpo", {"name": "flow-grpo", "sft_model": "flow-sft", "data": "rows", "corpus": corpus, "num_steps": steps,
                            "max_new_tokens": 80}),
        ("expansion_evaluate", {"name": "flow", "models": ["flow-sft", "flow-grpo"], "queries": "rows", "corpus": corpus}),
    )  # fmt: skip
    for kind, values in stations[first:]:
        drive.go("expansion")
        drive.follow(kind)
        drive.start(kind, values)


def compare(drive: Drive) -> None:
    """The runs, the evaluation in figures, both models side by side, the instructions."""
    page = drive.page
    drive.go("expansion")
    drive.shot("runs")
    drive.tab("Evaluation")
    expect(page.get_by_text("Reward").filter(visible=True).first).to_be_visible()
    drive.shot("evaluation")
    drive.tab("Side by side")
    expect(page.get_by_text("Valid lines").last).to_be_visible()
    drive.shot("compare")
    drive.tab("Instructions")
    drive.shot("instructions")


def export(drive: Drive) -> None:
    drive.go("expansion")
    drive.follow("expansion_export")
    drive.start("expansion_export", {"model": "flow-grpo"})


def ask(drive: Drive, folder: Path) -> dict[str, Any]:
    """Documents, then Ask with the model that was made: for one question, and for everybody with a reason."""
    page = drive.page
    drive.go("jobs?kind=index")
    drive.start("index", {"folder": str(folder / "documents")})
    drive.go("ask")
    page.get_by_text("Options", exact=False).first.click()
    page.locator(".st-key-ask_expander input").click()
    page.get_by_role("option", name="flow-grpo", exact=True).click()
    drive.calm()
    drive.shot("ask_choice")
    said = list[bool]()
    while not any(said) and len(said) < 12:  # the first questions wait for the weights: they are answered by the plain search
        page.locator(".st-key-ask_question textarea").fill("treatment of gout")
        page.get_by_role("button", name="Ask", exact=True).click()
        drive.calm()
        page.locator("[class*='st-key-ask_why_1'] button").first.click()
        page.wait_for_timeout(1500)
        why = page.locator("[data-testid='stPopoverBody']:visible").first.inner_text()
        said.append(bool(re.search("keywords|other words", why)))
        drive.shot(f"ask_{len(said)}")
        page.keyboard.press("Escape")
        page.wait_for_timeout(8000)
    page.get_by_role("button", name="Use for everybody").click()
    page.locator(".st-key-ask_expander_reason input").fill("finds the section of the guideline")
    page.locator(".st-key-ask_expander_reason input").press("Enter")
    page.locator(".st-key-ask_expander_keep button").click()
    drive.calm()
    drive.shot("ask_kept")
    return {"questions_until_a_line_found_something": len(said), "a_passage_names_a_line": said[-1]}


def looks(drive: Drive) -> None:
    """Every screen of the track in both languages, on both grounds, on a wide and on a narrow window."""
    page = drive.page
    for language in ("en", "zh"):
        if language == "zh":
            page.set_viewport_size({"width": 1440, "height": 1000})
            page.locator(".st-key-user_menu button").first.click()
            page.get_by_text("中文", exact=True).click()
            drive.calm()
        for ground in ("light", "dark"):
            page.emulate_media(color_scheme=ground)
            for width in (1440, 390):
                page.set_viewport_size({"width": width, "height": 1000})
                for screen, tabs in (("expansion_data", 4), ("expansion", 4), ("ask", 0)):
                    drive.go(screen)
                    for number in range(max(1, tabs)):
                        if tabs:
                            page.get_by_role("tab").nth(number).click()
                            drive.calm()
                        drive.shot(f"look_{screen}_{number}_{language}_{ground}_{width}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--converter", default="")
    options = parser.parse_args()
    folder, shots, home = options.out / "brought", options.out / "shots", options.out / "home"
    shots.mkdir(parents=True)
    expect.set_options(timeout=PATIENCE_MS)
    bring(folder)
    port = free_port()
    more = {"CONSILIUM_GGUF_CONVERTER": options.converter} if options.converter else {}
    environment = {
        **os.environ, "CONSILIUM_HOME": str(home), "CONSILIUM_LANGUAGE": "en", "CONSILIUM_MODEL_SERVER_PORT": str(free_port()),
        "CONSILIUM_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", **more,
    }  # fmt: skip
    began = time.monotonic()
    with (options.out / "serve.log").open("w+") as log:
        command = [sys.executable, "-m", "app", "serve", "--port", str(port), "--empty", "--no-browser"]
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            link = first_link(options.out / "serve.log")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
                page = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
                page.set_default_timeout(PATIENCE_MS)
                page.goto(link)
                for box in page.locator("input[type=password]").all():
                    box.fill(PASSWORD)
                page.locator("form button").last.click()
                drive = Drive(page, f"http://127.0.0.1:{port}", shots)
                drive.calm()
                validate(drive, folder)
                train(drive, folder, options.steps)
                compare(drive)
                export(drive)
                found = ask(drive, folder)
                looks(drive)
                browser.close()
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
    report = {"seconds": round(time.monotonic() - began, 1), "stations": drive.took, "jobs": drive.jobs, **found}
    (options.out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(json.dumps(report, indent=1))


def first_link(log: Path) -> str:
    """The once-only link of the first administrator, as the terminal shows it."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if found := re.search(r"http://\S+/login/once/\S+", log.read_text(encoding="utf-8")):
            return found[0]
        time.sleep(1)
    raise SystemExit(f"the server did not start: {log}")


if __name__ == "__main__":
    main()
