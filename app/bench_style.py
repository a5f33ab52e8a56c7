"""Colours, type and keys of the bench. The palette is that of app/.streamlit/config.toml, so that the frame has no seam."""

from __future__ import annotations

import gradio as gr

TEAL = gr.themes.Color(
    name="consilium",
    c50="#eef6f8",
    c100="#d8eaee",
    c200="#b4d6de",
    c300="#88bfcb",
    c400="#5fb3c6",
    c500="#1b6b7f",
    c600="#175c6e",
    c700="#134c5b",
    c800="#0f3d49",
    c900="#0b2e37",
    c950="#071f26",
)
SLATE = gr.themes.Color(
    name="slate",
    c50="#fbfcfc",
    c100="#f0f4f5",
    c200="#d5dfe2",
    c300="#b9c7cc",
    c400="#8fa1a8",
    c500="#66797f",
    c600="#4c5d63",
    c700="#2d3b41",
    c800="#1a2428",
    c900="#12191c",
    c950="#0c1113",
)

#: LocalFont quotes a name that ends in a digit and serves the bundled file; a plain string would turn the page to Arial
THEME = gr.themes.Base(
    primary_hue=TEAL,
    secondary_hue=TEAL,
    neutral_hue=SLATE,
    radius_size=gr.themes.sizes.radius_sm,
    spacing_size=gr.themes.sizes.spacing_sm,
    font=[gr.themes.LocalFont("Source Sans 3"), "Noto Sans SC", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", "sans-serif"],
    font_mono=["Source Code Pro", "monospace"],
).set(
    body_background_fill="#fbfcfc",
    body_background_fill_dark="#12191c",
    body_text_color="#1c2a30",
    body_text_color_dark="#dfe7ea",
    background_fill_primary="#fbfcfc",
    background_fill_primary_dark="#12191c",
    background_fill_secondary="#f0f4f5",
    background_fill_secondary_dark="#1a2428",
    block_background_fill="transparent",
    block_background_fill_dark="transparent",
    block_border_width="0px",
    block_label_background_fill="transparent",
    block_label_background_fill_dark="transparent",
    block_label_text_color="#4c5d63",
    block_label_text_color_dark="#b9c7cc",
    block_title_text_color="#4c5d63",
    block_title_text_color_dark="#b9c7cc",
    border_color_primary="#d5dfe2",
    border_color_primary_dark="#2d3b41",
    input_background_fill="#ffffff",
    input_background_fill_dark="#1a2428",
    input_border_width="1px",
    input_border_color="#d5dfe2",
    input_border_color_dark="#2d3b41",
    input_border_color_focus="#1b6b7f",
    input_border_color_focus_dark="#5fb3c6",
    checkbox_label_background_fill="#f0f4f5",
    checkbox_label_background_fill_dark="#1a2428",
    button_large_text_size="15px",
    button_large_text_weight="600",
    button_primary_background_fill="#1b6b7f",
    button_primary_background_fill_hover="#175c6e",
    button_primary_background_fill_dark="#5fb3c6",
    button_primary_background_fill_hover_dark="#88bfcb",
    button_primary_text_color="#ffffff",
    button_primary_text_color_dark="#0c1113",
    button_secondary_background_fill="#f0f4f5",
    button_secondary_background_fill_hover="#d5dfe2",
    button_secondary_background_fill_dark="#1a2428",
    button_secondary_background_fill_hover_dark="#2d3b41",
)

CSS = """
.gradio-container { --body-text-color-subdued: var(--quiet); --input-placeholder-color: var(--quiet); }
:root { --bad: #b3261e; --bad-ground: #fbeceb; --warn: #8a5a00; --warn-ground: #fdf3dd; --good: #1d6b3a; --good-ground: #e8f4ec;
        --quiet: #4c5d63; --edge: #d5dfe2; --panel: #f0f4f5; --tint: #e4f0f3; }
.dark { --bad: #ff9d94; --bad-ground: #3a1d1c; --warn: #f0c36a; --warn-ground: #332a16; --good: #86d3a2; --good-ground: #17301f;
        --quiet: #b9c7cc; --edge: #2d3b41; --panel: #1a2428; --tint: #1d333a; }
.gradio-container { padding: 0 !important; max-width: none !important; font-size: 15px; }
footer { display: none !important; }
.gradio-container .form, .gradio-container .block { background: transparent !important; }
.gradio-container .form { border: none !important; box-shadow: none !important; gap: .6rem; }
.gradio-container .main { padding: 0 .15rem !important; }
.gradio-container .form .block, .gradio-container .row > .block { padding: 0 !important; }
.gradio-container .prose { font-size: 15px; }
.gradio-container .block:has(> .prose), .gradio-container .prose { padding: 0; }
#bench-settings { padding: 0 !important; }
#bench-settings > button { color: var(--quiet); font-size: .9rem; width: auto; gap: .4rem; padding: .1rem 0; }
#bench-actions { justify-content: flex-start; }
#bench-actions button { flex: 0 0 auto; min-width: 10rem; }
#bench-strip { border-left: 3px solid var(--warn); background: var(--warn-ground); color: var(--warn); padding: .35rem .7rem;
               border-radius: .3rem; font-size: .9rem; }
#bench-answers { align-items: stretch; }
.bench-column { border: 1px solid var(--edge); border-radius: .4rem; padding: .7rem .9rem; min-height: 8.5rem; height: 100%; }
.bench-head { display: flex; gap: .6rem; align-items: baseline; flex-wrap: wrap; border-bottom: 1px solid var(--edge);
              padding-bottom: .35rem; margin-bottom: .5rem; }
.bench-head b { font-weight: 600; font-size: 1.02rem; }
.bench-head span { color: var(--quiet); font-size: .85rem; }
.bench-head code { font-size: .8rem; color: var(--quiet); background: none; }
.bench-notice { display: flex; gap: .45rem; border-radius: .3rem; padding: .25rem .55rem; margin: .2rem 0; font-size: .9rem; }
.bench-notice i { font-style: normal; font-weight: 700; }
.bench-notice.bad { color: var(--bad); background: var(--bad-ground); font-weight: 600; }
.bench-notice.warn { color: var(--warn); background: var(--warn-ground); }
.bench-notice.good { color: var(--good); background: var(--good-ground); }
.bench-answer { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.55; max-width: 46rem; margin-top: .5rem; }
.bench-answer sup { color: var(--quiet); font-size: .68rem; padding-right: .15rem; user-select: none; }
.bench-answer .only { background: var(--tint); border-radius: .2rem; text-decoration: underline; text-decoration-color: #1b6b7f;
                      text-underline-offset: .2em; }
.bench-answer .changed { text-decoration: underline dotted; text-decoration-color: var(--quiet); text-underline-offset: .2em; }
.bench-answer u, .bench-rows u { text-decoration: underline; text-decoration-thickness: 2px; background: var(--tint); }
.bench-answer .sign { font-weight: 700; padding-left: .1rem; }
.dark .bench-answer .only, .dark .bench-answer u, .dark .bench-rows u { text-decoration-color: #5fb3c6; }
body:not(.diff-marks) .bench-answer span, body:not(.diff-marks) .bench-answer u { background: none; text-decoration: none; }
body:not(.diff-marks) .bench-answer .sign { display: none; }
.bench-rows { display: none; border: 1px solid var(--edge); border-radius: .4rem; }
body.diff-rows .bench-rows { display: block; }
body.diff-rows:has(.bench-rows) #bench-answers .bench-answer { display: none; }
body.diff-rows:has(.bench-rows) .bench-column { min-height: 0; }
.bench-rows .row { display: grid; grid-template-columns: 1fr 1fr; border-bottom: 1px solid var(--edge); }
.bench-rows .row:last-child { border-bottom: none; }
.bench-rows .row > div { padding: .35rem .9rem; overflow-wrap: anywhere; line-height: 1.5; }
.bench-rows .row > div + div { border-left: 1px solid var(--edge); }
.bench-rows .left > div:first-child, .bench-rows .right > div:last-child { background: var(--tint); border-left: 3px solid #1b6b7f; }
.bench-rows sup { color: var(--quiet); padding-right: .2rem; }
body.swapped #bench-answers { flex-direction: row-reverse; }
body.swapped .bench-rows .row > div:first-child { order: 2; }
.bench-choice { gap: .3rem !important; }
dialog#bench-help { max-width: 34rem; width: calc(100% - 2rem); margin: 4rem auto auto; border: 1px solid var(--edge); border-radius: .5rem;
                    padding: 1.1rem 1.3rem; background: var(--background-fill-primary); color: var(--body-text-color); }
dialog#bench-help::backdrop { background: rgb(0 0 0 / 40%); }
dialog#bench-help h3 { margin: 0 0 .6rem; font-size: 1.1rem; }
dialog#bench-help dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem .9rem; margin: 0 0 .7rem; }
dialog#bench-help dd { margin: 0; }
dialog#bench-help kbd { border: 1px solid var(--edge); border-radius: .25rem; padding: .05rem .4rem; font-size: .85rem; }
dialog#bench-help .bench-close { border: 1px solid var(--edge); border-radius: .3rem; padding: .35rem 1rem; cursor: pointer; }
.bench-quiet { color: var(--quiet); }
.bench-error { color: var(--bad); background: var(--bad-ground); border-radius: .3rem; padding: .45rem .7rem; }
.bench-column details { margin-top: .6rem; color: var(--quiet); font-size: .92rem; }
.bench-column details div { white-space: pre-wrap; overflow-wrap: anywhere; border-left: 2px solid var(--edge); padding-left: .7rem; }
.bench-column summary { cursor: pointer; }
#bench-votes { gap: .4rem; }
#bench-votes button { min-width: 6.5rem; flex: 1 1 6.5rem; }
#bench-votes button { border: 1px solid var(--edge); }
#bench-votes button:not(:disabled):not(#vote-5):not(#vote-6):not(#vote-7) { border-color: #1b6b7f; }
.dark #bench-votes button:not(:disabled):not(#vote-5):not(#vote-6):not(#vote-7) { border-color: #5fb3c6; }
#bench-votes button:disabled { opacity: .45; }
#bench-votes #vote-5, #bench-votes #vote-6, #bench-votes #vote-7 { color: var(--bad); border-color: var(--bad); background: transparent; }
#vote-5:not(:disabled):hover, #vote-6:not(:disabled):hover, #vote-7:not(:disabled):hover { background: var(--bad-ground); }
.bench-stats { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .5rem 1.2rem; background: var(--panel);
               border-radius: .4rem; padding: .7rem .9rem; }
.bench-stats div { font-size: .85rem; color: var(--quiet); }
.bench-stats b { display: block; font-size: 1rem; font-weight: 600; color: var(--body-text-color); }
.bench-bar { position: relative; height: .45rem; border-radius: .3rem; background: var(--edge); margin: .3rem 0; }
.bench-bar i { position: absolute; top: 0; bottom: 0; background: var(--tint); border: 1px solid #1b6b7f; border-radius: .3rem; }
.bench-bar u { position: absolute; top: -.2rem; bottom: -.2rem; width: 2px; background: #1b6b7f; }
.bench-bar s { position: absolute; top: -.15rem; bottom: -.15rem; left: 50%; width: 1px; background: var(--quiet); }
.dark .bench-bar i { border-color: #5fb3c6; } .dark .bench-bar u { background: #5fb3c6; }
body.only-left #bench-right, body.only-right #bench-left { display: none; }
:focus-visible { outline: 2px solid #1b6b7f; outline-offset: 1px; }
.dark :focus-visible { outline-color: #5fb3c6; }
@media (max-width: 640px) { .bench-column { min-height: 0; } #bench-votes button { flex-basis: 44%; }
  .bench-rows .row { grid-template-columns: 1fr; }
  .bench-rows .row > div + div { border-left: none; border-top: 1px dashed var(--edge); }
  body.swapped #bench-answers { flex-direction: column-reverse; } }
"""

#: A script in the page's head, because an event's `js=` would need unsafe-eval. Vote keys work only when a vote has been open for at
#: least 400 ms, never on repeat and never while a person is typing.
HEAD = """<script>
(() => {
  const openSince = {};
  const watch = () => { for (let n = 1; n <= 7; n++) { const b = document.getElementById('vote-' + n);
    if (!b || b.disabled) delete openSince[n]; else openSince[n] = openSince[n] || performance.now(); } };
  setInterval(watch, 100);
  const isTyping = (e) => { const el = e.target, tag = el.tagName;
    return el.isContentEditable || tag === 'TEXTAREA' || tag === 'SELECT' ||
      (tag === 'INPUT' && !['radio', 'checkbox', 'range', 'button'].includes(el.type)); };
  const press = (id) => { const b = document.getElementById(id); if (b && !b.disabled) { b.click(); return true; } return false; };
  const card = () => document.getElementById('bench-help');
  const showCard = () => { if (card() && !card().open) card().showModal(); };
  const start = () => document.body.classList.add('diff-marks');
  if (document.body) start(); else document.addEventListener('DOMContentLoaded', start);
  // a swapped view belongs to the open pair it was pressed on: a blind pair always stands as it was placed
  setInterval(() => { if (!document.querySelector('.bench-column[data-open]')) document.body.classList.remove('swapped'); }, 200);
  document.addEventListener('click', (e) => { if (e.target.closest && e.target.closest('#bench-help-open')) showCard(); });
  document.addEventListener('keydown', (e) => {
    if (card() && card().open) { if (e.key.toLowerCase() === 'h') card().close(); return; }
    if (e.key === 'Escape' && isTyping(e)) { e.target.blur(); return; }
    if (e.repeat || e.ctrlKey || e.metaKey || e.altKey || isTyping(e)) return;
    const key = e.key.toLowerCase();
    if (key >= '1' && key <= '7' && key.length === 1) {
      if (openSince[key] && performance.now() - openSince[key] >= 400) { delete openSince[key]; press('vote-' + key); }
      e.preventDefault();
    } else if (key === 'enter' && e.target.tagName !== 'BUTTON' && e.target.tagName !== 'SUMMARY') {
      if (press('bench-onward')) e.preventDefault();
    } else if (key === 'n') { press('bench-next');
    } else if (key === 't') { const all = [...document.querySelectorAll('.bench-column details')];
      const open = !all.every(d => d.open); all.forEach(d => { d.open = open; });
    } else if (key === 'd') { const c = document.body.classList;
      if (c.contains('diff-marks')) { c.remove('diff-marks'); c.add('diff-rows'); }
      else if (c.contains('diff-rows')) c.remove('diff-rows'); else c.add('diff-marks');
    } else if (key === 'v') { if (document.querySelector('.bench-column[data-open]')) document.body.classList.toggle('swapped');
    } else if (key === 'h') { showCard();
    } else if (key === 'b') {  // a link of the page around us: the frame itself may not lead it away
      const outside = window.parent.document, link = outside.createElement('a');
      link.href = '/models?dialog=roll_back'; outside.body.appendChild(link); link.click(); link.remove();
    } else if (key === 'f') { const c = document.body.classList;
      if (c.contains('only-left')) { c.remove('only-left'); c.add('only-right'); }
      else if (c.contains('only-right')) c.remove('only-right'); else c.add('only-left');
    }
  });
})();
</script>"""
