"""How long 50,000 rows take to import: real questions recombined, so that near duplicates and danger signs occur as in life.

    PYTHONPATH=. python benchmarks/import_rows.py --data DIR [--rows 50000]      # DIR holds import/ of the public data

The peer is the floor: reading the same file and parsing every line as JSON, nothing else.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
import time
from pathlib import Path

from core.home import open_home
from core.importing.importer import import_file
from core.jobs.configs import ImportConfig
from core.settings import load_settings


def write_rows(data: Path, target: Path, num_rows: int) -> None:
    rng = random.Random(0)
    with (data / "import" / "neike_zh_gb18030.csv").open(encoding="gb18030") as file:
        chinese = list(csv.DictReader(file))
    english = [json.loads(line) for line in (data / "import" / "patient_questions_en.jsonl").open()]
    with target.open("w", encoding="utf-8") as out:
        for i in range(num_rows):
            if i % 2:
                row = rng.choice(chinese)
                text = row["ask"][: rng.randint(20, 200)] + f"（第{i}例）" + rng.choice(chinese)["ask"][:60]
            else:
                row = rng.choice(english)
                text = row["question"][: rng.randint(40, 300)] + f" case {i} " + rng.choice(english)["question"][:100]
            out.write(json.dumps({"question": text, "answer": row["answer"]}, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=50_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = open_home(load_settings({"CONSILIUM_HOME": str(Path(folder) / "home")}), with_migration=True)
        file = Path(folder) / "rows.jsonl"
        write_rows(options.data, file, options.rows)
        start = time.process_time()
        num_lines = sum(1 for line in file.open(encoding="utf-8") if json.loads(line))
        floor = time.process_time() - start
        wall, cpu = time.monotonic(), time.process_time()
        target = home.root / "datasets" / "bench"
        _, report = import_file(
            file, ImportConfig(path=str(file), dataset="bench"), folder=target, card_path="", created_by=None, job_id=None
        )
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    print(f"{num_lines} rows: {wall:.1f} s wall, {cpu:.1f} s CPU; floor {floor:.2f} s CPU, ratio {cpu / floor:.0f}")
    print(f"imported {report.num_imported}, near duplicates {report.num_near_duplicates}, risks {report.risks}")


if __name__ == "__main__":
    main()
