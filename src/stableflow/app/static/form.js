// The form: what is asked for, as the server takes it, and back.
import * as mask from "./mask.js";
import { $, bare, make, showDifference, wordsOf } from "./dom.js";

export const state = { origin: "draw", picture: null, where: "everywhere", word: null, task: "free", restored: {} };
let known = null;
let followed = true; // the first change follows the description until somebody writes in it

const GRID = { strengths: [0.25, 0.5, 0.75, 1] };
const SHOWN = ["prompt", "picture", "seed", "seeds", "to", "editor", "strength", "strengths", "where", "mask", "preset", "steps", "task", "move", "layers"];

export const wishes = () => [...document.querySelectorAll(".wish")];

export const seed = () => Number.parseInt($("seed").value, 10) || 0;

// What decides the source picture.
export function sourceAsk() {
  const ask = { ...state.restored, prompt: $("prompt").value.trim() };
  if (state.origin === "own") ask.picture = state.picture?.id;
  else ask.seed = seed();
  if ($("steps").value) ask.steps = Number.parseInt($("steps").value, 10);
  if ($("preset").value) ask.preset = $("preset").value;
  ask.editor = $("editor").value || "stable-flow";
  if (ask.editor !== (state.restored.editor ?? "stable-flow")) delete ask.set;
  return ask;
}

export function editAsk() {
  const ask = sourceAsk();
  if (state.task === "move") return moveAsk(ask);
  if (state.task !== "free") { ask.task = state.task; delete ask.editor; delete ask.set; }
  ask.to = wishes().map((field) => field.value.trim()).filter(Boolean);
  if ($("strength").dataset.usual === "auto") ask.strength = "auto";
  else if ($("strength").dataset.usual !== "true") ask.strength = $("strength").value / 100;
  if ($("grid").value === "strengths") { ask.strengths = GRID.strengths; delete ask.strength; }
  if ($("grid").value === "seeds" && state.origin === "draw") {
    ask.seeds = [0, 1, 2, 3].map((more) => ask.seed + more);
    delete ask.seed;
  }
  return ask;
}

const whole = (id, usual) => Number.parseFloat($(id).value) || usual;

function moveAsk(ask) {
  const move = { dx: whole("move-x", 0), dy: whole("move-y", 0), scale: whole("move-size", 100) / 100, copy: $("move-copy").checked };
  const moving = { ...ask, to: [ask.prompt], move };
  for (const name of ["editor", "set"]) delete moving[name];
  return moving;
}

// By how many pixels the thing moves, as fields and on the picture.
export function setMove(dx, dy) {
  [$("move-x").value, $("move-y").value] = [dx, dy];
  mask.showShift(dx, dy);
}

const HINTS = {
  replace: "Exchange a thing, or its colour: change its words. Its place is found.",
  text: "Change the words on a sign or a label. Their place is found.",
  background: "What the picture shows stays. Change the words of what is behind it.",
  remove: "Leave the thing's words out, such as “with a ball”. Its place is found and drawn anew.",
  add: "Add the words of the new thing.",
  style: "Change or add the words of the style.",
  move: "Say under 3 what moves, then drag it in the picture, or write by how many pixels. The words stay.",
};
const NAMES = { replace: "Replace", add: "Add", remove: "Remove", background: "Behind", style: "Style", text: "Text", move: "Move" };
let finding = new Set(); // tasks that look for their place

export function fillTasks(tasks) {
  finding = new Set(tasks.filter((task) => task.finds).map((task) => task.name));
  const names = [...Object.keys(NAMES), ...tasks.map((task) => task.name)].filter((name) => name === "move" || tasks.some((task) => task.name === name));
  for (const name of new Set(names)) {
    const about = HINTS[name] ?? tasks.find((task) => task.name === name).good_for;
    $("tasks").append(make("label", { title: about }, make("input", { type: "radio", name: "task", value: name }), make("span", { text: NAMES[name] ?? name })));
  }
  $("tasks").addEventListener("change", (event) => setTask(event.target.value));
}

export function setTask(task) {
  state.task = task;
  for (const input of document.querySelectorAll("[name=task]")) input.checked = input.value === task;
  $("task-hint").hidden = task === "free";
  $("task-hint").textContent = HINTS[task] ?? "";
  $("move-fields").hidden = task !== "move";
  $("dial").hidden = task === "move";
  $("wishes").hidden = $("diff").hidden = $("more-wishes").hidden = task === "move";
  $("where-found").textContent = finding.has(task) ? "Found" : "Everywhere";
}

// A new picture of somebody's own: what it shows is not known yet.
export function forgetWords() {
  $("prompt").value = "";
  state.restored = {};
  setWishes([]);
  showWords();
}

export const prompt = () => $("prompt").value.trim();

// Says what the source picture lacks, in words; null where nothing is.
export function lacksPicture() {
  if (state.origin === "own" && !state.picture) return "Choose a picture first, or let one be drawn.";
  return prompt() ? null : "Say in a few words what the picture shows; the change starts from there.";
}

// Says what is missing; null where nothing is.
export function missing() {
  if (lacksPicture()) return lacksPicture();
  if (state.task === "move") return state.where === "everywhere" ? "Say under 3 what moves: a thing, or mark it in the picture." : null;
  if (!editAsk().to.length) return "Describe the picture you want.";
  if (editAsk().to.every((text) => text === $("prompt").value.trim())) return "Both descriptions are the same. Change some words of the second one.";
  return null;
}

