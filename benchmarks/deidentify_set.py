"""The seeded evaluation set of de-identification: medical sentences with planted identifiers, and hard negatives.

`make(part, seed, num)` gives the same texts for the same arguments on any machine. Templates stand in
assets/deidentify/templates.toml; values are made here, apart from the recognisers' word list: half of the English names and part
of the Chinese characters stand nowhere in it, so that recall on names is not a list looked up. Nobody in it exists.
`python -m benchmarks.deidentify_set --part test > set.jsonl` writes it as JSONL.
"""

# ruff: noqa: E501 - a pattern or a list of names broken over lines is not read more easily

from __future__ import annotations

import argparse
import json
import random
import re
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

from core.deidentify.checksums import PROVINCES, id_card_digit, luhn_digit, nhs_digit

TEMPLATES = Path(__file__).resolve().parents[1] / "assets" / "deidentify" / "templates.toml"
SLOT = re.compile(r"\{(\w+)\}|<(\w+)>")
#: the twenty commonest surnames carry half the population; the rest are drawn evenly
COMMON = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗"
RARE = ["梁", "宋", "郑", "谢", "韩", "唐", "冯", "邓", "曹", "彭", "曾", "肖", "田", "董", "袁", "潘", "蒋", "蔡", "余", "杜", "叶", "程", "苏", "魏", "吕", "丁", "任", "沈", "姚", "卢", "姜", "崔", "钟", "谭", "陆", "汪", "范", "金", "石", "廖", "贾", "夏", "韦", "付", "方", "白", "邹", "孟", "熊", "秦", "欧阳", "司马", "上官", "诸葛", "芮", "蒲", "麦", "花", "郗", "亢", "鹿"]  # fmt: skip
#: characters of given names as statistics of the registry name them, and a tail of unusual ones
GIVEN = "伟芳娜敏静秀丽强磊洋艳勇军杰娟涛超明霞平刚英华慧建文玲桂红梅兰燕鑫宇浩轩然涵欣怡子梓诗雨泽晨佳琪思睿博雅婷俊峰鹏飞凯丹莉晶蕾雪倩颖洁琳晓辉志国永春海荣福祥贵根生宝金银水木云龙凤珍淑玉爱菊香月巧琴"
UNUSUAL = "祎翀赟垠旎皛勍骁笛澍樾砚篪穗禾麦朵果可乐糖米豆豌钰沅沁沛湉湫筱箐"
FIRST_EN = ["James", "Mary", "Robert", "Linda", "David", "Susan", "Karen", "Thomas", "Sarah", "Daniel", "Emily", "George", "Helen", "Peter", "Laura", "Anna", "Jack", "Olivia", "Grace", "Hannah", "Keira", "Thandiwe", "Oluwaseun", "Siobhan", "Bjorn", "Anneliese", "Deshawn", "Xiomara", "Ravindra", "Zainab", "Lorcan", "Tamsin", "Ezekiel", "Marguerite", "Cormac", "Ottilie", "Rosalind", "Thaddeus", "Imani", "Kwabena"]  # fmt: skip
LAST_EN = ["Smith", "Johnson", "Brown", "Taylor", "Wilson", "Evans", "Walker", "Wright", "Hughes", "Patel", "Nguyen", "Garcia", "Kowalczyk", "Abernathy", "Okonkwo", "Fitzgerald", "Lindqvist", "Macpherson", "O'Donnell", "Castellanos", "Haverford", "Blackwood", "Thistlewood", "Venkataraman", "Pemberton", "Nakamura", "Szabo", "De Luca", "Achterberg", "Quigley", "Smith-Jones", "McAllister", "Adeyemi", "Farrow", "Delacroix"]  # fmt: skip
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]


@dataclass(frozen=True, slots=True)
class Case:
    """One text and what must be found in it: (start, end, kind), and where the words of persons that it must not hide are none."""

    text: str
    language: str
    spans: list[tuple[int, int, str]]


