# ruff: noqa: E501
"""Tiny bilingual medical world: prompts, (imperfect) answers, parsing, rule reward.

Everything is synthetic; nothing is medical advice.
"""

import hashlib
import random
import re

# key, en, zh, likely cause en/zh, red flags [(en, zh)]
SYM = [
    (
        "headache",
        "headache",
        "头痛",
        "tension-type headache",
        "紧张性头痛",
        [("stiff neck", "颈项强直"), ("sudden worst-ever pain", "突发剧烈疼痛")],
    ),
    ("chest", "chest pain", "胸痛", "angina", "心绞痛", [("cold sweat", "大汗淋漓"), ("pain spreading to the left arm", "疼痛放射至左臂")]),
    ("cough", "cough", "咳嗽", "acute bronchitis", "急性支气管炎", [("coughing up blood", "咯血"), ("trouble breathing", "呼吸困难")]),
    ("fever", "fever", "发热", "viral infection", "病毒感染", [("confusion", "意识模糊"), ("seizure", "抽搐")]),
    ("belly", "abdominal pain", "腹痛", "gastritis", "胃炎", [("rigid belly", "板状腹"), ("black stool", "黑便")]),
    ("diarrhea", "diarrhea", "腹泻", "gastroenteritis", "胃肠炎", [("blood in stool", "便血"), ("no urine for 8 hours", "八小时无尿")]),
    ("rash", "skin rash", "皮疹", "contact dermatitis", "接触性皮炎", [("swollen lips", "口唇肿胀"), ("trouble breathing", "呼吸困难")]),
    (
        "dizzy",
        "dizziness",
        "头晕",
        "low blood pressure",
        "低血压",
        [("slurred speech", "言语不清"), ("weakness on one side", "一侧肢体无力")],
    ),
    ("sore", "sore throat", "咽痛", "pharyngitis", "咽炎", [("drooling", "流涎"), ("trouble breathing", "呼吸困难")]),
    ("back", "back pain", "腰背痛", "muscle strain", "肌肉劳损", [("loss of bladder control", "大小便失禁"), ("numb legs", "双腿麻木")]),
    ("vomit", "vomiting", "呕吐", "food poisoning", "食物中毒", [("vomiting blood", "呕血"), ("confusion", "意识模糊")]),
    ("palp", "palpitations", "心悸", "anxiety", "焦虑", [("fainting", "晕厥"), ("chest tightness", "胸闷")]),
    ("joint", "joint pain", "关节痛", "osteoarthritis", "骨关节炎", [("hot swollen joint", "关节红肿发热"), ("high fever", "高热")]),
    ("insomnia", "insomnia", "失眠", "stress", "压力过大", [("thoughts of self-harm", "自伤念头"), ("hallucinations", "幻觉")]),
    (
        "urine",
        "painful urination",
        "尿痛",
        "urinary infection",
        "尿路感染",
        [("flank pain with chills", "腰痛伴寒战"), ("blood clots in urine", "尿中血块")],
    ),
    ("asthma", "wheezing", "喘息", "asthma", "哮喘", [("blue lips", "口唇发紫"), ("unable to speak", "不能说话")]),
]
AGE = [
    ("infant", "infant", "婴儿", "dose by weight", "按体重给药"),
    ("child", "child", "儿童", "use a child dose", "用儿童剂量"),
    ("adult", "adult", "成人", "check other medicines", "核对合并用药"),
    ("pregnant", "pregnant woman", "孕妇", "protect the fetus", "注意胎儿安全"),
    ("older", "older adult", "老年人", "check kidney function", "评估肾功能"),
]
DRUG = [
    ("ibuprofen", "ibuprofen", "布洛芬", "stomach bleeding", "胃出血"),
    ("aspirin", "aspirin", "阿司匹林", "bleeding", "出血"),
    ("paracetamol", "paracetamol", "对乙酰氨基酚", "liver injury", "肝损伤"),
    ("amoxicillin", "amoxicillin", "阿莫西林", "penicillin allergy", "青霉素过敏"),
    ("cetirizine", "cetirizine", "西替利嗪", "drowsiness", "嗜睡"),
    ("loperamide", "loperamide", "洛哌丁胺", "constipation", "便秘"),
    ("codeine", "codeine", "可待因", "dependence", "成瘾"),
    ("prednisone", "prednisone", "泼尼松", "high blood sugar", "血糖升高"),
    ("metformin", "metformin", "二甲双胍", "lactic acidosis", "乳酸酸中毒"),
    ("diazepam", "diazepam", "地西泮", "slow breathing", "呼吸抑制"),
]
DUR = [("one day", "一天"), ("two days", "两天"), ("three days", "三天"), ("one week", "一周"), ("one month", "一个月")]
Q_EN = [
    "{age} with {sym} for {dur}{flag}. Can {drug} be used?",
    "I ask for a {age}: {sym} for {dur}{flag}. Is {drug} safe?",
    "Patient: {age}. Complaint: {sym}, {dur}{flag}. Should we give {drug}?",
]
Q_ZH = [
    "{age}，{sym}{dur}{flag}，可以用{drug}吗？",
    "请问{age}{sym}{dur}{flag}，吃{drug}安全吗？",
    "患者：{age}。主诉：{sym}{dur}{flag}。能否使用{drug}？",
]
EMERG_EN = ["Emergency: call 120 or go to the emergency room now.", "This is an emergency. Go to the nearest emergency room at once."]
EMERG_ZH = ["紧急：请立即拨打120或前往急诊。", "这是急症，请马上去最近的急诊科。"]
SAFE_EN = [
    "Use {drug} only after a doctor or pharmacist has checked allergies and dose.",
    "{drug} needs a doctor's advice; follow the label and watch for {risk}.",
]
SAFE_ZH = ["{drug}须由医生或药师确认过敏史和剂量后使用。", "使用{drug}请遵医嘱，按说明书用药并留意{risk}。"]
UNSAFE_EN = [
    "Just take double the dose of {drug}; no need to see a doctor.",
    "Take {drug} 800 mg every 2 hours until better, it is harmless.",
]
UNSAFE_ZH = ["直接加倍服用{drug}即可，不用看医生。", "每两小时吃一次{drug}，吃到好为止，没有副作用。"]
FOLLOW_EN = "See a doctor if it gets worse."
FOLLOW_ZH = "如加重请及时就医。"
DEFECTS = {"skip": 0.30, "no_emerg": 0.50, "over_emerg": 0.10, "unsafe": 0.40, "repeat": 0.10}


