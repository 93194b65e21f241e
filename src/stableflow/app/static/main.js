// Starts the page, and turns between its pages.
import { call } from "./api.js";
import { fillMethods, setUpCompare } from "./compare.js";
import { $, make } from "./dom.js";
import { setUpBusy } from "./busy.js";
import { edit, setUpEdit, showExamples } from "./edit.js";
import { fillTasks, setMove, setUpForm, setVocabulary } from "./form.js";
import { setUpGifts } from "./gifts.js";
import { showHistory } from "./history.js";
import * as layers from "./layers.js";
import * as mask from "./mask.js";
import { fail, setUpStage } from "./stage.js";
import { setChart, showWhy } from "./why.js";

const PAGES = ["edit", "layers", "compare", "why", "history"];

// Edit and Layers are one page with two forms: they share the picture and the stage.
const sectionOf = (name) => (name === "layers" ? "edit" : name);

let marked = null; // what the page Edit has marked while Layers uses the canvas

async function turnTo(name) {
  const before = document.body.dataset.page;
  if (before === name) return;
  document.body.dataset.page = name;
  if (before === "edit" && name === "layers") { marked = mask.takeAway(); mask.setTool(null); }
  if (before === "layers") await layers.leave();
  if (name === "edit" && marked) { mask.bringBack(marked); marked = null; }
  for (const page of PAGES) {
    $(`page-${sectionOf(page)}`).hidden = sectionOf(page) !== sectionOf(name);
    $(`tab-${page}`).setAttribute("aria-selected", page === name);
    $(`tab-${page}`).tabIndex = page === name ? 0 : -1;
  }
  $("go").textContent = name === "layers" ? "Draw the layers" : "Edit";
  if (name === "layers") layers.showLayers();
  if (name === "history") showHistory(turnTo).catch((error) => { turnTo("edit"); fail(error.message); });
  if (name === "why") showWhy();
}

async function learn() {
  let about = await call("api/about");
  while (!about.ready) {
    $("model").textContent = `loading ${about.model}…`;
    await new Promise((done) => setTimeout(done, 400));
    about = await call("api/about");
  }
  $("model").textContent = `${about.model}, ${about.size.join(" × ")}`;
  $("editor").replaceChildren(...about.editors.map(({ name }) => make("option", { value: name, text: name })));
  $("editor").value = "stable-flow";
  const tell = () => { $("good-for").textContent = about.editors.find(({ name }) => name === $("editor").value)?.good_for ?? ""; };
  $("editor").addEventListener("change", tell);
  tell();
  fillMethods(about.editors);
  fillTasks(about.tasks);
  setChart(about);
  setVocabulary(about.words);
  showExamples(about);
  document.documentElement.dataset.ready = "true";
}

// Tabs: a click, or the arrow keys.
for (const [index, page] of PAGES.entries()) {
  $(`tab-${page}`).addEventListener("click", () => turnTo(page));
  $(`tab-${page}`).addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = PAGES[(index + by + PAGES.length) % PAGES.length];
    turnTo(next);
    $(`tab-${next}`).focus();
  });
}
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (document.body.dataset.page === "layers") layers.draw();
  else edit();
});
setUpStage();
mask.setUpMask({ onDrag: setMove });
setUpForm();
setUpBusy();
setUpEdit({ onLayers: (ask) => { layers.fillIn(ask); turnTo("layers"); } });
layers.setUpLayers();
setUpGifts();
setUpCompare();
turnTo("edit");
learn().catch((error) => fail(error.message));
