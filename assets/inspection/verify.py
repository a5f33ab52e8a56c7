"""Checks an inspection pack with Python alone: run `python verify.py` in the folder where the pack was unpacked.

1. every file is the one the manifest names (SHA-256);
2. every audit entry carries the hash of its own content, and entries that follow one another are linked;
3. every decision is the one whose hash stands in its audit entry.
Exit code 0 when everything fits, 1 otherwise.
"""

import hashlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def compact(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def entry_hash(one: dict) -> str:
    detail = one["detail"] if one["format"] == 1 else json.dumps(one["detail"])
    head = [one["previous_hash"], one["action"], one["object_type"], one["object_id"], one["actor_id"], detail, one["reason"]]
    head.append(one["created_at"])
    whole = [one["format"], one["id"], *head, one["before_hash"], one["after_hash"]]
    return sha256(compact(head if one["format"] == 1 else whole))


def main() -> int:
    faults = []
    manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    for name, wanted in manifest["files"].items():
        if hashlib.sha256((HERE / name).read_bytes()).hexdigest() != wanted:
            faults.append(f"{name} is not the file that was written")
    entries = [json.loads(line) for line in (HERE / "audit_entries.jsonl").read_text(encoding="utf-8").splitlines()]
    signed = {}
    for before, one in zip([None, *entries][: len(entries)], entries, strict=True):
        if entry_hash(one) != one["entry_hash"]:
            faults.append(f"audit entry {one['id']} was changed")
        if before is not None and before["id"] + 1 == one["id"] and before["entry_hash"] != one["previous_hash"]:
            faults.append(f"audit entry {one['id']} does not follow entry {before['id']}")
        if one["object_type"] == "adjudication" and "row_sha256" in one["detail"]:
            signed[int(one["object_id"])] = one["detail"]["row_sha256"]
    life = json.loads((HERE / "inspection.json").read_text(encoding="utf-8"))
    for row in life["decisions"]:
        if row["id"] in signed and signed[row["id"]] != row["row_sha256"]:
            faults.append(f"decision {row['id']} is not the one that was signed")
    for fault in faults:
        print("NOT OK:", fault)
    if not faults:
        print(f"OK: {len(manifest['files'])} files, {len(entries)} audit entries, {len(signed)} decisions")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