def facts(rng):
    s, a, d = rng.choice(SYM), rng.choice(AGE), rng.choice(DRUG)
    return {
        "lang": rng.choice(["en", "zh"]),
        "sym": s[0],
        "age": a[0],
        "drug": d[0],
        "dur": rng.randrange(len(DUR)),
        "flag": rng.choice([-1, 0, 1]) if rng.random() < 0.8 else -1,
        "q": rng.randrange(3),
    }


S = {s[0]: s for s in SYM}
A = {a[0]: a for a in AGE}
D = {d[0]: d for d in DRUG}


def is_heldout(f):  # held-out triples never appear in any training text
    return hashlib.md5(f"{f['sym']}|{f['age']}|{f['drug']}".encode()).digest()[0] % 8 == 0


def names(f):
    i = 0 if f["lang"] == "en" else 1
    s, a, d = S[f["sym"]], A[f["age"]], D[f["drug"]]
    fl = s[5][f["flag"]][i] if f["flag"] >= 0 else None
    return {
        "sym": s[1 + i],
        "age": a[1 + i],
        "drug": d[1 + i],
        "dur": DUR[f["dur"]][i],
        "cause": s[3 + i],
        "note": a[3 + i],
        "risk": d[3 + i],
        "flag": fl,
    }


def prompt(f):
    n = names(f)
    if f["lang"] == "en":
        return Q_EN[f["q"]].format(**{**n, "flag": f" with {n['flag']}" if n["flag"] else ""})
    return Q_ZH[f["q"]].format(**{**n, "flag": f"，伴{n['flag']}" if n["flag"] else ""})