export function setOrigin(origin) {
  state.origin = origin;
  for (const input of document.querySelectorAll("[name=origin]")) input.checked = input.value === origin;
  $("drop").hidden = origin !== "own";
  $("seed-row").hidden = origin !== "draw";
  $("prompt-label").textContent = origin === "draw" ? "What should it show?" : "What does it show? A few words are enough.";
}

export function setPicture(picture) {
  state.picture = picture;
  $("own-thumb").hidden = !picture;
  if (picture) $("own-thumb").src = picture.url;
}

export function setStrength(strength) {
  const usual = strength === null || strength === undefined, auto = strength === "auto";
  $("strength").dataset.usual = auto ? "auto" : usual;
  $("strength-reset").hidden = usual;
  $("strength-auto").hidden = auto;
  $("strength").value = usual || auto ? 60 : Math.round(strength * 100);
  $("strength-text").textContent = auto ? "the least that does it" : usual ? "usual" : `${Math.round(strength * 100)}%`;
}

export function fillIn(ask, { picture = null } = {}) {
  state.restored = Object.fromEntries(Object.entries(ask).filter(([name]) => !SHOWN.includes(name)));
  state.restored.editor = ask.editor ?? "stable-flow";
  $("prompt").value = ask.prompt ?? "";
  setOrigin(ask.picture || picture ? "own" : "draw");
  setPicture(picture);
  $("seed").value = ask.seed ?? ask.seeds?.[0] ?? 1;
  setTask(ask.move ? "move" : ask.task ?? "free");
  setMove(ask.move?.dx ?? 0, ask.move?.dy ?? 0);
  $("move-size").value = Math.round((ask.move?.scale ?? 1) * 100);
  $("move-copy").checked = Boolean(ask.move?.copy);
  setWishes(ask.to ?? []);
  setStrength(ask.strength);
  $("grid").value = ask.strengths?.length ? "strengths" : ask.seeds?.length ? "seeds" : "";
  $("preset").value = ask.preset ?? "";
  $("steps").value = ask.steps ?? "";
  $("editor").value = ask.editor ?? "stable-flow";
  $("editor").dispatchEvent(new Event("change"));
  $("more").open = Boolean(ask.steps || ask.preset || (ask.editor ?? "stable-flow") !== "stable-flow");
  showWords();
}

function setWishes(texts) {
  followed = texts.length === 0;
  const [first, ...others] = texts.length ? texts : [$("prompt").value];
  for (const field of wishes().slice(1)) field.remove();
  wishes()[0].value = first;
  for (const text of others) addWish(text);
  showDifferences();
}

export function addWish(text = $("prompt").value) {
  const field = make("textarea", { class: "wish", rows: 2, maxlength: 1000, "aria-label": "Another change" });
  field.value = text;
  field.style.marginTop = ".5rem";
  $("wishes").append(field);
  return field;
}

export function showDifferences() {
  const first = wishes()[0].value.trim(), prompt = $("prompt").value.trim();
  if (first && first !== prompt) showDifference($("diff"), prompt, first);
  else $("diff").textContent = "Nothing changed yet.";
  showUnknown();
}

// The only words that a small model knows; the others have no effect, and are told while one writes.
export function setVocabulary(words) {
  known = words.length ? new Set(words) : null;
  $("words-known").title = words.join(", ");
  showUnknown();
}

function showUnknown() {
  const texts = [$("prompt").value, ...wishes().map((field) => field.value)];
  const lost = known ? [...new Set(texts.flatMap(wordsOf).map(bare))].filter((word) => word && !known.has(word)) : [];
  $("words-known").hidden = known === null;
  if (known === null) return;
  $("words-known").classList.toggle("warn", lost.length > 0);
  $("words-known").textContent = lost.length
    ? `This small model does not know: ${lost.join(", ")}. It knows: ${[...known].join(", ")}.`
    : `This small model knows ${known.size} words, of dogs, cats and birds.`;
}

// The description's words, to say where.
export const placeWords = () => [...new Set(wordsOf($("prompt").value).map(bare).filter((word) => word.length > 2))]
  .filter((word) => !["the", "and", "with", "its", "next"].includes(word));

export function showWords() {
  $("word-chips").replaceChildren(...placeWords().map((word) =>
    make("button", { type: "button", text: word, "data-word": word, "aria-pressed": state.word === word })));
}

export function setUpForm() {
  $("prompt").addEventListener("input", () => {
    if (followed) wishes()[0].value = $("prompt").value;
    showDifferences();
    showWords();
  });
  $("wishes").addEventListener("input", () => {
    followed = false;
    showDifferences();
  });
  for (const id of ["move-x", "move-y"]) $(id).addEventListener("input", () => mask.showShift(whole("move-x", 0), whole("move-y", 0)));
  $("more-wishes").addEventListener("click", () => addWish().focus());
  $("strength").addEventListener("input", () => setStrength($("strength").value / 100));
  $("strength-auto").addEventListener("click", () => setStrength("auto"));
  $("strength-reset").addEventListener("click", () => setStrength(null));
  showDifferences();
  showWords();
}
