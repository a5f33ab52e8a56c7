"""`./run.sh expansion ...`: check, score, clean, make and split sets of query expansions. Thin: read options, call core, print."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from app.console import language, say
from core.errors import UserError
from core.expansion import analyse, chat_form, clean, families, reward, schema, selftest, sets, shape
from core.expansion.explain import explain
from core.i18n import error_text, translate


def word(key: str, **params: Any) -> str:
    return translate(f"expansion.{key}", language(), **params)


OUT = typer.Option(..., "--out", help=word("help_out"))
LOOSE = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
expansion_commands = typer.Typer(help=word("help_expansion"), no_args_is_help=True)
_meant: list[Callable[[Path], Path]] = []


def register(cli: typer.Typer, as_meant: Callable[[Path], Path], shortcut: Callable[[str], Callable[..., None]]) -> None:
    """Add the commands. `as_meant` reads a path from where the person stands; `shortcut` makes a command that queues a job kind."""
    _meant[:] = [as_meant]
    expansion_commands.command("generate", help=word("help_generate"), context_settings=LOOSE)(shortcut("expansion_data"))
    cli.add_typer(expansion_commands, name="expansion")


def meant(path: Path) -> Path:
    return _meant[0](path)


def read(file: Path) -> list[schema.Row]:
    return schema.read_rows(meant(file))


def write(out: Path, rows: Sequence[schema.Row]) -> None:
    say(word("written", num=schema.write_rows(meant(out), rows), path=out))


@expansion_commands.command("validate", help=word("help_validate"))
def validate(file: Path, most: int = typer.Option(50, "--most", help=word("help_most"))) -> None:
    """Every line that is wrong, with the fix; exit code 1 when there is one."""
    rows, wrong = schema.check_file(meant(file))
    for problem in wrong[:most]:
        say(error_text(problem.error(file.name), language()), is_error=True)
    say(word("validated", good=len(rows), wrong=len(wrong)))
    if wrong:
        raise typer.Exit(1)


@expansion_commands.command("score", help=word("help_score"))
def score(
    file: Path,
    corpus: Path | None = typer.Option(None, "--corpus", help=word("help_corpus")),  # noqa: B008 - typer reads the default
    verbose: bool = typer.Option(False, "--verbose", "-v", help=word("help_verbose")),
    as_json: Path | None = typer.Option(None, "--json", help=word("help_json")),  # noqa: B008
) -> None:
    """Mean reward, ratings, what costs most; with -v every row with its deductions by line."""
    rows = read(file)
    grounding = None
    if corpus is not None:
        from core.expansion.grounding import over_folder

        grounding = over_folder(meant(corpus))
    scored = [(row, reward.score(row.query, row.output, grounding=grounding)) for row in rows]
    for row, one in scored if verbose else ():
        grounded = "" if one.grounded is None else f" · {word('grounded')} {one.grounded:.2f}"
        say(f"{row.number:>6}  {one.reward:.3f} {word(f'rating_{one.rating}')}{grounded}  {row.query}")
        for deduction in one.deductions:
            say(f"        {deduction.points:+6.1f}  {explain(deduction, language())}")
    ratings = Counter(one.rating for _, one in scored)
    say(word("scored", num=len(rows), mean=f"{sum(one.reward for _, one in scored) / max(1, len(rows)):.3f}"))
    say("  ".join(f"{word(f'rating_{name}')} {ratings[name]}" for _, name in reward.RATINGS))
    if grounding is not None:
        say(word("scored_grounded", num=sum(one.grounded is not None for _, one in scored), all=len(rows)))
    if as_json is not None:
        records = [record(row, one) for row, one in scored]
        meant(as_json).write_text(json.dumps(records, ensure_ascii=False, indent=1), encoding="utf-8")


def record(row: schema.Row, scored: reward.Score) -> dict[str, Any]:
    """One row's score as JSON, its deductions as sentences."""
    why = [{"line": d.line, "dimension": d.dimension, "points": d.points, "why": explain(d, language())} for d in scored.deductions]
    names = ("reward", "rubric", "grounded", "rating", "dimensions", "bonus", "facts")
    return {"number": row.number, "query": row.query, **{name: getattr(scored, name) for name in names}, "deductions": why}


@expansion_commands.command("analyse", help=word("help_analyse"))
def analyse_file(file: Path) -> None:
    """The analysis as JSON, warnings as sentences first."""
    found = analyse.analyse(read(file))
    for code, facts in found.pop("warnings"):
        say(word(code, **facts), is_error=True)
    say(json.dumps(found, ensure_ascii=False, indent=1))


