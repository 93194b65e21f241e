// The form: what is asked for, as the server takes it, and back.
import { $, bare, make, showDifference, wordsOf } from "./dom.js";

export const state = { origin: "draw", picture: null, where: "everywhere", word: null, restored: {} };
let known = null;
let followed = true; // the first change follows the description until somebody writes in it

const GRID = { strengths: [0.25, 0.5, 0.75, 1] };
const SHOWN = ["prompt", "picture", "seed", "seeds", "to", "editor", "strength", "strengths", "where", "mask", "preset", "steps"];

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
  ask.to = wishes().map((field) => field.value.trim()).filter(Boolean);
  if ($("strength").dataset.usual !== "true") ask.strength = $("strength").value / 100;
  if ($("grid").value === "strengths") { ask.strengths = GRID.strengths; delete ask.strength; }
  if ($("grid").value === "seeds" && state.origin === "draw") {
    ask.seeds = [0, 1, 2, 3].map((more) => ask.seed + more);
    delete ask.seed;
  }
  return ask;
}

// Says what is missing, in words; null where nothing is.
export function missing() {
  if (state.origin === "own" && !state.picture) return "Choose a picture first, or let one be drawn.";
  if (!$("prompt").value.trim()) return "Say in a few words what the picture shows; the change starts from there.";
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
  const usual = strength === null || strength === undefined;
  $("strength").dataset.usual = usual;
  $("strength-reset").hidden = usual;
  $("strength").value = usual ? 60 : Math.round(strength * 100);
  $("strength-text").textContent = usual ? "usual" : `${Math.round(strength * 100)}%`;
}

export function fillIn(ask, { picture = null } = {}) {
  state.restored = Object.fromEntries(Object.entries(ask).filter(([name]) => !SHOWN.includes(name)));
  state.restored.editor = ask.editor ?? "stable-flow";
  $("prompt").value = ask.prompt ?? "";
  setOrigin(ask.picture || picture ? "own" : "draw");
  setPicture(picture);
  $("seed").value = ask.seed ?? ask.seeds?.[0] ?? 1;
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
export function showWords() {
  const words = [...new Set(wordsOf($("prompt").value).map(bare).filter((word) => word.length > 2))]
    .filter((word) => !["the", "and", "with", "its", "next"].includes(word));
  $("word-chips").replaceChildren(...words.map((word) =>
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
  $("more-wishes").addEventListener("click", () => addWish().focus());
  $("dice").addEventListener("click", () => { $("seed").value = Math.floor(Math.random() * 1e6); });
  $("strength").addEventListener("input", () => setStrength($("strength").value / 100));
  $("strength-reset").addEventListener("click", () => setStrength(null));
  showDifferences();
  showWords();
}