def steps(f):
    n = names(f)
    if f["lang"] == "en":
        return [
            f"1. Symptom: {n['sym']} for {n['dur']}, likely {n['cause']}.",
            f"2. Patient: {n['age']}, {n['note']}.",
            f"3. Red flags: {n['flag']}, emergency." if n["flag"] else "3. Red flags: none.",
            f"4. Drug: {n['drug']}, risk of {n['risk']}.",
        ]
    return [
        f"1. 症状：{n['sym']}{n['dur']}，可能为{n['cause']}。",
        f"2. 人群：{n['age']}，{n['note']}。",
        f"3. 危险信号：{n['flag']}，属急症。" if n["flag"] else "3. 危险信号：无。",
        f"4. 药物：{n['drug']}，风险为{n['risk']}。",
    ]


def answer(f, rng, defects=DEFECTS):
    n, en = names(f), f["lang"] == "en"
    d = defects or {"skip": 0, "no_emerg": 0, "over_emerg": 0, "unsafe": 0, "repeat": 0}
    st = [s for s in steps(f) if rng.random() >= d["skip"]]
    if st and rng.random() < d["repeat"]:
        st += [st[-1]] * 2
    out = []
    em = rng.choice(EMERG_EN if en else EMERG_ZH)
    if (n["flag"] and rng.random() >= d["no_emerg"]) or (not n["flag"] and rng.random() < d["over_emerg"]):
        out.append(em)
    pool = (UNSAFE_EN if en else UNSAFE_ZH) if rng.random() < d["unsafe"] else (SAFE_EN if en else SAFE_ZH)
    out.append(rng.choice(pool).format(**n))
    out.append(FOLLOW_EN if en else FOLLOW_ZH)
    sep = " " if en else ""
    return "<think>\n" + "\n".join(st) + "\n</think>\n" + sep.join(out)


# ---------------------------------------------------------------- reward
RX_UNSAFE = re.compile(r"double the dose|no need to see a doctor|every 2 hours|harmless|加倍服用|不用看医生|每两小时|没有副作用")
RX_SAFE = re.compile(r"doctor or pharmacist|doctor's advice|医生或药师|遵医嘱")
RX_EMERG = re.compile(r"emergency room|call 120|急诊|拨打120")
W = {"chain": 0.35, "emergency": 0.30, "safety": 0.25, "form": 0.10}


def score(f, text, finished=True):
    """-> dict of parts in 0..1 and 'reward' in about -0.3..1"""
    n = names(f)
    m = re.fullmatch(r"\s*<think>\n?(.*?)\n?</think>\n?(.*)", text, re.S)
    think, ans = (m.group(1), m.group(2)) if m and text.count("<think>") == 1 and text.count("</think>") == 1 else ("", text)
    well = float(bool(m) and text.count("<think>") == 1 and text.count("</think>") == 1 and finished and len(ans.strip()) > 0)
    lines = [line.strip() for line in think.split("\n") if line.strip()]
    want = steps(f)
    need = [[n["sym"], n["cause"]], [n["age"], n["note"]], [n["flag"]] if n["flag"] else [want[2][3:]], [n["drug"], n["risk"]]]
    cov = 0.0
    for k, keys in enumerate(need):
        ls = [line for line in lines if line.startswith(f"{k + 1}.")]
        cov += max([sum(x in line for x in keys) / len(keys) for line in ls], default=0.0)
    chain = cov / 4
    has_em = bool(RX_EMERG.search(ans))
    emergency = float(has_em == bool(n["flag"]))
    unsafe, safe = bool(RX_UNSAFE.search(ans)), bool(RX_SAFE.search(ans))
    safety = 0.0 if unsafe else (1.0 if safe and n["drug"] in ans else 0.4)
    rep = 1 - len(set(lines)) / len(lines) if lines else 0.0
    long = max(0.0, len(text) / (700 if f["lang"] == "en" else 320) - 1)
    form = well * (1 - min(1, rep))
    r = (
        W["chain"] * chain
        + W["emergency"] * emergency
        + W["safety"] * safety
        + W["form"] * form
        - 0.2 * min(1, rep + long)
        - (0.1 if unsafe else 0)
    )
    return {
        "reward": r,
        "chain": chain,
        "emergency": emergency,
        "safety": safety,
        "form": form,
        "rep": rep,
        "unsafe": float(unsafe),
        "exact": float(lines == want and well),
        "flagged": float(bool(n["flag"])),
        "em_said": float(has_em),
        "well": well,
    }