class Maker:
    """Values for slots, by one random number generator."""

    def __init__(self, rng: random.Random, language: str) -> None:
        self.rng, self.is_zh = rng, language == "zh"

    def make(self, slot: str) -> str:
        made: str = getattr(self, f"_{slot}")()
        return made

    def _pick(self, *choices: Callable[[], str] | str) -> str:
        chosen = self.rng.choice(choices)
        return chosen if isinstance(chosen, str) else chosen()

    def _digits(self, num: int) -> str:
        return "".join(str(self.rng.randrange(10)) for _ in range(num))

    def _name(self) -> str:
        rng = self.rng
        if not self.is_zh:
            first, last = rng.choice(FIRST_EN), rng.choice(LAST_EN)
            return f"{first} {rng.choice('ABCDEFGHJKLMRSTW')}. {last}" if rng.random() < 0.15 else f"{first} {last}"
        surname = rng.choice(COMMON) if rng.random() < 0.55 else rng.choice(RARE)
        given = "".join(rng.choice(UNUSUAL if rng.random() < 0.08 else GIVEN) for _ in range(1 if rng.random() < 0.25 else 2))
        return surname + given

    def _id_card(self) -> str:
        born = date(1935, 1, 1) + timedelta(days=self.rng.randrange(29_000))
        body = f"{self.rng.choice(sorted(PROVINCES - {'71', '81', '82', '83'}))}{self.rng.randrange(1, 30):02d}{self.rng.randrange(1, 30):02d}{born:%Y%m%d}{self._digits(3)}"
        full = body + id_card_digit(body)
        return f"{full[:6]} {full[6:14]} {full[14:]}" if self.rng.random() < 0.1 else full.lower() if self.rng.random() < 0.3 else full

    def _mobile(self) -> str:
        number = f"1{self.rng.choice('3456789')}{self._digits(9)}"
        form = self.rng.choice(["{0}{1}{2}", "{0}{1}{2}", "{0}{1}{2}", "{0} {1} {2}", "{0}-{1}-{2}", "+86 {0}{1}{2}", "+86-{0}-{1}-{2}"])
        text = form.format(number[:3], number[3:7], number[7:])
        return text.translate(str.maketrans("0123456789", "０１２３４５６７８９")) if self.rng.random() < 0.05 else text

    def _landline(self) -> str:
        rng = self.rng
        if self.is_zh:
            area = rng.choice(["010", "021", "022", "028", "0755", "0531", "0371", "0571", "0591", "0871"])
            number = str(rng.randrange(2, 9)) + self._digits(7)
            return self._pick(f"{area}-{number}", f"({area}){number}", f"{area} {number}", f"{area}-{number}转{rng.randrange(100, 9000)}")
        area, mid, last = f"{rng.randrange(2, 10)}{self._digits(2)}", f"{rng.randrange(2, 10)}{self._digits(2)}", self._digits(4)
        while re.fullmatch(r"8(00|33|44|55|66|77|88)", area):
            area = f"{rng.randrange(2, 8)}{self._digits(2)}"
        uk = self._pick(f"020 7{self._digits(3)} {last}", f"07{self._digits(3)} {self._digits(6)}", f"+44 20 7{self._digits(3)} {last}")
        return self._pick(f"({area}) {mid}-{last}", f"{area}-{mid}-{last}", f"{area}.{mid}.{last}", f"+1 {area} {mid} {last}", uk)

    def _record_number(self) -> str:
        rng = self.rng
        letters = "".join(rng.choice("ABCDEGHKLMNPRSTXYZ") for _ in range(rng.choice([0, 0, 1, 2])))
        return letters + self._digits(rng.randrange(5, 11))

    def _email(self) -> str:
        rng = self.rng
        name = self._pick(
            "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randrange(3, 10))), "li.wei", "mary_k", "dr-chen"
        )
        return f"{name}{self._digits(rng.choice([0, 2, 4]))}@{rng.choice(['qq.com', '163.com', 'gmail.com', 'nhs.net', 'hospital.org.cn', 'outlook.co.uk'])}"

    def _bank_card(self) -> str:
        start, length = self.rng.choice(
            [("6222", 19), ("6217", 19), ("6228", 19), ("6225", 16)] if self.is_zh else [("4", 16), ("52", 16), ("55", 16), ("4", 16)]
        )
        body = start + self._digits(length - 1 - len(start))
        full = body + luhn_digit(body)
        return " ".join(full[i : i + 4] for i in range(0, length, 4)) if self.rng.random() < 0.4 else full

    def _plate(self) -> str:
        rng, letters = self.rng, "ABCDEFGHJKLMNPQRSTUVWXYZ"
        if self.is_zh:
            head = rng.choice("京沪粤苏浙鲁豫川鄂湘皖冀") + rng.choice("ABCDEFG")
            tail = self._pick(
                self._digits(5),
                rng.choice(letters) + self._digits(4),
                rng.choice("DF") + self._digits(5),
                self._digits(2) + rng.choice(letters) + self._digits(2),
            )
            return head + rng.choice(["", "", "·"]) + tail
        return f"{rng.choice('12345678')}{''.join(rng.choice(letters) for _ in range(3))}{self._digits(3)}"

    def _ssn(self) -> str:
        return f"{self.rng.randrange(1, 666):03d}-{self.rng.randrange(1, 100):02d}-{self.rng.randrange(1, 10_000):04d}"

    def _nhs_number(self) -> str:
        while (last := nhs_digit(body := str(self.rng.randrange(4, 8)) + self._digits(8))) is None:
            continue
        full = body + last
        return f"{full[:3]} {full[3:6]} {full[6:]}" if self.rng.random() < 0.7 else full

    def _day(self, first: int, num_days: int) -> str:
        day = date(first, 1, 1) + timedelta(days=self.rng.randrange(num_days))
        if self.is_zh:
            return self._pick(
                f"{day.year}年{day.month}月{day.day}日",
                f"{day.year}年{day.month:02d}月{day.day:02d}日",
                f"{day:%Y-%m-%d}",
                f"{day.year}.{day.month}.{day.day}",
                f"{day:%Y/%m/%d}",
            )
        month = MONTHS[day.month - 1]
        return self._pick(
            f"{month} {day.day}, {day.year}",
            f"{day.day} {month} {day.year}",
            f"{day:%m/%d/%Y}",
            f"{day:%Y-%m-%d}",
            f"{month[:3]} {day.day}, {day.year}",
        )

    def _date(self) -> str:
        return self._day(2015, 3800)

    def _birth_date(self) -> str:
        return self._day(1938, 29_000)

    def _guideline_date(self) -> str:
        return self._day(2008, 6000)

    def _address(self) -> str:
        rng = self.rng
        if not self.is_zh:
            street = f"{rng.randrange(1, 9900)} {rng.choice(['Maple', 'Oak Hill', 'Kingsway', 'Saint Anne', 'Fernleigh', 'Old Mill', 'W. Harrison'])} {rng.choice(['Street', 'St', 'Avenue', 'Road', 'Rd', 'Lane', 'Drive', 'Close', 'Blvd'])}"
            return self._pick(
                street,
                f"{street}, Apt {rng.randrange(1, 90)}",
                f"{street}, Springfield, IL 6{self._digits(4)}",
                f"{street}, Leeds LS{rng.randrange(1, 9)} {rng.randrange(1, 9)}AB",
                f"{street}, Portland, OR",
            )
        city = rng.choice(
            [
                "北京市朝阳区",
                "上海市浦东新区",
                "广东省深圳市南山区",
                "河南省郑州市金水区",
                "四川省成都市武侯区",
                "浙江省杭州市西湖区",
                "江苏省南通市崇川区",
                "长沙市岳麓区",
                "济南市历下区",
            ]
        )
        road = rng.choice(["建设路", "人民东路", "文三路", "中山大道", "解放北路", "科技街", "和平里大街", "幸福巷"])
        house = rng.choice(["阳光花园", "锦绣苑", "翠湖小区", "学府家园", "书香名邸小区"])
        unit = f"{rng.randrange(1, 40)}号楼{rng.randrange(1, 6)}单元{rng.randrange(101, 2800)}室"
        return self._pick(
            f"{city}{road}{rng.randrange(1, 900)}号",
            f"{city}{road}{rng.randrange(1, 900)}号{house}{unit}",
            f"{city}{house}{unit}",
            f"{road}{rng.randrange(1, 900)}弄{rng.randrange(1, 90)}号{rng.randrange(101, 1900)}室",
            f"山东省曹县青堌集镇{rng.choice(['王', '刘', '前李'])}庄村{rng.randrange(1, 12)}组",
        )

    def _lab(self) -> str:
        return self._pick(f"{self.rng.uniform(0.1, 30):.2f}", f"{self.rng.randrange(20, 900)}", f"{self.rng.uniform(1, 20):.1f}")

    def _dose(self) -> str:
        return self._pick(
            f"{self.rng.choice([5, 10, 20, 25, 50, 500, 850])} mg",
            f"{self.rng.choice([5, 10, 30, 250])}mg",
            f"{self.rng.uniform(0.1, 2):.1f}g",
        )

    def _bp(self) -> str:
        return f"{self.rng.randrange(100, 190)}/{self.rng.randrange(55, 110)}"

    def _lot(self) -> str:
        return self._pick(self._digits(8), self._digits(11), f"{self.rng.choice('ABKLT')}{self._digits(7)}", f"20{self._digits(6)}")

    def _drug_code(self) -> str:
        return f"20{self._digits(6)}"

    def _trial(self) -> str:
        return self._digits(8)

    def _pmid(self) -> str:
        return self._digits(8)

    def _ndc(self) -> str:
        return f"{self._digits(5)}-{self._digits(4)}-{self._digits(2)}"


def make(part: str, seed: int, num: int) -> list[Case]:
    """`num` texts of each of zh and en with identifiers, and half as many hard negatives. `part` is dev or test."""
    templates = tomllib.loads(TEMPLATES.read_text(encoding="utf-8"))[part]
    cases = []
    for language in ("zh", "en"):
        maker = Maker(random.Random(f"{part}/{seed}/{language}"), language)
        for group, count in ((language, num), (f"{language}_negative", num // 2)):
            cases += [_fill(templates[group][i % len(templates[group])], maker, language) for i in range(count)]
    return cases


def _fill(template: str, maker: Maker, language: str) -> Case:
    text, at, spans = "", 0, []
    for match in SLOT.finditer(template):
        text += template[at : match.start()]
        value = maker.make(match.group(1) or match.group(2))
        if match.group(1):
            spans.append((len(text), len(text) + len(value), match.group(1)))
        text += value
        at = match.end()
    return Case(text + template[at:], language, spans)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("dev", "test"), default="test")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--num", type=int, default=2000)
    options = parser.parse_args()
    for case in make(options.part, options.seed, options.num):
        print(json.dumps(asdict(case), ensure_ascii=False))
