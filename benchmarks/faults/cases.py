"""The fault cases: each does one thing to a real product and says what was seen. `CASES` in the order of the table.

A case is a function of a scratch folder that returns a `Seen`, or raises when what must hold does not hold.
"""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.faults.product import PATIENCE_S, Product, until
from core.errors import UserError
from core.i18n import error_text
from core.settings import ROOT

SMALL = {"hidden_size": 32, "num_layers": 2, "vocab_size": 600, "num_documents": 40, "num_chats": 60, "tokens_per_batch": 2048}


@dataclass(frozen=True, slots=True)
class Seen:
    """One row of the table."""

    done: str
    person: str
    lost: str
    recovery: str


#: one product serves every case that leaves it whole; made at the first of them, ended by `close`
_shared: list[tuple[Product, tempfile.TemporaryDirectory[str]]] = []


@contextmanager
def running(folder: Path | None = None, **extra: str) -> Iterator[Product]:
    """The product, answering: the shared one, or with a `folder` one of its own in there, gone afterwards."""
    if folder is None:
        product = _take_shared()
        product.said.clear()
        yield product
        return
    product = Product(folder / "home", extra)
    product.prepare()
    product.start()
    try:
        product.up()
        yield product
    finally:
        product.stop()
        product.kill_all()


def _take_shared() -> Product:
    if not _shared:
        folder = tempfile.TemporaryDirectory(prefix="consilium-faults-", ignore_cleanup_errors=True)
        product = Product(Path(folder.name) / "home")
        product.prepare(num_cases=600)
        product.start()
        _shared.append((product, folder))
        product.up()
    return _shared[0][0]


def close() -> None:
    """End the shared product."""
    while _shared:
        product, folder = _shared.pop()
        product.stop()
        product.kill_all()
        folder.cleanup()


def heard(product: Product) -> str:
    return " / ".join(product.said) or "nothing: the answer only took longer"


def small_base(**more: Any) -> dict[str, Any]:
    """A toy base of seconds, under a name of its own."""
    return {**SMALL, "name": f"base-{time.monotonic_ns()}", **more}


def training(product: Product) -> int:
    """Queue a fine-tuning that writes a checkpoint every two steps; makes its base first."""
    base = small_base()
    made = product.ended(product.queue_job("demo_base", base))
    assert made.status == "succeeded", made.error
    options = {"engine": "compact", "max_samples": 160, "batch_size": 4, "lora_r": 4, "save_steps": 2}
    return product.queue_job("sft", {**options, "name": f"sft-{time.monotonic_ns()}", "base_model": base["name"]})


def imports(folder: Path, product: Product, *, rows: int = 4000) -> int:
    file = folder / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": f"Question {i}: headache since Monday, what helps?"}) for i in range(rows)))
    return product.queue_job("import", {"path": str(file), "dataset": f"faults{time.monotonic_ns()}"})


def sentence_of(product: Product, job: int) -> str:
    error = product.job(job).error
    return error_text(UserError(error["code"], **error.get("params", {})), "en") if error else "-"


# --- kill -9


def web_killed(folder: Path) -> Seen:
    with running() as product:
        product.decide()
        case, hold, version = product.take()
        pid, began = product.kill("web"), time.monotonic()
        product.sign(case, hold, version)
        took = time.monotonic() - began
        until(lambda: product.pid("web") != pid, "another web process")
        return Seen(
            "kill -9 of web between claim and verdict",
            heard(product),
            product.lost(),
            f"web is back by itself; verdict stored {took:.0f} s later",
        )


def worker_killed(folder: Path) -> Seen:
    with running() as product:
        job = product.queue_job("demo_base", small_base())
        until(lambda: product.family(job, is_supervisor=False), "the job runs")
        product.kill("worker")
        row = product.ended(job)
        assert (row.status, row.attempt) == ("succeeded", 1), (row.status, row.error)
        return Seen(
            "kill -9 of the worker while a training runs",
            "nothing: the training goes on",
            "nothing (1 attempt, ended once)",
            "the next worker finds the training",
        )


