// What the page knows: cases, forms, leases, and where the reader stands. No drawing and no sending in here.

const VERDICTS = ["acceptable", "minor", "serious", "unsafe", "cannot_judge"];
const CANNOT = { a: "missing_context", b: "not_my_field", d: "ambiguous" };
const CRITERIA = { e: "emergency", p: "prescription", l: "reasoning" };
const CRITERION_VALUES = [null, "met", "not_met", "not_applicable"];
const CONFIDENCE = { 7: "low", 8: "medium", 9: "high" };
const MARKS = [null, "ok", "wrong", "unsafe"];
const RIGHT = ["teacher", "rules", "both_partly", "neither"];
const BECAUSE = ["ambiguous_question", "guideline_gap", "rule_misfire", "teacher_misread", "answer_thinking_mismatch", "missing_context"];
const SKIPS = ["not_my_field", "missing_context", "conflict_of_interest", "display_fault"];
const MAX_EVIDENCE = 10;
const NOTE_NEEDED = new Set(["serious", "unsafe", "cannot_judge"]);

const emptyForm = () => ({
  verdict: null, cannot_judge_reason: null, criteria: {}, marks: {}, confidence: null, note: "",
  revising: false, revision_reason: "", who_was_right: null, because: [], rewriting: false, rewritten_answer: "", evidence: [], follow: [], active_s: 0,
});

class Desk {
  constructor() {
    this.words = {};
    this.view = { status: "open", language: null, order: "mixed", topic: null, risk: null, text: "" };
    this.queue = [];
    this.counts = {};
    this.listed = null; // which list this is and when it came, in the server's words
    this.cases = new Map();
    this.reveals = new Map();
    this.forms = new Map();
    this.states = new Map(); // case -> state as last told by the server
    this.leases = new Map(); // case -> {token, version, expires}
    this.signed = new Map(); // case -> receipt, signed in this window
    this.passed = new Set(); // skipped or handed over in this window
    this.committing = new Set();
    this.undo = [];
    this.current = null;
    this.ahead = null; // taken for the time after the signature on the current case
    this.cursor = null; // sentence id like "a2"
    this.row = null; // criterion that Space changes
    this.drawer = null; // {tab, about, flagging}
    this.evidence = new Map(); // "case:about" -> {passages, problem}
    this.guideline = null;
    this.correcting = null; // adjudication id that the next signature supersedes
  }

  t(name, params) {
    const text = this.words[name] || name;
    return params ? text.replace(/\{(\w+)\}/g, (all, k) => (k in params ? String(params[k]) : all)) : text;
  }

  form(id = this.current) {
    if (!this.forms.has(id)) this.forms.set(id, emptyForm());
    return this.forms.get(id);
  }

  isPristine(id) {
    const { active_s: _, ...form } = this.form(id);
    const { active_s: __, ...empty } = emptyForm();
    return JSON.stringify(form) === JSON.stringify(empty);
  }

  /** "blind", "committing", "sign", "done", "held" or "loading". */
  stage(id = this.current) {
    if (this.signed.has(id) && id !== this.correctingCase) return "done";
    if (!this.cases.has(id)) return "loading";
    if (this.correcting !== null && id === this.correctingCase) return "sign";
    const status = this.states.get(id)?.status;
    if (this.passed.has(id) || (status === "adjudicated" && !this.leases.has(id))) return "done";
    if (this.reveals.get(id)?.own) return "sign";
    if (this.committing.has(id)) return "committing";
    if (this.holder(id)) return "held";
    return "blind";
  }

  holder(id) {
    if (this.leases.has(id)) return null;
    const row = this.queue.find((item) => item.id === id);
    return this.states.get(id)?.holder || row?.holder || null;
  }

  isEditable(id = this.current) {
    return ["blind", "sign"].includes(this.stage(id));
  }

  /** The case that follows `id` and is free for a decision; null when there is none. */
  nextFree(id) {
    const ids = this.queue.map((item) => item.id);
    const here = ids.indexOf(id);
    const ring = [...ids.slice(here + 1), ...ids.slice(0, Math.max(here, 0))];
    return ring.find((other) => other !== id && ["blind", "sign", "loading"].includes(this.stage(other))) ?? null;
  }

  /** The free cases after the one on screen: the server sends those of them that are not here yet. */
  following(size = 4) {
    const ids = this.queue.map((item) => item.id);
    const here = ids.indexOf(this.current);
    const ring = [...ids.slice(here + 1), ...ids.slice(0, Math.max(here, 0))];
    return ring.filter((id) => ["blind", "sign", "loading"].includes(this.stage(id))).slice(0, size);
  }

  sentences() {
    const shown = this.cases.get(this.current);
    if (!shown) return [];
    const answer = shown.answer.map((_, i) => `a${i + 1}`);
    return this.showThinking ? [...answer, ...shown.thinking.map((_, i) => `t${i + 1}`)] : answer;
  }

  /** Remember the form so that U can take the next change back. */
  remember() {
    this.undo.push({ case: this.current, form: structuredClone(this.form()) });
    if (this.undo.length > 50) this.undo.shift();
  }

  /** What is missing before the form can be sent: a word key for the person, or null. */
  missing(stage) {
    const form = this.form();
    const reveal = this.reveals.get(this.current);
    if (!form.verdict) return "verdict";
    if (form.verdict === "cannot_judge" && !form.cannot_judge_reason) return "cannot";
    if (NOTE_NEEDED.has(form.verdict) && !form.note.trim()) return "note";
    if (stage !== "sign") return null;
    if (reveal?.own && form.verdict !== reveal.own.verdict && !form.revision_reason.trim()) return "reason";
    if (reveal?.is_disputed && !form.who_was_right) return "right";
    return null;
  }

  /** The form as the server wants it. */
  payload(stage, dwellMs) {
    const form = this.form();
    const blind = {
      verdict: form.verdict, cannot_judge_reason: form.cannot_judge_reason, criteria: form.criteria, marks: form.marks,
      confidence: form.confidence, note: form.note, evidence: form.evidence.map(({ sha256, about }) => ({ sha256, about })), active_s: Math.round(form.active_s), dwell_ms: Math.round(dwellMs),
    };
    if (stage === "blind") return blind;
    return {
      ...blind, revision_reason: form.revision_reason, who_was_right: form.who_was_right, because: form.because,
      rewritten_answer: form.rewriting ? form.rewritten_answer : "", follow: form.follow, supersedes_id: this.correcting,
    };
  }
}
