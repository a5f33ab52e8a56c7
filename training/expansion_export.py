"""Ship an expansion model: merge base and adapters, write GGUF files, compare each with the original, register the version.

A file is worth nothing until it has been read again: every one is loaded back, its header is held against the model's config,
and its logits against the original's on the same prompts. A 16-bit file that chooses another token more often than one time in
a hundred is not registered. Where llama.cpp itself is at hand (setting llama_python), it answers the prompts too.

    python -m training.expansion_export --run-dir DIR      (job kind expansion_export)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from core.errors import Unavailable, UserError
from core.expansion import gguf, gguf_converter, gguf_ollama, prompts, schema
from core.jobs.configs_expansion_export import ExpansionExportConfig
from core.models import check_name_free, folder_hash, get_version, lineage, register_version
from core.policy import Policy, version_files
from core.settings import ROOT
from db import tables as t
from db.engine import read_session, write_session
from training.causal import num_parameters, prepare, replace_folder
from training.expansion_convert import EXIT_TOKENIZER
from training.run import Run, main

QUERIES = ROOT / "assets" / "expansion" / "export_queries.txt"
LLAMA = ROOT / "training" / "expansion_llama.py"
#: share of equal tokens that a 16- or 32-bit file must reach
FAITHFUL = 0.99
LOSSLESS = ("f16", "bf16", "f32")


def export(run: Run) -> None:
    """Export a trained expansion model."""
    config = run.config(ExpansionExportConfig)
    name = config.name or f"{config.model}-gguf"
    total = 3 + len(config.types)

    # 1. What can be wrong is said before anything is loaded.
    with read_session() as session:
        check_name_free(session, name, job_id=run.job_id)
        version = get_version(session, config.model)
        files = version_files(session, run.home, version)
        chain = [row.name for row in lineage(session, version)]
    python = run.home.settings.llama_python
    if not python and (wanted := [one for one in config.types if one in gguf.QUANTS]):
        raise UserError("expansion_export.no_llama", types=", ".join(wanted))
    queries = read_queries(run.home.root / Path(config.queries).expanduser() if config.queries else QUERIES)[: config.num_prompts]
    converter = gguf_converter.find(run.home.settings.gguf_converter)
    if converter is None:
        if not config.fetch_converter:
            raise UserError("expansion_export.no_converter", version=gguf_converter.VERSION)
        run.progress("converter", 0, total)
        converter = gguf_converter.fetch()

    # 2. Merge, in float32: adapters are small differences, and a half-precision sum loses some of them.
    run.progress("merge", 0, total)
    original = Policy.load(run.home, files.base, "cpu")
    prepare(run.home, 0, num_parameters(original.model))
    if files.adapter:
        original.adopt(merged(original.model, files.adapter), {})
    scratch = run.dir / "export"
    shutil.rmtree(scratch, ignore_errors=True)
    stored_dtype = getattr(original.model.config, "dtype", None) or torch.float32
    original.model.to(stored_dtype).save_pretrained(scratch)
    original.model.to(torch.float32)
    original.tokenizer.save_pretrained(scratch)
    instruction = prompts.current(config.model)
    rendered = [render(original, schema.prompt_messages(query, instruction)) for query in queries]

    # 3. The original's own answers, then each file against them.
    answers = original.sample(
        [tokens(original, text) for text in rendered], adapter=None, temperature=0.0,
        max_new_tokens=config.max_new_tokens, seeds=[0] * len(rendered),
    )  # fmt: skip
    reports: dict[str, dict[str, Any]] = {}
    for number, kind in enumerate(ordered(config.types), start=1):
        run.progress(kind, number, total)
        file = scratch / f"{file_stem(name)}-{kind}.gguf"
        write(run, kind, scratch, file, converter)
        reports[kind] = {"file": file.name, "num_bytes": file.stat().st_size, **compare(original, file, scratch, rendered, answers)}
        if python:
            reports[kind] |= compare_in_llama(python, original, file, rendered, answers, config.max_new_tokens)
        run.log(number, **{f"{kind}/{key}": float(v) for key, v in reports[kind].items() if isinstance(v, int | float)})
        print(f"{kind}: {json.dumps(reports[kind])}", flush=True)
        check_faithful(kind, reports[kind])
    for kind in set(reports) - set(config.types):  # written only to make a K-quant of it
        (scratch / str(reports.pop(kind)["file"])).unlink()

    # 4. The Modelfile, the version, and Ollama when it was asked for.
    first = config.types[0]
    text, has_template = gguf.modelfile(
        str(reports[first]["file"]), instruction=instruction, render=lambda chat: render(original, chat),
        context=int(original.model.config.max_position_embeddings), stops=stop_texts(original),
    )  # fmt: skip
    (scratch / "Modelfile").write_text(text, encoding="utf-8")
    target = run.home.models / "expansion" / name
    replace_folder(scratch, target)
    manifest = {
        "config": config.model_dump(),
        "task": "expansion",
        "instruction": instruction,
        "merged": chain,
        "converter": converter.origin,
        "files": reports,
        "num_prompts": len(queries),
        "has_template": has_template,
    }
    digest = register(run, name, version, target, manifest)
    run.progress("ollama", total - 1, total)
    ollama = hand_over(config, name, target / str(reports[first]["file"]), text, instruction, has_template)
    run.progress("done", total, total)
    run.result(
        version=name, content_hash=digest, files=reports, converter=converter.origin, ollama=ollama, has_template=has_template,
        ollama_create=f"ollama create {ollama_name(config, name)} -f {target / 'Modelfile'}",
        serve=f"python -m llama_cpp.server --model {target / str(reports[first]['file'])} --model_alias {name} --port 8080",
    )  # fmt: skip


def merged(model: Any, adapter: Path) -> Any:
    """A model of its own: the adapter's differences added to the weights."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()