def supervisor_killed(folder: Path) -> Seen:
    with running() as product:
        job = training(product)
        until(lambda: list((product.home / "runs" / f"{job:06d}" / "checkpoints").glob("step-*")), "a checkpoint")
        for process in product.family(job, is_supervisor=True):
            process.kill()
        row = product.ended(job)
        assert row.status == "succeeded", row.error
        log = (product.home / "runs" / f"{job:06d}" / "log.txt").read_text()
        assert "resumed" in log
        return Seen(
            "kill -9 of a training's supervisor",
            "nothing",
            f"the steps since the last checkpoint (restarts: {row.restarts})",
            "its children die with it; started again from the checkpoint",
        )


def job_killed(folder: Path) -> Seen:
    with running() as product:
        job = training(product)
        until(lambda: list((product.home / "runs" / f"{job:06d}" / "checkpoints").glob("step-*")), "a checkpoint")
        for process in product.family(job, is_supervisor=False):
            process.kill()
        row = product.ended(job)
        assert (row.status, row.attempt) == ("succeeded", 2), (row.status, row.error)
        return Seen(
            "kill -9 of the training itself",
            "nothing (the log names the second attempt)",
            "the steps since the last checkpoint",
            "second attempt, from the checkpoint",
        )


def model_server_killed(folder: Path) -> Seen:
    with running() as product:
        pid = product.kill("model_server")
        product.decide()
        began = time.monotonic()
        until(lambda: product.pid("model_server") != pid, "another model server")
        from core.i18n import translate

        return Seen(
            "kill -9 of the model server",
            translate("bench.server_down", "en"),
            product.lost(),
            f"back by itself after {time.monotonic() - began:.0f} s",
        )


def everything_killed(folder: Path) -> Seen:
    with running(folder) as product:
        stop = threading.Event()

        def busy() -> None:
            while not stop.is_set():
                try:
                    product.decide()
                except AssertionError:
                    return

        reader = threading.Thread(target=busy, daemon=True)
        job = training(product)
        reader.start()
        until(
            lambda: len(product.acknowledged) > 8 and list((product.home / "runs").glob("*/checkpoints/*step-*")),
            "decisions and a checkpoint",
        )
        product.kill_all()
        (product.home / "processes.json").unlink(missing_ok=True)
        product.start()
        product.up()
        until(lambda: len(product.acknowledged) > 14, "the reader goes on")
        stop.set()
        reader.join(120)
        row = product.ended(job)
        assert row.status == "succeeded", row.error
        return Seen(
            "every process killed at one moment, in the middle of verdicts and of writing a checkpoint (as a power cut ends them)",
            heard(product),
            product.lost(),
            "started again: the reader's desk sends again, the training goes on from its checkpoint",
        )


# --- disk


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk of its own under `folder`. Needs root; the caller is in a mount namespace of its own."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def disk_full(folder: Path) -> Seen:
    with small_disk(folder, 60) as disk, running(disk) as product:
        product.decide()
        case, hold, version = product.take()
        with (disk / "fill").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                file.flush()
        for n in range(60):  # pages that SQLite has already may take some rows
            ack = product.post({"id": f"claim-x{n}", "type": "claim", "case": product.queue[n % 20]})
            if ack is None or not ack["ok"]:
                break
        product.post(
            {
                "id": f"commit-{case}",
                "type": "commit",
                "case": case,
                "lease_token": hold,
                "version": version,
                "form": {**_form(), "note": "x" * 3000},
            }
        )
        pid = product.kill("web")  # must come back on a full disk too
        until(lambda: not psutil.pid_exists(pid), "dead")
        time.sleep(3)
        assert product.process is not None
        assert product.process.poll() is None, "the launcher died of the full disk"
        (disk / "fill").unlink()
        product.up()
        product.decide(2)
        return Seen(
            "the data folder's disk filled to the last byte, web killed meanwhile",
            heard(product),
            product.lost(),
            "space freed: goes on without a restart",
        )


