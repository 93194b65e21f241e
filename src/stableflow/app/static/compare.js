// The page Compare: one change by several methods.
import { fileOf, newsOf, run } from "./api.js";
import { $, make } from "./dom.js";
import * as form from "./form.js";

const FIRST = ["stable-flow", "flowedit", "rf-inversion", "sdedit"];

const NOT_HERE = ["move", "pixelman"]; // they take a move instead of words

export function fillMethods(editors) {
  const choice = ({ name, good_for: goodFor }) =>
    make("label", { title: goodFor }, make("input", { type: "checkbox", value: name, ...(FIRST.includes(name) ? { checked: "" } : {}) }),
      make("span", {}, make("b", { text: name }), make("br"), make("span", { class: "quiet", text: goodFor })));
  const offered = editors.filter(({ name }) => !NOT_HERE.includes(name));
  $("methods").replaceChildren(...offered.filter(({ name }) => FIRST.includes(name)).map(choice));
  $("more-methods").replaceChildren(...offered.filter(({ name }) => !FIRST.includes(name)).map(choice));
}

async function compare() {
  const editors = [...document.querySelectorAll("#page-compare input:checked")].map((input) => input.value);
  const say = (text) => { $("compare-news").textContent = text; };
  const lacks = form.missing() ?? (editors.length ? null : "Choose at least one method.");
  if (lacks) return say(lacks);
  const ask = { ...form.editAsk(), editors };
  for (const name of ["strengths", "seeds", "set", "task", "move"]) delete ask[name];
  ask.to = ask.to.slice(0, 1);
  if (form.state.origin === "draw") ask.seed = form.seed();
  $("compare").disabled = true;
  try {
    const entry = await run("api/jobs/edit", ask, { told: (job) => say(newsOf(job)) });
    say("");
    if (entry) show(entry);
  } catch (error) {
    say(error.message);
  } finally {
    $("compare").disabled = false;
  }
}

function show(entry) {
  const figure = (url, title, text) => make("figure", { class: "card" }, make("img", { src: url, alt: title, class: "tiny" }),
    make("div", { class: "text" }, make("b", { text: title }), make("span", { class: "quiet", text })));
  $("compared").replaceChildren(
    figure(fileOf(entry, entry.runs[0].source), "the picture", entry.ask.prompt),
    ...entry.runs.map((one) => figure(fileOf(entry, one.pictures[0].file), one.editor,
      `${one.seconds.toFixed(1)} s, ${one.nfe.edit} evaluations; ${entry.ask.to[0]}`)));
}

export const setUpCompare = () => $("compare").addEventListener("click", compare);