def read_queries(path: Path) -> list[str]:
    """Queries of a text file, or of a set's rows. Raises UserError("expansion_export.no_queries" / "expansion...")."""
    if path.suffix == ".jsonl":
        return [row.query for row in schema.read_rows(path)]
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("expansion_export.no_queries", file=path, reason=type(error).__name__) from error
    if not found:
        raise UserError("expansion_export.no_queries", file=path, reason="0")
    return found


def render(policy: Policy, chat: list[dict[str, str]]) -> str:
    return str(policy.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


def tokens(policy: Policy, text: str) -> list[int]:
    return list(policy.tokenizer(text, add_special_tokens=False)["input_ids"])


def stop_texts(policy: Policy) -> list[str]:
    return [str(policy.tokenizer.convert_ids_to_tokens(one)) for one in sorted(policy.eos_ids)]


def ordered(types: list[Any]) -> list[str]:
    """Files the converter writes come first; a K-quant is made of the f16 file, which is written for it when nobody asked for it."""
    direct = [one for one in types if one in gguf.DIRECT]
    quants = [one for one in types if one in gguf.QUANTS]
    return [*direct, *(["f16"] if quants and "f16" not in direct else []), *quants]


def file_stem(name: str) -> str:
    """A version's name as part of a file name."""
    return name.replace("/", "-")


def write(run: Run, kind: str, folder: Path, file: Path, converter: gguf_converter.Converter) -> None:
    """One GGUF file. Raises UserError("expansion_export.bad_tokenizer" / "expansion_export.failed")."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if kind in gguf.QUANTS:
        source = next(folder.glob("*-f16.gguf"))
        command = [run.home.settings.llama_python, str(LLAMA), "quantise", str(source), str(file), kind]
    else:
        command = [sys.executable, "-m", "training.expansion_convert", "--converter", str(converter.folder)]
        command += ["--model", str(folder), "--out", str(file), "--type", kind]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError("expansion_export.bad_llama_python", path=command[0], reason=error.strerror) from error
    (run.dir / f"convert-{kind}.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode == EXIT_TOKENIZER:
        raise UserError("expansion_export.bad_tokenizer")
    if done.returncode or not file.is_file():
        said = (done.stderr.strip() or done.stdout.strip() or "?").splitlines()[-1]
        raise UserError("expansion_export.failed", kind=kind, reason=said[:300], log=run.dir / f"convert-{kind}.log")


@torch.inference_mode()
def compare(original: Policy, file: Path, folder: Path, rendered: list[str], answers: list[list[int]]) -> dict[str, Any]:
    """Load a file back and hold it against the original: header, logits and choices at every position of prompts and answers.

    `max_logit_difference`, `mean_kl` (nats per position of the answers) and `same_choice`, the share of answer positions at which both
    would write the same token. Raises UserError("expansion_export.header_differs").
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    about = gguf.metadata(file)
    if wrong := gguf.differences(about, settings):
        raise UserError("expansion_export.header_differs", file=file.name, what="; ".join(wrong))
    # the header was checked above; transformers' own reading of it forgets head_dim
    again = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file.name, config=AutoConfig.from_pretrained(folder), dtype=torch.float32
    ).eval()
    largest, divergence, same, num = 0.0, 0.0, 0, 0
    for text, answer in zip(rendered, answers, strict=True):
        prompt = tokens(original, text)
        ids = torch.tensor([prompt + answer])
        ours, theirs = original.model(input_ids=ids).logits[0].float(), again(input_ids=ids).logits[0].float()
        largest = max(largest, float((ours - theirs).abs().max()))
        ours, theirs = ours[len(prompt) - 1 : -1], theirs[len(prompt) - 1 : -1]
        log = ours.log_softmax(-1)
        divergence += float((log.exp() * (log - theirs.log_softmax(-1))).sum())
        same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        num += len(answer)
    return {
        "max_logit_difference": round(largest, 5), "mean_kl": divergence / max(1, num), "same_choice": same / max(1, num),
        "num_positions": num, "num_parameters": about["num_parameters"],
    }  # fmt: skip


