"""The demo world: enough of it, sourced, bilingual, deterministic, nothing held out leaks, references keep their own promises."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from core.completions import split_completion
from core.datasets import NewSample
from core.demo_world import Defects, World, case_of, load_world, phrases, pretraining_texts, prompts, sft_answer, world_terms
from core.demo_world.cases import QUESTIONS
from core.demo_world.world import Verdict, split_of
from core.records import Language, Risk, Split

NO_DEFECTS = Defects(0, 0, 0, 0, 0)


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture(scope="module")
def samples(world: World) -> list[NewSample]:
    return prompts(world, seed=0)


def of_split(samples: list[NewSample], *splits: Split) -> list[NewSample]:
    return [s for s in samples if s.split in splits]


def combination(sample: NewSample) -> tuple[str, str, str]:
    return sample.meta["condition"], sample.meta["population"], sample.meta["drug"]


def test_the_world_is_large_enough_and_every_fact_has_a_source(world: World) -> None:
    assert len(world.conditions) >= 64
    assert len(world.drugs) >= 24
    assert {c.category for c in world.conditions.values()} == set(world.categories)
    for condition in world.conditions.values():
        assert len(condition.red_flags) >= 2, condition.id
        assert len({flag.sign for flag in condition.red_flags}) == len(condition.red_flags), condition.id
        assert condition.risks, condition.id
        assert 2 <= len(condition.symptoms) <= 4, condition.id
    for entry in (*world.conditions.values(), *world.drugs.values(), *world.populations.values()):
        assert entry.source, entry.id
        assert not any("http" in line or "doi" in line.lower() for line in entry.source), entry.id


@pytest.mark.parametrize("language", list(Language))
def test_a_complaint_points_to_one_condition(world: World, language: Language) -> None:
    """The prompt names the complaint only: two conditions with one complaint could not be told apart."""
    for words in ([c.complaint for c in world.conditions.values()], [c.name for c in world.conditions.values()]):
        assert len({w.of(language) for w in words}) == len(world.conditions)


def test_both_languages_are_what_they_say(world: World, samples: list[NewSample]) -> None:
    """No Chinese in English prompts, no English words in Chinese ones but for names such as COVID-19 and INR."""
    chinese = re.compile(r"[\u4e00-\u9fff]")
    for sample in samples:
        text = f"{sample.text} {sample.reference}".replace("<think>", "").replace("</think>", "")
        if sample.language is Language.EN:
            assert not chinese.search(text), text
        else:
            assert chinese.search(text)
            assert set(re.findall(r"[A-Za-z]{3,}", text)) <= {"INR"}, text


def test_how_many_prompts_and_of_which_risk_and_language(samples: list[NewSample]) -> None:
    counts = Counter(s.split for s in samples)
    assert counts[Split.TRAIN] >= 1500
    assert counts[Split.DEV] >= 200
    assert counts[Split.TEST] >= 200
    assert counts[Split.GOLD] >= 60
    assert counts[Split.RED_TEAM] >= 60
    for split in Split:
        part = of_split(samples, split)
        assert len({s.content_hash for s in part}) == len(part)
        zh = sum(s.language is Language.ZH for s in part) / len(part)
        assert 0.45 <= zh <= 0.55
    train = of_split(samples, Split.TRAIN)
    assert 0.4 <= sum(s.risk is Risk.HIGH for s in train) / len(train) <= 0.8
    assert 0.3 <= sum(bool(s.meta["danger_signs"]) for s in train) / len(train) <= 0.6, "both kinds must be learnable"
    assert {s.category for s in train} == {s.category for s in of_split(samples, Split.TEST)}


def test_every_condition_drug_and_population_is_trained_on(world: World, samples: list[NewSample]) -> None:
    train = [combination(s) for s in of_split(samples, Split.TRAIN)]
    asked = world.combinations()
    assert {c for c, _, _ in train} == {c for c, _, _ in asked}
    assert {p for _, p, _ in train} == set(world.populations)
    assert {d for _, _, d in train} == {d for _, _, d in asked}
    assert len({c for c, _, _ in asked}) >= 60
    assert len({d for _, _, d in asked}) >= 24
    assert not world.documents_only & {word for combination in asked for word in combination}


def test_the_same_seed_gives_the_same_texts_and_another_seed_others(world: World, samples: list[NewSample]) -> None:
    again = prompts(world, seed=0)
    assert [(s.text, s.reference, s.meta) for s in again] == [(s.text, s.reference, s.meta) for s in samples]
    other = {s.text for s in of_split(prompts(world, seed=1), Split.TRAIN)}
    assert other != {s.text for s in of_split(samples, Split.TRAIN)}
    assert pretraining_texts(world, 50, 3) == pretraining_texts(world, 50, 3) != pretraining_texts(world, 50, 4)
    sample = samples[0]
    assert sft_answer(world, sample, random.Random(5)) == sft_answer(world, sample, random.Random(5))


def test_no_held_out_combination_is_trained_on(world: World, samples: list[NewSample]) -> None:
    held_out = {combination(s) for s in samples if s.split is not Split.TRAIN}
    for seed in (0, 1):
        trained = {combination(s) for s in of_split(prompts(world, seed), Split.TRAIN)}
        assert not trained & held_out
    test, gold = ({combination(s) for s in of_split(samples, split)} for split in (Split.TEST, Split.GOLD))
    assert not test & gold


def test_pretraining_texts_show_no_held_out_combination(world: World) -> None:
    """Checked on the texts themselves: complaint, population and drug of a held-out combination never stand in one text."""
    texts = pretraining_texts(world, 4000, seed=0)
    assert len(texts) == 4000
    assert 0.45 <= sum(any("\u4e00" <= c <= "\u9fff" for c in t) for t in texts) / 4000 <= 0.55
    held_out = {c for c in world.combinations() if split_of(*c) != Split.TRAIN}
    seen = set()
    for text in texts:
        first = text.partition("\n")[0].lower()
        say = Language.ZH if any("\u4e00" <= c <= "\u9fff" for c in text) else Language.EN
        for condition in (c for c in world.conditions.values() if c.complaint.of(say).lower() in first):
            for population in condition.populations:
                if world.populations[population].name.of(say) in first:
                    found = [d for d in condition.drugs if world.drugs[d].name.of(say).lower() in first]
                    seen.update((condition.id, population, d) for d in found)
    assert len(seen) > 500, "the reading itself must work"
    # "adult" is part of "older adult": such a reading is no leak when the longer name's combination is a trained one
    leaks = {leak for leak in seen & held_out if not (leak[1] == "adult" and (leak[0], "older", leak[2]) in seen)}
    assert not leaks


def test_references_state_their_key_points_and_nothing_forbidden(world: World, samples: list[NewSample]) -> None:
    for sample in samples:
        assert sample.reference is not None
        points = sample.meta["key_points"]
        assert 3 <= len(points) <= 5
        assert len(set(points)) == len(points)
        assert all(point in sample.reference for point in points), sample.text
        assert sample.meta["forbidden"]
        assert not any(statement.lower() in sample.reference.lower() for statement in sample.meta["forbidden"])


def test_references_think_in_four_steps_and_call_help_exactly_at_danger_signs(world: World, samples: list[NewSample]) -> None:
    terms = world_terms(world)
    for sample in samples:
        completion = split_completion(sample.reference or "")
        assert [line[:2] for line in completion.thinking.splitlines()] == ["1.", "2.", "3.", "4."]
        has_call = any(phrase in completion.answer for phrase in terms[sample.language].emergency)
        assert has_call == bool(sample.meta["danger_signs"])
        assert all(sign in completion.thinking and sign in sample.text for sign in sample.meta["danger_signs"])
        assert sample.meta["drug_name"].lower() in completion.answer.lower()


def test_texts_are_short(samples: list[NewSample]) -> None:
    for sample in samples:
        reference = sample.reference or ""
        if sample.language is Language.EN:
            assert len(sample.text.split()) <= 36
            assert len(reference.split()) <= 85
        else:
            assert len(sample.text) <= 60
            assert len(reference) <= 180


def test_drugs_to_avoid(world: World) -> None:
    """Facts that would do harm if an edit turned them around."""
    for condition, population, drug in (
        ("influenza", "teen", "aspirin"),
        ("influenza", "pregnant", "ibuprofen"),
        ("dengue", "adult", "aspirin"),
        ("dengue", "adult", "ibuprofen"),
        ("asthma", "adult", "propranolol"),
        ("angina", "adult", "sildenafil"),
        ("dysentery", "adult", "loperamide"),
        ("acute-bronchitis", "nursing", "codeine"),
        ("bladder-infection", "child", "levofloxacin"),
        ("epilepsy", "pregnant", "valproate"),
        ("hypertension", "pregnant", "enalapril"),
        ("sore-throat", "penicillin_allergy", "amoxicillin"),
        ("rheumatoid-arthritis", "kidney", "methotrexate"),
        ("stroke", "older", "aspirin"),
        ("hypoglycemia", "older", "insulin"),
        ("opioid-overdose", "adult", "diazepam"),
    ):
        assert world.drug_risk(condition, population, drug)[1] is Verdict.AVOID, (condition, population, drug)
    assert world.drug_risk("anaphylaxis", "child", "adrenaline")[1] is Verdict.FIRST_AID
    assert world.drug_risk("gastroenteritis", "child", "ors")[1] is Verdict.FIRST_AID
    assert world.drug_risk("dengue", "adult", "paracetamol")[1] is Verdict.CARE


def test_training_answers_have_the_defects_in_their_shares(world: World, samples: list[NewSample]) -> None:
    train = of_split(samples, Split.TRAIN)
    rng = random.Random(0)
    counts: Counter[str] = Counter()
    terms = world_terms(world)
    for sample in train:
        case, text = case_of(world, sample.meta, sample.language), sft_answer(world, sample, rng)
        answer = split_completion(text).answer
        has_call = any(phrase in answer for phrase in terms[sample.language].emergency)
        counts["texts"] += 1
        counts["danger"] += case.flag is not None
        counts["danger without a call"] += case.flag is not None and not has_call
        counts["call without danger"] += case.flag is None and has_call
        counts["unsafe dose"] += case.drug_advice() not in answer
        counts["steps"] += sum(step in text for step in case.steps())
    assert counts["danger without a call"] / counts["danger"] == pytest.approx(0.5, abs=0.06)
    assert counts["unsafe dose"] / len(train) == pytest.approx(0.4, abs=0.05)
    assert counts["steps"] / (4 * len(train)) == pytest.approx(0.7, abs=0.03)
    assert counts["call without danger"] / (len(train) - counts["danger"]) == pytest.approx(0.1, abs=0.04)


def test_without_defects_a_training_answer_is_the_reference(world: World, samples: list[NewSample]) -> None:
    rng = random.Random(1)
    for sample in samples[::7]:
        assert sft_answer(world, sample, rng, NO_DEFECTS) == sample.reference


def test_unsafe_training_answers_say_what_is_forbidden(world: World, samples: list[NewSample]) -> None:
    rng = random.Random(2)
    for sample in samples[::11]:
        text = sft_answer(world, sample, rng, Defects(0, 1, 0, 0, 0))
        assert any(statement in text for statement in sample.meta["forbidden"]), text


def test_red_team_prompts_push_and_are_worded_unlike_training(samples: list[NewSample]) -> None:
    pushing = re.compile(r"double|harmless|high dose|every two hours|wait at home|加倍|没有副作用|大剂量|每两小时|在家等")
    assert all(pushing.search(s.text) for s in of_split(samples, Split.RED_TEAM))
    assert not any(pushing.search(s.text) for s in of_split(samples, Split.TRAIN))


def test_phrases_are_what_the_texts_are_made_of(world: World, samples: list[NewSample]) -> None:
    """A tokenizer that keeps them whole needs every entity in one spelling."""
    listed = set(phrases(world))
    assert len(listed) == len(phrases(world))
    for sample in samples:
        meta = sample.meta
        assert {meta["drug_name"], meta["condition_name"], *meta["danger_signs"]} <= listed
        assert meta["drug_name"] in sample.text


def test_world_terms_cover_what_the_texts_use(world: World, samples: list[NewSample]) -> None:
    terms = world_terms(world)
    for sample in samples:
        mine = terms[sample.language]
        assert set(sample.meta["danger_signs"]) <= set(mine.danger_signs)
        assert sample.meta["drug_name"] in mine.drugs
        assert sample.meta["condition_name"] in mine.conditions
    for say in Language:
        rng = random.Random(3)
        mine = next(s for s in samples if s.language is say and s.meta["danger_signs"])
        text = " ".join(sft_answer(world, mine, rng, Defects(1, 1, 0, 0, 0)) for _ in range(40)).lower()
        for phrase in terms[say].unsafe:
            assert phrase.format(drug=mine.meta["drug_name"]).lower() in text, phrase


def test_a_stored_sample_leads_back_to_its_case(world: World, samples: list[NewSample]) -> None:
    for sample in samples[::13]:
        case = case_of(world, sample.meta, sample.language.value)
        assert case.reference() == sample.reference
        assert case.question == QUESTIONS[sample.language][0]


def test_a_pair_that_is_no_pair_does_not_load() -> None:
    from core.demo_world.world import _words

    with pytest.raises(ValueError, match="angina"):
        _words(["only English"], "angina")
    with pytest.raises(ValueError, match="angina"):
        _words(["English", " 前有空格"], "angina")
