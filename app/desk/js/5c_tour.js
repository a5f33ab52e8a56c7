// Two minutes through the desk on the first visit: a card beside the part it speaks of. Esc leaves it, help brings it back.

const TOUR = [
  ["welcome", ".cd-case"],
  ["cases", ".cd-queue"],
  ["sentences", ".cd-case"],
  ["blind", ".cd-panel"],
  ["evidence", ".cd-panel"],
  ["reveal", ".cd-panel"],
  ["safety", ".cd-panel"],
  ["help", "[data-k='help']"],
];

function drawTour(app, step) {
  const { desk } = app;
  const dialog = app.slot("dialog");
  const t = (k, p) => desk.t(k, p);
  const [name, selector] = TOUR[step];
  const isLast = step === TOUR.length - 1;
  for (const old of app.root.querySelectorAll(".cd-spot")) old.classList.remove("cd-spot");
  openDialog(app, t(`tour_${name}`),
    el("p", {}, t(`tour_${name}_text`)),
    el("div", { class: "cd-row" },
      el("span", { class: "cd-muted" }, t("tour_step", { n: step + 1, of: TOUR.length })),
      el("span", { class: "cd-grow" }),
      step ? el("button", { class: "cd-small", "data-k": "tour-back", onclick: () => drawTour(app, step - 1) }, key("←"), t("tour_back")) : el("button", { class: "cd-small", "data-k": "tour-skip", onclick: () => dialog.close() }, key("Esc"), t("tour_skip")),
      el("button", { class: "cd-main cd-tour-next", "data-k": "tour-next", onclick: () => (isLast ? dialog.close() : drawTour(app, step + 1)) }, key("Enter"), t(isLast ? "tour_end" : "tour_next"))));
  app.tourStep = step; // after openDialog, which ends the card before
  dialog.classList.add("cd-tour");
  dialog.querySelector("[data-k='tour-next']").focus();
  const target = app.root.querySelector(selector);
  target.classList.add("cd-spot");
  target.scrollIntoView({ block: "nearest" });
  placeTour(dialog, target.getBoundingClientRect());
}

/** Beside the part where there is room for the card, else over the lower edge of the window. */
function placeTour(dialog, rect) {
  const { offsetWidth: width, offsetHeight: height } = dialog;
  const gap = 16;
  let left = rect.left - width - gap;
  if (left < gap) left = rect.right + gap;
  const isBeside = left >= gap && left + width <= innerWidth - gap;
  const top = isBeside ? Math.min(Math.max(rect.top, 80), innerHeight - height - gap) : innerHeight - height - gap;
  dialog.style.left = `${isBeside ? left : Math.max(gap, (innerWidth - width) / 2)}px`;
  dialog.style.top = `${Math.max(gap, top)}px`;
}

function endTour(app) {
  const dialog = app.slot("dialog");
  app.tourStep = null;
  dialog.classList.remove("cd-tour");
  dialog.style.left = dialog.style.top = "";
  for (const old of app.root.querySelectorAll(".cd-spot")) old.classList.remove("cd-spot");
}