@expansion_commands.command("clean", help=word("help_clean"))
def clean_file(file: Path, out: Path = OUT, verbose: bool = typer.Option(False, "--verbose", "-v", help=word("help_verbose"))) -> None:
    """Write what may stay; say what went and why. Reads GB18030 and byte-order marks too; broken lines are named and left out."""
    source = meant(file)
    if not source.is_file():
        raise UserError("expansion.no_file", file=file)
    rows, wrong = schema.check_text(clean.read_any(source.read_bytes(), file.name))
    for problem in wrong:
        say(error_text(problem.error(file.name), language()), is_error=True)
    kept, removed = clean.clean(rows)
    for one in removed if verbose else ():
        say(f"{one.number:>6}  {word(f'rule_{one.rule}')}  {one.line}  {f'({one.detail})' if one.detail else ''}".rstrip())
    for rule, num in Counter(one.rule for one in removed).most_common():
        say(f"{num:>6}  {word(f'rule_{rule}')}")
    write(out, kept)


@expansion_commands.command("build", help=word("help_build"))
def build(
    file: Path,
    out: Path = OUT,
    size: int = typer.Option(..., "--size", min=1, help=word("help_size")),
    by: str = typer.Option("", "--by", help=word("help_by", known=", ".join(shape.BY))),
    seed: int = typer.Option(0, "--seed"),
) -> None:
    """A balanced selection (--by) or, without it, a diverse one."""
    rows = read(file)
    write(out, shape.balanced(rows, size, [name.strip() for name in by.split(",")], seed) if by else shape.diverse(rows, size))


@expansion_commands.command("augment", help=word("help_augment"))
def augment(file: Path, out: Path = OUT) -> None:
    """All rows, and a short wording of every long query that allows one."""
    rows = read(file)
    write(out, [*rows, *shape.augment_short(rows)])


@expansion_commands.command("dedupe", help=word("help_dedupe"))
def dedupe(file: Path, out: Path = OUT, threshold: float = typer.Option(shape.SAME, "--threshold", min=0.1, max=1.0)) -> None:
    """Leave the best of near duplicates."""
    kept, doubles = shape.dedupe(read(file), threshold)
    for row, other in doubles[:20]:
        say(f"{row.number:>6}  {row.query}  ~ {other.number} {other.query}")
    say(word("deduped", num=len(doubles)))
    write(out, kept)


@expansion_commands.command("format", help=word("help_format"))
def format_file(
    file: Path,
    out: Path = OUT,
    tokenizer: Path | None = typer.Option(None, "--tokenizer", help=word("help_tokenizer")),  # noqa: B008
) -> None:
    """Chat messages, and text by a tokenizer's template where one is given."""
    made = list(chat_form.formatted(read(file), meant(tokenizer) if tokenizer else None))
    meant(out).write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in made), encoding="utf-8")
    say(word("written", num=len(made), path=out))


@expansion_commands.command("split", help=word("help_split"))
def split(file: Path, out: Path = OUT, seed: int = typer.Option(0, "--seed")) -> None:
    """train.jsonl, val.jsonl and test.jsonl in a folder, by family, with proof that no family is in two."""
    rows = read(file)
    splits = families.split(rows, seed)
    folder = meant(out)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "val", "test"):
        chosen = [row for row, split in zip(rows, splits, strict=True) if split == name]
        say(f"{name:<6} {schema.write_rows(folder / f'{name}.jsonl', chosen)}")
    say(word("leaks", num=families.leaks(rows, splits)))


@expansion_commands.command("selftest", help=word("help_selftest"))
def run_selftest() -> None:
    """Known cases through the reward; exit code 1 when one comes out wrong."""
    checks = selftest.run()
    for one in checks:
        state = word("passed" if one.is_passed else "not_passed")
        say(f"{state}  {word(f'check_{one.kind}'):<12} {word('rubric')} {one.rubric:.2f} -> {one.reward:.2f}  {one.query}")
    wrong = sum(not one.is_passed for one in checks)
    say(word("selftest", num=len(checks), wrong=wrong))
    if wrong:
        raise typer.Exit(1)


@expansion_commands.command("import", help=word("help_import"))
def import_set(file: Path, name: str = typer.Option(..., "--name", help=word("help_name")), with_split: bool = typer.Option(True)) -> None:
    """Store a file as a set, split by family."""
    made = sets.store(name, read(file), source=file.name, by=None)
    counts = sets.assign_splits(made, by=None) if with_split else {}
    say(word("stored", name=name, id=made) + "  " + "  ".join(f"{split} {num}" for split, num in counts.items()))


@expansion_commands.command("export", help=word("help_export"))
def export_set(name: str, out: Path = OUT, split: str = typer.Option("", "--split")) -> None:
    """The kept rows of a set as JSONL."""
    write(out, sets.kept_rows(sets.id_of(name), split or None))
