"""Cases by the thousand, in both languages, straight into the tables: what a team has after some years."""

from __future__ import annotations

import random
from typing import Any

from sqlalchemy import func, insert, select

from db import tables as t
from db.base import utc_now
from db.engine import write_session

TOPICS = ("chest", "child", "drugs", "skin", "eye", "pregnancy", "mind", "bones")
EN = "I have had {a} for {n} days and {b}. Can I take {drug}?".format
ZH = "我{a}已经{n}天，还{b}，可以吃{drug}吗？".format
WORDS = {
    "en": (
        ("chest pain", "a rash", "fever", "back pain"),
        ("cold sweat", "no appetite", "blurred vision"),
        ("ibuprofen", "warfarin", "aspirin"),
    ),
    "zh": (("胸口痛", "起皮疹", "发烧", "腰痛"), ("出冷汗", "没胃口", "视力模糊"), ("布洛芬", "华法林", "阿司匹林")),
}
BATCH = 5000
#: one case in so many was decided before
DECIDED = 10


def fill(num: int) -> list[int]:
    """`num` more cases, a tenth of them signed by one of 20 readers of the past; returns the ids of those readers."""
    rng = random.Random(0)
    now = utc_now()
    with write_session() as session:
        people = [t.User(username=f"doc{n}", display_name=f"Dr {n}", role="clinician") for n in range(20)]
        dataset, version = t.Dataset(name="bench", kind="prompts"), t.ModelVersion(name="v1", kind="sft")
        session.add_all([*people, dataset, version])
        session.flush()
        readers = [person.id for person in people]
        before = max(session.scalar(select(func.max(table.id))) or 0 for table in (t.Sample, t.Completion, t.Conflict))
        dataset_id, version_id = dataset.id, version.id
    for start in range(before + 1, before + num + 1, BATCH):
        samples: list[dict[str, Any]] = []
        completions: list[dict[str, Any]] = []
        conflicts: list[dict[str, Any]] = []
        for i in range(start, min(start + BATCH, before + num + 1)):
            language = "zh" if i % 2 else "en"
            a, b, drug = (rng.choice(words) for words in WORDS[language])
            text = (ZH if language == "zh" else EN)(a=a, b=b, drug=drug, n=i)
            messages = [{"role": "user", "content": text}]
            samples.append(
                {"id": i, "dataset_id": dataset_id, "text": text, "messages": messages, "language": language, "split": "train",
                 "content_hash": str(i), "category": rng.choice(TOPICS), "risk": rng.choice(("low", "medium", "high")), "source": "",
                 "meta": {}, "created_at": now}
            )  # fmt: skip
            completions.append(
                {"id": i, "sample_id": i, "text": text * 3, "thinking": text, "answer": text * 3, "content_hash": str(i),
                 "model_version_id": version_id, "source": "sampled", "finish_reason": "stop", "decoding": {}, "created_at": now}
            )  # fmt: skip
            conflicts.append(
                {"id": i, "completion_id": i, "sample_id": i, "kind": "score_gap", "gap": rng.random(), "priority": rng.random(),
                 "advice": "", "status": "open" if i % DECIDED else "adjudicated", "version": 0, "overlap": 1, "created_at": now}
            )  # fmt: skip
        signed = [
            {"conflict_id": row["id"], "user_id": readers[row["id"] // DECIDED % len(readers)], "stage": "signed",
             "client_id": f"bench-{row['id']}", "verdict": "minor", "criteria": {}, "marks": {}, "note": "", "revision_reason": "",
             "because": [], "role": "reader", "taken": {}, "created_at": now}
            for row in conflicts if row["status"] == "adjudicated"
        ]  # fmt: skip
        with write_session() as session:
            for table, rows in ((t.Sample, samples), (t.Completion, completions), (t.Conflict, conflicts), (t.Adjudication, signed)):
                if rows:
                    session.execute(insert(table), rows)
    return readers
