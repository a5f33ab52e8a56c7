"""Recall and precision of de-identification per kind and language, with Wilson 95 % intervals, on the seeded set; and what is hit
in any file that can be imported, per 1,000 rows.

`python -m benchmarks.deidentify` reports on the held-apart templates; `--part dev --show` lists misses of the others;
`--file FILE ...` counts hits in real data and shows a seeded handful with the text around them.
A planted value counts as found when no letter or digit of it stays readable after masking, whatever kind it was taken for; a
finding counts as false when it covers no planted value at all.
"""

# ruff: noqa: E501 - a pattern or a list of names broken over lines is not read more easily

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.deidentify_set import Case, make
from core.deidentify import KINDS, Finding, find
from core.importing.readers import RawRow, read_rows
from core.statistics import wilson


def is_covered(case: Case, span: tuple[int, int, str], found: Sequence[Finding]) -> bool:
    """Whether every letter and digit of the planted value lies in some finding."""
    return all(any(f.start <= i < f.end for f in found) for i in range(span[0], span[1]) if case.text[i].isalnum())


def measure(cases: Sequence[Case], *, show: int = 0) -> list[dict[str, object]]:
    """One row per language and kind: planted, found, recall, right kind, false findings of that kind, precision, intervals."""
    planted: Counter[tuple[str, str]] = Counter()
    covered: Counter[tuple[str, str]] = Counter()
    named: Counter[tuple[str, str]] = Counter()
    true: Counter[tuple[str, str]] = Counter()
    false: Counter[tuple[str, str]] = Counter()
    for case in cases:
        found = find(case.text)
        for span in case.spans:
            key = (case.language, span[2])
            planted[key] += 1
            is_found = is_covered(case, span, found)
            covered[key] += is_found
            named[key] += any(f.kind == span[2] and f.start < span[1] and f.end > span[0] for f in found)
            if show and not is_found:
                show -= 1
                print("missed", span[2], case.text[span[0] : span[1]], "|", case.text)
        for one in found:
            is_true = any(one.start < end and one.end > start for start, end, _ in case.spans)
            (true if is_true else false)[case.language, one.kind] += 1
            if show and not is_true:
                show -= 1
                print("false", one.kind, case.text[one.start : one.end], "|", case.text)
    rows: list[dict[str, object]] = []
    for language in ("zh", "en"):
        for kind in (k for k in KINDS if planted[language, k] or false[language, k]):
            key = (language, kind)
            num = true[key] + false[key]
            row: dict[str, object] = {
                "language": language,
                "kind": kind,
                "planted": planted[key],
                "found": covered[key],
                "same_kind": named[key],
            }
            row |= {"false": false[key], "findings": num}
            row["recall"] = (covered[key] / planted[key], *wilson(covered[key], planted[key])) if planted[key] else None
            row["precision"] = (true[key] / num, *wilson(true[key], num)) if num else None
            rows.append(row)
    return rows


def print_table(rows: list[dict[str, object]]) -> None:
    """The rows as Markdown."""

    def share(value: object) -> str:
        return f"{100 * value[0]:.1f} ({100 * value[1]:.1f}–{100 * value[2]:.1f})" if isinstance(value, tuple) else "–"

    print("| language | kind | planted | found | recall %, 95 % | same kind | findings | false | precision %, 95 % |")
    print("|---|---|---|---|---|---|---|---|---|")
    for r in rows:
        print(
            f"| {r['language']} | {r['kind']} | {r['planted']} | {r['found']} | {share(r['recall'])} | {r['same_kind']} | {r['findings']} | {r['false']} | {share(r['precision'])} |"
        )


def scan(path: Path, *, num_shown: int, seed: int, limit: int) -> None:
    """Rows of a real file with a hit, by kind, and a seeded handful to be read by a person."""
    rows = hits = num_characters = 0
    by_kind: Counter[str] = Counter()
    examples: dict[str, list[str]] = defaultdict(list)
    started = time.process_time()
    for row in read_rows(path):
        if not isinstance(row, RawRow) or (limit and rows >= limit):
            continue
        rows += 1
        kinds = set()
        for text in row.values.values():
            text = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
            num_characters += len(text)
            for one in find(text):
                kinds.add(one.kind)
                around = text[max(0, one.start - 25) : one.start] + "⟦" + text[one.start : one.end] + "⟧" + text[one.end : one.end + 20]
                examples[one.kind].append(around.replace("\n", " "))
        hits += bool(kinds)
        by_kind.update(kinds)
    seconds = time.process_time() - started
    print(
        f"{path.name}: {rows} rows, {hits} with a hit ({1000 * hits / max(1, rows):.1f} per 1,000), {seconds:.1f} s CPU for {num_characters / 1e6:.2f} million characters"
    )
    for kind, num in by_kind.most_common():
        print(f"  {kind}: {num} rows ({1000 * num / rows:.1f} per 1,000)")
        for text in random.Random(seed).sample(examples[kind], min(num_shown, len(examples[kind]))):
            print(f"    {text}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("dev", "test"), default="test")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--num", type=int, default=2000, help="texts with identifiers per language; half as many negatives")
    parser.add_argument("--show", type=int, default=0, help="print so many misses and false findings")
    parser.add_argument("--file", type=Path, nargs="*", default=[])
    parser.add_argument("--limit", type=int, default=0)
    options = parser.parse_args()
    for path in options.file:
        scan(path, num_shown=options.show, seed=options.seed, limit=options.limit)
    if not options.file:
        print_table(measure(make(options.part, options.seed, options.num), show=options.show))


if __name__ == "__main__":
    main()
