// Starts the page, and turns between its pages.
import { call } from "./api.js";
import { fillMethods, setUpCompare } from "./compare.js";
import { $, make } from "./dom.js";
import { setUpEdit, showExamples } from "./edit.js";
import { fillTasks, setUpForm, setVocabulary } from "./form.js";
import { setUpGifts } from "./gifts.js";
import { showHistory } from "./history.js";
import { setUpMask } from "./mask.js";
import { fail, setUpStage } from "./stage.js";
import { setChart, showWhy } from "./why.js";

const PAGES = ["edit", "compare", "why", "history"];

function turnTo(name) {
  for (const page of PAGES) {
    $(`page-${page}`).hidden = page !== name;
    $(`tab-${page}`).setAttribute("aria-selected", page === name);
  }
  if (name === "history") showHistory(() => turnTo("edit")).catch((error) => { turnTo("edit"); fail(error.message); });
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
  showExamples(about.model === "tiny");
  document.documentElement.dataset.ready = "true";
}

for (const page of PAGES) $(`tab-${page}`).addEventListener("click", () => turnTo(page));
setUpStage();
setUpMask();
setUpForm();
setUpEdit();
setUpGifts();
setUpCompare();
learn().catch((error) => fail(error.message));
