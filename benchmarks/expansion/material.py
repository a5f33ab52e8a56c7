"""Rows and a small bilingual corpus for the query-expansion trainings, from public sets; no model is asked.

    python -m benchmarks.expansion.material --out DIR [--data ../shared/data] [--num 800] [--distractors 800]

The questions are training pairs of medquad-qa (English) and zhmedqa (Chinese); what is asked is told by a pattern, and the lines are that
pattern's, with the question's own name in them. They are templates on purpose: a model of half a million parameters can learn to copy
a name into them in minutes, not to write. As in sets that people gather, not every row is good: a share of them (`--lazy`) is
one line of keywords and nothing else, so that reinforcement has something to mend. DIR gets rows.jsonl and corpus/ in
BEIR form, whose train_pairs know every row's passage, so that the reward can be grounded. Test queries of either set are left out.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from pathlib import Path
from typing import Any

from core.expansion.schema import Line, Row, write_rows
from core.settings import ROOT

SETS = {"medquad-qa": "en", "zhmedqa": "zh"}
#: how medquad's questions are asked -> keywords, other keywords, the same said otherwise, what an answer could say
ENGLISH: tuple[tuple[str, str, str, str, str], ...] = (
    (
        r"what are the symptoms of (.+)\?",
        "symptoms signs",
        "features frequency",
        "which signs and complaints do people with {} have",
        "People with {} may notice weakness, pain or fever, and the signs and symptoms vary with age.",
    ),
    (
        r"what are the treatments for (.+)\?",
        "treatment therapy",
        "medicines surgery",
        "how is {} treated and managed by doctors",
        "Treatment of {} depends on the symptoms and may include medicines, surgery and therapy.",
    ),
    (
        r"how many people are affected by (.+)\?",
        "prevalence frequency",
        "rare worldwide estimated",
        "how common is {} in the population",
        "The prevalence of {} is unknown, it is a rare condition that affects few people worldwide.",
    ),
    (
        r"what are the genetic changes related to (.+)\?",
        "gene mutation",
        "chromosome protein",
        "which gene mutations cause {}",
        "Mutations in a gene cause {}, because the protein that the gene makes is altered or missing.",
    ),
    (
        r"is (.+) inherited\?",
        "inheritance pattern",
        "autosomal recessive dominant",
        "how is {} passed on within a family",
        "{} is inherited in an autosomal pattern, which means that parents carry a copy of the mutated gene.",
    ),
    (
        r"what causes (.+)\?",
        "causes",
        "risk factors mutation",
        "why do some people get {}",
        "The cause of {} is often a change in a gene, an infection or damage that builds up over years.",
    ),
    (
        r"how to diagnose (.+)\?",
        "diagnosis tests",
        "exam blood imaging",
        "which tests show that someone has {}",
        "Doctors diagnose {} by a physical exam, blood tests and imaging, and ask about the family history.",
    ),
    (
        r"what is the outlook for (.+)\?",
        "prognosis outlook",
        "survival",
        "what can people with {} expect over time",
        "The outlook for people with {} depends on the severity of the disorder and on early treatment.",
    ),
    (
        r"what research .*being done for (.+)\?",
        "clinical trials research",
        "studies institute",
        "which studies look into {} now",
        "The institute supports research on {} and studies that aim at better treatment and prevention.",
    ),
    (
        r"what is \(are\) (.+)\?",
        "definition overview",
        "disorder characterized",
        "an overview of {} and what it does to the body",
        "{} is a disorder that affects the body, it is characterized by several signs from childhood on.",
    ),
)
#: words of a Chinese question -> as above
CHINESE: tuple[tuple[str, str, str, str, str], ...] = (
    (
        "吃什么|饮食|食物|能吃|可以吃",
        "饮食 食物",
        "清淡 蔬菜 忌口",
        "{}患者平时应该怎么吃比较好",
        "{}患者饮食应以清淡为主，多吃新鲜蔬菜水果，少吃辛辣刺激性食物，注意营养均衡。",
    ),
    ("遗传", "遗传", "家族史 基因", "{}会不会遗传给孩子", "{}有一定的遗传倾向，有家族史的人发病的机会比一般人高，但不是一定会得病。"),
    (
        "传染",
        "传染",
        "传播途径 接触",
        "{}会通过哪些途径传染给别人",
        "{}主要通过血液、母婴和密切接触传播，日常的一般接触通常不会传染，不必过于担心。",
    ),
    (
        "怀孕|孕妇|生育|孩子|小孩",
        "怀孕 孕妇",
        "胎儿 用药",
        "得了{}还能不能正常怀孕生孩子",
        "{}患者在病情控制稳定以后可以怀孕，孕期要在医生指导下用药，并且定期复查。",
    ),
    (
        "症状|表现|感觉",
        "症状 表现",
        "早期 头晕 乏力",
        "{}一般会有哪些症状表现",
        "{}的症状常见有乏力、头晕和食欲不振，早期的表现不明显，建议到医院做检查。",
    ),
    (
        "原因|为什么|怎么回事|引起|导致",
        "原因 引起",
        "诱因 因素",
        "为什么会得{}是什么引起的",
        "{}的原因比较多，与饮食、劳累、情绪和感染等因素有关，需要结合检查来判断。",
    ),
    (
        "治|药|办|好",
        "治疗 药物",
        "口服 复查 建议",
        "{}应该怎么治疗用什么药好",
        "{}的治疗以药物为主，建议在医生指导下口服药物，注意休息，并且定期到医院复查。",
    ),
    ("", "检查 诊断", "建议 医院 情况", "{}需要做哪些检查才能确定", "根据你的情况，{}建议到正规医院做详细的检查，明确诊断以后再进行治疗。"),
)
#: what a Chinese question is mostly about in these sets
NAMES = re.compile(
    "乙肝小三阳|乙肝大三阳|大三阳|小三阳|乙肝病毒携带者|乙肝病毒|乙肝疫苗|乙肝|脂肪肝|肝硬化|酒精肝|甲肝|丙肝|癫痫病|癫痫|羊癫疯|羊角风|高血压|低血压"
    "|糖尿病|冠心病|心脏病|心律不齐|早搏|胃炎|慢性胃炎|胃溃疡|胃病|肠炎|结肠炎|便秘|腹泻|感冒|发烧|肺炎|支气管炎|哮喘|咳嗽|脑梗|脑出血|中风|贫血|甲亢"
    "|甲减|肾炎|痛风|头痛|头晕|失眠|抽搐|胃痛|反流性食管炎|食管炎|幽门螺旋杆菌|幽门螺杆菌|白血病|血糖|血压|肝功能"
)


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def english(query: str) -> list[Line] | None:
    """None for a question of no known pattern."""
    for pattern, keys, more, vec, hyde in ENGLISH:
        if (m := re.fullmatch(pattern, query.strip().lower())) is not None:
            return filled(re.sub(r"\s*\(.*?\)", "", m[1]).strip(), keys, more, vec, hyde)
    return None


def chinese(query: str) -> list[Line] | None:
    """None for a question that names nothing we know."""
    name = NAMES.search(query)
    if name is None:
        return None
    rest = query.replace(name[0], "")
    return next(filled(name[0], keys, more, vec, hyde) for words, keys, more, vec, hyde in CHINESE if re.search(words, rest))


def filled(name: str, keys: str, more: str, vec: str, hyde: str) -> list[Line]:
    return [Line("lex", f"{name} {keys}"), Line("lex", f"{name} {more}"), Line("vec", vec.format(name)), Line("hyde", hyde.format(name))]


def build(data: Path, out: Path, num: int, distractors: int, share: float) -> dict[str, int]:
    """Write everything; returns counts."""
    rng = random.Random(0)
    rows: list[Row] = []
    corpus: dict[str, str] = {}
    pairs: list[dict[str, str]] = []
    for name, language in SETS.items():
        documents = {d["_id"]: d["text"] for d in read(data / name / "corpus.jsonl.gz")}
        test = {json.loads(line)["text"] for line in (data / name / "queries.jsonl").read_text(encoding="utf-8").splitlines()}
        train = [p for p in read(data / name / "train_pairs.jsonl.gz") if p["query"] not in test and p["pos"] in documents]
        once = list({p["query"]: p for p in train}.values())
        rng.shuffle(once)
        made = 0
        for p in once:
            query, text = p["query"].strip(), documents[p["pos"]]
            lines = english(query) if language == "en" else chinese(query)
            if lines is None or made == num:
                continue
            made += 1
            if rng.random() < share:
                lines = lines[:1]
            key = f"{language}-{p['pos']}"
            corpus[key] = text
            pairs.append({"query": query, "pos": key})
            rows.append(Row(query, tuple(lines), language, key, name, len(rows) + 1))
        for d in rng.sample(sorted(documents), min(distractors, len(documents))):
            corpus.setdefault(f"{language}-{d}", documents[d])
    out.joinpath("corpus").mkdir(parents=True, exist_ok=True)
    write_rows(out / "rows.jsonl", rows)
    dump(out / "corpus" / "corpus.jsonl", [{"_id": i, "title": "", "text": text} for i, text in corpus.items()])
    dump(out / "corpus" / "train_pairs.jsonl", pairs)
    # the format wants judged test questions; these stand in no row
    first = {language: next(p for p in pairs if p["pos"].startswith(language)) for language in SETS.values()}
    dump(out / "corpus" / "queries.jsonl", [{"_id": f"q-{k}", "text": f"{p['query']} #"} for k, p in first.items()])
    qrels = [f"q-{k}\t{p['pos']}\t1" for k, p in first.items()]
    (out / "corpus" / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(qrels) + "\n", encoding="utf-8")
    return {"rows": len(rows), "passages": len(corpus)}


def dump(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--num", type=int, default=800, help="rows of each language")
    parser.add_argument("--distractors", type=int, default=800, help="other passages of each language")
    parser.add_argument("--lazy", type=float, default=0.6, help="share of poor rows")
    options = parser.parse_args()
    print(build(options.data, options.out, options.num, options.distractors, options.lazy))


if __name__ == "__main__":
    main()