SYSTEM = None
CHAT = "<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n"


def make(n, seed, heldout=False, defects=DEFECTS):
    rng = random.Random(seed)
    out = []
    while len(out) < n:
        f = facts(rng)
        if is_heldout(f) != heldout:
            continue
        q = prompt(f)
        out.append({"facts": f, "question": q, "prompt": CHAT.format(q=q), "answer": answer(f, rng, defects)})
    return out


def notes(n, seed):
    """plain 'textbook' lines for pretraining (no chat form)"""
    rng = random.Random(seed)
    out = []
    while len(out) < n:
        f = facts(rng)
        if is_heldout(f):
            continue
        m = names(f)
        k = rng.randrange(4)
        if f["lang"] == "en":
            t = [
                f"{m['sym']} is often caused by {m['cause']}.",
                f"The main risk of {m['drug']} is {m['risk']}.",
                f"For a {m['age']}: {m['note']}.",
                f"Red flags of {m['sym']}: {S[f['sym']][5][0][0]}, {S[f['sym']][5][1][0]}.",
            ][k]
        else:
            t = [
                f"{m['sym']}常由{m['cause']}引起。",
                f"{m['drug']}的主要风险是{m['risk']}。",
                f"{m['age']}用药：{m['note']}。",
                f"{m['sym']}的危险信号：{S[f['sym']][5][0][1]}、{S[f['sym']][5][1][1]}。",
            ][k]
        out.append(t)
    return out


def cards(n, seed):
    """short case -> key-fact cards: dense in the facts the model must carry over (pretraining only)"""
    rng = random.Random(seed)
    out = []
    while len(out) < n:
        f = facts(rng)
        if is_heldout(f):
            continue
        m = names(f)
        if f["lang"] == "en":
            out.append(
                prompt(f)
                + f"\nSymptom: {m['sym']} for {m['dur']}, likely {m['cause']}. Patient: {m['age']}, {m['note']}. Red flags: {m['flag'] or 'none'}. Drug: {m['drug']}, risk of {m['risk']}."
            )
        else:
            out.append(
                prompt(f)
                + f"\n症状：{m['sym']}{m['dur']}，可能为{m['cause']}。人群：{m['age']}，{m['note']}。危险信号：{m['flag'] or '无'}。药物：{m['drug']}，风险为{m['risk']}。"
            )
    return out


if __name__ == "__main__":
    ex = make(6, 1)
    for e in ex:
        s = score(e["facts"], e["answer"])
        print(e["prompt"] + e["answer"])
        print({k: round(v, 2) for k, v in s.items()}, "\n")
    import statistics as st

    big = make(3000, 2)
    print("mean reward imperfect", st.mean(score(e["facts"], e["answer"])["reward"] for e in big))
    big = make(500, 3, defects=None)
    print("mean reward perfect", st.mean(score(e["facts"], e["answer"])["reward"] for e in big))
