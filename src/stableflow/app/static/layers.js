// The page Layers: parts of a picture redrawn by words of their own, one over the other.
import { run, upload } from "./api.js";
import { during, needSource } from "./busy.js";
import { $, make, showDifference } from "./dom.js";
import * as form from "./form.js";
import * as mask from "./mask.js";
import * as stage from "./stage.js";

const FREELY = 0.95; // where a new layer's dial stands
const EXAMPLE = {
  prompt: "a red dog standing on the grass at noon", seed: 1,
  layers: [
    { prompt: "a red dog standing on the grass at night", where: "box:0,0,64,28", seed: 2 },
    { prompt: "a blue dog standing on the grass at noon", where: "word:dog", seed: 1 },
  ],
};
let layers = []; // as the server takes them, the lowest first
let open = -1; // which one shows its fields
let marking = false; // whether the tools mark the open one
let costs = new Map(); // what a layer took when it was last drawn

const nextSeed = () => Math.floor(Math.random() * 1e6);

function add() {
  layers.push({ prompt: form.prompt(), seed: nextSeed(), strength: FREELY });
  choose(layers.length - 1);
}

async function choose(index) {
  await keepMarks();
  open = index;
  show();
}

// What was marked becomes the open layer's place.
async function keepMarks() {
  const layer = layers[open];
  if (marking && layer && mask.isTouched()) {
    const file = await mask.maskFile();
    delete layer.where;
    delete layer.mask;
    if (file) layer.mask = (await upload(file)).id;
  }
  marking = false;
  mask.setTool(null);
}

function change(index, values) {
  layers[index] = { ...layers[index], ...values };
  show();
}

async function swap(index, other) {
  await choose(-1);
  [layers[index], layers[other]] = [layers[other], layers[index]];
  show();
  const moved = $("layers").children[layers.length - 1 - other]?.querySelector(index < other ? ".up" : ".down");
  (moved?.disabled ? moved.parentElement.querySelector(".up:enabled, .down:enabled") : moved)?.focus();
}

async function remove(index) {
  await choose(-1);
  layers.splice(index, 1);
  show();
  $("add-layer").focus();
}

// Opens the tools over the source picture, with what the layer has already.
async function mark(index, tool) {
  await keepMarks();
  const layer = layers[index];
  await during(async (signal) => {
    if ((await needSource(signal)) === false) return;
    mask.fitMask();
    mask.clearMask();
    if (layer.mask) await mask.showMask(`api/uploads/${layer.mask}`);
    else if (layer.where?.startsWith("box:")) mask.fillBox(layer.where.slice(4).split(",").map(Number));
    mask.setTool(tool);
    marking = true;
    stage.note(tool === "box" ? "Draw a box where this layer shows." : "Paint where this layer shows.");
  });
  show();
}

const placeOf = (layer) => (layer.where?.startsWith("word:") ? `“${layer.where.slice(5)}”` : layer.where || layer.mask ? "a marked part" : "nowhere yet");

function place(layer, index) {
  const words = form.placeWords().map((word) => make("button", {
    type: "button", text: word, "aria-pressed": layer.where === `word:${word}`,
    on: { click: async () => { await keepMarks(); change(index, { where: `word:${word}`, mask: undefined }); } },
  }));
  const tool = (name, text) => make("button", { type: "button", class: "small", text, on: { click: () => mark(index, name) } });
  return make("div", { class: "field" }, make("span", { text: "Where? A thing of the picture’s description, or marked by hand:" }),
    make("div", { class: "words" }, ...words), make("div", { class: "row" }, tool("brush", "Brush"), tool("box", "Box"),
      make("span", { class: "quiet", text: marking ? "Marking…" : `Now: ${placeOf(layer)}` })));
}