def compare_in_llama(
    python: str, original: Policy, file: Path, rendered: list[str], answers: list[list[int]], max_new_tokens: int
) -> dict[str, Any]:
    """The same prompts put to llama.cpp: equal prompt tokens, and the share of equal answer tokens at temperature 0.

    `llama_same_choice` shows it the original's answer and asks for each next token; `llama_same_tokens` lets it write alone, and
    everything behind the first difference of an answer counts as different, so one near-tie costs the whole rest.
    """
    asked = {
        "prompts": rendered, "answers": answers, "max_new_tokens": max_new_tokens, "eos": sorted(original.eos_ids),
        "num_ctx": int(original.model.config.max_position_embeddings),
    }  # fmt: skip
    try:
        done = subprocess.run(
            [python, str(LLAMA), "check", str(file)], input=json.dumps(asked), capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise UserError("expansion_export.bad_llama_python", path=python, reason=error.strerror) from error
    if done.returncode:
        said = (done.stderr.strip() or "?").splitlines()[-1]
        raise UserError("expansion_export.bad_llama_python", path=python, reason=said[:300])
    found = json.loads(done.stdout.splitlines()[-1])
    num_same = num = num_prompts_same = 0
    for row, text, answer in zip(found["rows"], rendered, answers, strict=True):
        num_prompts_same += row["prompt"] == tokens(original, text)
        num += max(len(answer), len(row["answer"]))
        num_same += next(
            (i for i, (a, b) in enumerate(zip(answer, row["answer"], strict=False)) if a != b), min(len(answer), len(row["answer"]))
        )
    return {
        "llama_cpp": found["version"], "llama_same_prompts": num_prompts_same / len(rendered),
        "llama_same_choice": sum(row["num_same"] for row in found["rows"]) / max(1, sum(map(len, answers))),
        "llama_same_tokens": num_same / max(1, num), "llama_num_tokens": num,
        "llama_seconds_per_answer": round(sum(row["seconds"] for row in found["rows"]) / len(rendered), 4),
    }  # fmt: skip


def check_faithful(kind: str, report: dict[str, Any]) -> None:
    """Raises UserError("expansion_export.not_faithful") for a 16- or 32-bit file that answers otherwise than the original."""
    for key in ("same_choice", "llama_same_choice"):
        if kind in LOSSLESS and report.get(key, 1.0) < FAITHFUL:
            raise UserError("expansion_export.not_faithful", kind=kind, share=f"{report[key]:.1%}", wanted=f"{FAITHFUL:.0%}", what=key)


def ollama_name(config: ExpansionExportConfig, name: str) -> str:
    return config.ollama_name or name.lower()


def hand_over(config: ExpansionExportConfig, name: str, file: Path, text: str, instruction: str, has_template: bool) -> dict[str, Any]:
    """What Ollama said; an Ollama that is away costs a sentence, never the export."""
    if not config.ollama:
        return {"status": "not_asked"}
    stops = [line.removeprefix("PARAMETER stop ") for line in text.splitlines() if line.startswith("PARAMETER stop ")]
    context = next(int(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("PARAMETER num_ctx "))
    try:
        made = gguf_ollama.hand_over(
            file, ollama_name(config, name), template=gguf.CHATML if has_template else "", instruction=instruction,
            parameters={"stop": stops, "temperature": 0, "num_ctx": context},
        )  # fmt: skip
    except (Unavailable, UserError) as error:
        print(f"Ollama: {error}", flush=True)
        return {"status": "failed", "code": error.code, "params": {k: str(v) for k, v in error.params.items()}}
    return {"status": "made", "model": made.name, "host": made.host, "version": made.version, "num_bytes": made.num_bytes}


def register(run: Run, name: str, source: t.ModelVersion, folder: Path, manifest: dict[str, Any]) -> str:
    """The exported folder as a version of the source's kind; a whole model, so it needs no base. Returns its hash."""
    digest = folder_hash(folder)
    with write_session() as session:
        register_version(
            session,
            name=name,
            kind=source.kind,
            task=source.task,
            path=run.home.relative(folder),
            base_version_id=source.base_version_id,
            parent_version_id=source.id,
            is_toy=source.is_toy,
            content_hash=digest,
            manifest=manifest,
            job_id=run.job_id,
        )
    return digest


if __name__ == "__main__":
    main(export)