def _form() -> dict[str, object]:
    from benchmarks.faults.product import FORM

    return dict(FORM)


def disk_read_only(folder: Path) -> Seen:
    """A kernel takes no writer away from a disk (but after its errors), so the product meets it at its start and in its commands."""
    with small_disk(folder, 120) as disk, running(disk) as product:
        product.decide()
        product.stop()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        told = [run_command(product, *words) for words in (("serve", "--port", "0", "--empty", "--no-browser"), ("jobs", "list"))]
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert all(code == 2 for code, _ in told), told
        product.start()
        product.up()
        product.decide()
        return Seen(
            "the disk of the data folder turned read-only, then started",
            told[0][1],
            product.lost(),
            "refuses to start; writable again: starts, everything there",
        )


def run_command(product: Product, *words: str) -> tuple[int, str]:
    """A command of the product: its exit code and the last line it said."""
    command = [sys.executable, "-m", "app", *words]
    ended = subprocess.run(command, cwd=ROOT, env=product.environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    said = (ended.stderr.strip() or ended.stdout.strip()).splitlines()
    return ended.returncode, said[-1] if said else ""


def logs_not_writable(folder: Path) -> Seen:
    with running() as product:
        shutil.rmtree(product.home / "logs")
        (product.home / "logs").write_text("not a folder")
        pid = product.kill("web")
        until(lambda: product.pid("web") != pid, "another web process")
        product.up()
        product.decide()
        told = product.launcher_said(r"the log of \w+ cannot be written[^\n]*")
        assert told
        (product.home / "logs").unlink()
        (product.home / "logs").mkdir()
        return Seen(
            "the log folder taken away and unwritable, web killed",
            f"at the terminal: {told}",
            product.lost(),
            "runs without a log; the next start writes again",
        )


# --- database


def locked(folder: Path, seconds: float) -> Seen:
    with running() as product:
        case, hold, version = product.take()
        lock = sqlite3.connect(product.home / "consilium.db", isolation_level=None, check_same_thread=False)
        lock.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(seconds, lambda: lock.execute("COMMIT"))
        timer.start()
        began = time.monotonic()
        product.sign(case, hold, version)
        took = time.monotonic() - began
        timer.join()
        lock.close()
        return Seen(
            f"the database locked by another program for {seconds:.0f} s",
            heard(product),
            product.lost(),
            f"both steps of the verdict stored {took:.0f} s after they were sent",
        )


def database_cut_short(folder: Path) -> Seen:
    with running(folder) as product:
        product.decide()
        backup = folder / "backup"
        made = subprocess.run(
            [sys.executable, "-m", "app", "backup", str(backup)],
            cwd=ROOT,
            env=product.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stderr
        product.stop()
        path = product.home / "consilium.db"
        for name in ("consilium.db-wal", "consilium.db-shm"):
            (product.home / name).unlink(missing_ok=True)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        ended = subprocess.run(
            [sys.executable, "-m", "app", "serve", "--port", "0", "--empty", "--no-browser"],
            cwd=ROOT,
            env=product.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        told = ended.stderr.strip() or ended.stdout.strip()
        assert ended.returncode == 2, (ended.returncode, told[-500:])
        fresh = folder / "restored"
        back = subprocess.run(
            [sys.executable, "-m", "app", "restore", str(backup), "--into", str(fresh)],
            cwd=ROOT,
            env={**product.environment, "CONSILIUM_HOME": str(fresh)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert back.returncode == 0, back.stderr
        product.home = fresh
        return Seen(
            "the database file cut in half, then started",
            told.splitlines()[-1],
            f"after restoring the backup: {product.lost()}",
            "refuses to start; restore brings back the backup, verified",
        )


def database_overwritten(folder: Path) -> Seen:
    with running(folder) as product:
        product.decide()
        product.stop()
        (product.home / "consilium.db").write_bytes(b"this is no database " * 500)
        ended = subprocess.run(
            [sys.executable, "-m", "app", "serve", "--port", "0", "--empty", "--no-browser"],
            cwd=ROOT,
            env=product.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert ended.returncode == 2, (ended.returncode, ended.stderr[-800:])
        return Seen(
            "the database overwritten with something else",
            ended.stderr.strip().splitlines()[-1],
            "what the newest backup does not hold",
            "refuses to start and says how to restore",
        )


# --- clock


@contextmanager
def with_clock(folder: Path) -> Iterator[tuple[Product, Callable[[int], None]]]:
    """A product whose wall clock can be set."""
    library, offset = folder / "clock.so", folder / "offset"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(Path(__file__).with_name("clock.c")), "-ldl"], check=True)
    offset.write_text("0")
    with running(folder, LD_PRELOAD=str(library), CONSILIUM_CLOCK=str(offset)) as product:
        yield product, lambda seconds: (offset.write_text(str(seconds)), None)[1]


def clock_jumps(folder: Path, seconds: int) -> Seen:
    with with_clock(folder) as (product, jump):
        product.decide()
        job = imports(folder, product)
        case, hold, version = product.take()
        jump(seconds)
        ack = product.settle(
            {"id": f"commit-{case}", "type": "commit", "case": case, "lease_token": hold, "version": version, "form": _form()}
        )
        if ack["ok"]:
            product.acknowledged[f"commit-{case}"] = ack["adjudication_id"]
        row = product.ended(job)
        assert (row.status, row.attempt) == ("succeeded", 1), (row.status, row.error)
        product.decide(2)
        jump(0)
        product.decide()
        stored = "stored" if ack["ok"] else "refused with its sentence"
        way = f"{'forward' if seconds > 0 else 'back'} by {abs(seconds) // 3600} h"
        return Seen(
            f"the clock set {way} with a case in hand and a job running (verdict {stored}), then set right",
            heard(product),
            product.lost(),
            "goes on by itself; the job ran once",
        )


# --- teacher and model server


def teacher(folder: Path, mode: str) -> Seen:
    """A score job whose teacher hangs, or dies on the way and comes back."""
    script = [sys.executable, "-m", "benchmarks.faults.teacher", str(folder / "mode"), str(folder / "port")]
    (folder / "mode").write_text("ok" if mode == "dead" else "hang")
    endpoint = subprocess.Popen(script, cwd=ROOT)
    until(lambda: (folder / "port").exists() and (folder / "port").read_text(), "the endpoint listens", 60)
    address = f"http://127.0.0.1:{(folder / 'port').read_text()}/v1"
    try:
        with running(folder, CONSILIUM_TEACHER_BASE_URL=address, CONSILIUM_TEACHER_API_KEY="k", CONSILIUM_TEACHER_TIMEOUT_S="4") as product:
            job = product.queue_job("score", {"dataset": "bench"})
            if mode == "dead":
                until(lambda: product.job(job).progress.get("done", 0) > 0, "some judgements")
                endpoint.kill()
                endpoint.wait()
            row = product.ended(job)
            told = sentence_of(product, job) if row.error else f"job {row.status}: {json.dumps(row.result)[:200]}"
            product.decide()
            (folder / "mode").write_text("ok")
            if endpoint.poll() is not None:
                (folder / "port").rename(folder / "port.old")
                endpoint = subprocess.Popen([*script, address.split(":")[2].removesuffix("/v1")], cwd=ROOT)
                until(lambda: (folder / "port").exists(), "the endpoint is back", 60)
            again = product.queue_job("score", {"dataset": "bench"})
            after = product.ended(again)
            assert after.status == "succeeded", after.error
            what = "killed while it judges" if mode == "dead" else "that accepts and never answers"
            return Seen(
                f"a teacher endpoint {what}",
                told,
                product.lost(),
                "scored again when it answers; judgements that came are kept and not paid twice",
            )
    finally:
        endpoint.kill()
        endpoint.wait()


def model_server_hangs(folder: Path) -> Seen:
    with running() as product:
        process = psutil.Process(product.pid("model_server"))
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        product.decide(2)
        took = time.monotonic() - began
        page = product.call("GET", "/api/health").json()["status"]
        process.send_signal(signal.SIGCONT)
        return Seen(
            "the model server stopped in its tracks (SIGSTOP)",
            f"the desk decides on (2 verdicts in {took:.1f} s; health says {page}); an answer that streams ends with “The stream broke”",
            product.lost(),
            "goes on when it does",
        )


# --- index


def index_case(folder: Path, damage: str) -> Seen:
    with running() as product:
        documents = folder / "documents"
        documents.mkdir()
        for n in range(3):
            (documents / f"guide{n}.md").write_text(
                f"# Guide {n}\n\nFever above 39 degrees for {n + 2} days needs a doctor. Rest and drink.\n"
            )
        first = product.queue_job("index", {"name": "guidelines", "folder": str(documents)})
        assert product.ended(first).status == "succeeded"
        asked = {"json": {"query": "fever above 39 degrees"}}
        assert product.call("POST", "/api/ask", **asked).status_code == 200
        version = max((p for p in (product.home / "indexes" / "guidelines").iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
        if damage == "missing":
            shutil.rmtree(version)
        else:
            largest = max((p for p in version.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
            data = bytearray(largest.read_bytes())
            data[len(data) // 2] ^= 0xFF
            largest.write_bytes(bytes(data))
        pid = product.kill("web")
        until(lambda: product.pid("web") != pid and product.answers(), "web is back")
        answer = product.call("POST", "/api/ask", **asked)
        assert answer.status_code != 500, answer.text
        told = answer.json().get("error", {}).get("message") or f"answered: {answer.text[:150]}"
        again = product.queue_job("index", {"name": "guidelines", "folder": str(documents)})
        assert product.ended(again).status == "succeeded"
        assert product.call("POST", "/api/ask", **asked).status_code == 200
        product.decide()
        return Seen(
            f"the search index {'removed' if damage == 'missing' else 'changed by one bit'}",
            told,
            product.lost(),
            "building the index again answers again, without a restart",
        )


# --- jobs


def out_of_memory(folder: Path) -> Seen:
    with running() as product:
        job = product.queue_job("demo_base", small_base(num_documents=4000, num_chats=4000))
        (child, *_) = until(lambda: product.family(job, is_supervisor=False), "the job runs")
        until(lambda: child.memory_info().vms > 300 * 2**20, "it has begun to load")
        for attempt in range(6):
            for process in product.family(job, is_supervisor=False):
                process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms + 2**20, process.memory_info().vms + 2**20))
            if product.job(job).status not in ("queued", "running"):
                break
            until(
                lambda n=attempt: product.job(job).status not in ("running",) or product.job(job).attempt > n + 1, "the attempt ends", 120
            )
            if product.job(job).status in ("queued", "running"):
                until(
                    lambda: product.family(job, is_supervisor=False) or product.job(job).status not in ("queued", "running"),
                    "next attempt",
                    120,
                )
                time.sleep(1)
        row = product.ended(job)
        assert row.status == "failed", row.status
        product.decide()
        return Seen(
            "a training whose memory is limited to what it has (RLIMIT_AS)",
            sentence_of(product, job),
            product.lost(),
            "the job ends with a sentence; desk and queue go on",
        )


def checkpoint_damaged(folder: Path) -> Seen:
    with running() as product:
        job = training(product)
        checkpoints = product.home / "runs" / f"{job:06d}" / "checkpoints"
        until(lambda: len(list(checkpoints.glob("step-*/state.pt"))) > 1, "two checkpoints")
        for process in product.family(job, is_supervisor=False):
            process.suspend()
        newest = max(checkpoints.glob("step-*/state.pt"))
        newest.write_bytes(newest.read_bytes()[:1000])
        for process in product.family(job, is_supervisor=False):
            process.kill()
        row = product.ended(job)
        assert row.status == "succeeded", row.error
        log = (product.home / "runs" / f"{job:06d}" / "log.txt").read_text()
        (told,) = [line for line in log.splitlines() if "is damaged" in line][:1]
        return Seen(
            "the newest checkpoint cut short, then the training killed",
            told,
            "the steps since the checkpoint before it",
            "resumed from the one before",
        )


# --- files and ports


def config_broken(folder: Path) -> Seen:
    product = Product(folder / "home")
    product.prepare(num_cases=5)
    (product.home / "consilium.toml").write_text('port = 80 80\nlanguage = "en"')
    ended = subprocess.run(
        [sys.executable, "-m", "app", "serve", "--empty"],
        cwd=ROOT,
        env=product.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 2, ended.stderr[-500:]
    (product.home / "consilium.toml").unlink()
    (product.home / "processes.json").write_text('{"web": [1, 2')
    product.start()
    product.up()
    product.stop()
    return Seen(
        "consilium.toml that is no TOML; processes.json cut short",
        ended.stderr.strip().splitlines()[-1],
        "nothing",
        "refuses to start until mended; a broken processes.json is written anew",
    )


def port_busy(folder: Path) -> Seen:
    with running() as product:
        other = Product(folder / "other")
        other.prepare(num_cases=5)
        port = product.url.rpartition(":")[2]
        ended = subprocess.run(
            [sys.executable, "-m", "app", "serve", "--port", port, "--empty"],
            cwd=ROOT,
            env=other.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert ended.returncode == 2
        return Seen("the port is taken by another program", ended.stderr.strip().splitlines()[-1], "nothing", "started with another port")


def home_moved(folder: Path) -> Seen:
    with running(folder) as product:
        product.decide(2)
        job = imports(folder, product, rows=300)
        assert product.ended(job).status == "succeeded"
        product.stop()
        product.home.rename(folder / "elsewhere")
        product.home = folder / "elsewhere"
        product.start()
        product.up()
        log = product.call("GET", f"/api/jobs/{job}/log")
        assert log.status_code == 200
        assert log.text
        product.decide(2)
        return Seen(
            "the data folder moved to another place between two starts",
            "nothing (signed-in people stay so; cookies are per folder, so a browser signs in again)",
            product.lost(),
            "paths in the database are relative",
        )


#: name -> what to run; the rest of the table is shown by tests that need a browser (TESTED)
CASES: dict[str, Callable[[Path], Seen]] = {
    "kill -9: web": web_killed,
    "kill -9: worker": worker_killed,
    "kill -9: supervisor": supervisor_killed,
    "kill -9: job": job_killed,
    "kill -9: model server": model_server_killed,
    "power cut": everything_killed,
    "disk full": disk_full,
    "disk read-only": disk_read_only,
    "log folder not writable": logs_not_writable,
    "database locked 10 s": lambda folder: locked(folder, 10),
    "database locked 40 s": lambda folder: locked(folder, 40),
    "database cut short": database_cut_short,
    "database overwritten": database_overwritten,
    "clock forward": lambda folder: clock_jumps(folder, 3600),
    "clock back": lambda folder: clock_jumps(folder, -3600),
    "teacher slow": lambda folder: teacher(folder, "slow"),
    "teacher dead": lambda folder: teacher(folder, "dead"),
    "model server slow": model_server_hangs,
    "index missing": lambda folder: index_case(folder, "missing"),
    "index damaged": lambda folder: index_case(folder, "damaged"),
    "out of memory": out_of_memory,
    "checkpoint damaged": checkpoint_damaged,
    "config broken": config_broken,
    "port busy": port_busy,
    "home moved": home_moved,
}