function fields(layer, index) {
  const words = make("textarea", { rows: 2, maxlength: 1000 }), diff = make("p", { class: "diff" });
  words.value = layer.prompt;
  const tell = () => showDifference(diff, form.prompt(), layers[index].prompt);
  words.addEventListener("input", () => { layers[index].prompt = words.value; tell(); });
  tell();
  const dial = make("input", { type: "range", min: 10, max: 100, step: 5, value: Math.round((layer.strength ?? FREELY) * 100) });
  const shown = make("output", { text: `${dial.value}%` });
  dial.addEventListener("input", () => { layers[index].strength = dial.value / 100; shown.textContent = `${dial.value}%`; });
  const seed = make("input", { type: "text", inputmode: "numeric", maxlength: 15, size: 7, value: layer.seed ?? 0 });
  seed.addEventListener("input", () => { layers[index].seed = Number.parseInt(seed.value, 10) || 0; });
  return make("div", { class: "layer-fields" },
    make("label", { class: "field" }, make("span", { text: "Describe the picture as this layer wants it." }), words), diff, place(layer, index),
    make("label", { class: "field dial" }, make("span", {}, "How freely? ", shown), dial),
    make("div", { class: "row" }, make("label", { class: "inline" }, "Seed ", seed),
      make("button", { type: "button", class: "small", text: "Another", title: "Draw this layer otherwise", on: { click: () => { change(index, { seed: nextSeed() }); draw(); } } })));
}

function card(layer, index) {
  const button = (text, label, click, more = {}) => make("button", { type: "button", class: "icon", text, title: label, "aria-label": `${label}: layer ${index + 1}`, on: { click }, ...more });
  const title = make("button", { type: "button", class: "layer-title", "aria-expanded": open === index, on: { click: () => choose(open === index ? -1 : index) } });
  const words = make("span");
  showDifference(words, form.prompt(), layer.prompt);
  title.append(make("b", { text: `${index + 1} ` }), words, make("span", { class: "quiet", text: ` ${placeOf(layer)}${costs.has(layer) ? ` · ${costs.get(layer)}` : ""}` }));
  return make("li", { class: `layer${layer.hidden ? " hidden-layer" : ""}` },
    make("div", { class: "layer-head" },
      button(layer.hidden ? "○" : "●", layer.hidden ? "Show" : "Hide", () => change(index, { hidden: !layer.hidden }), { "aria-pressed": !layer.hidden }),
      title,
      button("↑", "Up", () => swap(index, index + 1), { class: "icon up", ...(index === layers.length - 1 ? { disabled: "" } : {}) }),
      button("↓", "Down", () => swap(index, index - 1), { class: "icon down", ...(index === 0 ? { disabled: "" } : {}) }),
      button("×", "Delete", () => remove(index))),
    open === index ? fields(layer, index) : null);
}

function show() {
  $("layers").replaceChildren(...layers.map(card).reverse()); // the uppermost on top
  $("no-layers").hidden = layers.length > 0;
}

export async function draw() {
  const lacks = form.lacksPicture() ?? (layers.some((layer) => !layer.hidden) ? null : "No layer shows. Add one, or show one that is hidden.");
  if (lacks) return stage.fail(lacks);
  await during(async (signal) => {
    await keepMarks();
    const bare = layers.findIndex((layer) => !layer.hidden && !layer.where && !layer.mask);
    if (bare >= 0) { open = bare; show(); throw new Error(`Layer ${bare + 1}: say where it shows, by a word or by marking it.`); }
    const entry = await run("api/jobs/layers", { ...form.sourceAsk(), editor: "stable-flow", set: {}, layers }, { told: stage.showBusy, signal });
    if (!entry) return stage.note("Cancelled. Nothing was saved; layers that were finished are kept.");
    const visible = layers.filter((layer) => !layer.hidden);
    costs = new Map(visible.map((layer, i) => [layer, entry.runs[0].strokes[i].drawn ? `drawn, ${entry.runs[0].strokes[i].passes} passes` : "kept"]));
    await stage.showEntry(entry);
    if (entry.notes.length) stage.note(entry.notes.join(" "));
  });
  show();
}

// Brings back a request with layers.
export function fillIn(ask) {
  layers = ask.layers.map((layer) => ({ ...layer }));
  [open, marking, costs] = [-1, false, new Map()];
  show();
}

export const showLayers = show;

// Before another page is shown.
export const leave = () => keepMarks().catch((error) => stage.fail(error.message));

export function setUpLayers() {
  $("prompt").addEventListener("input", show);
  $("add-layer").addEventListener("click", add);
  $("example-layers").addEventListener("click", () => { form.fillIn(EXAMPLE); fillIn(EXAMPLE); draw(); });
}
