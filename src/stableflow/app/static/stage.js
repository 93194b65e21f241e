// The big picture: before and after under one slider, previews, results as a strip, and what they cost.
import { fileOf, newsOf } from "./api.js";
import { $, make } from "./dom.js";

const SMALL = 160; // pixels below which a picture's own pixels are shown
let shown = { entry: null, results: [], at: 0 };

const load = (image, url) =>
  new Promise((done) => {
    image.onload = () => {
      image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= SMALL);
      done(true);
    };
    image.onerror = () => done(false);
    image.src = url;
  });

function fit(image) {
  if (image.naturalWidth) $("frame").style.aspectRatio = `${image.naturalWidth} / ${image.naturalHeight}`;
}

function setCut(share) {
  $("frame").style.setProperty("--cut", `${share * 100}%`);
}

function reveal(both) {
  for (const id of ["slide", "handle", "tag-before", "tag-after"]) $(id).hidden = !both;
  $("after").hidden = !both;
  $("after").classList.remove("whole");
}

export function setUpStage() {
  $("slide").addEventListener("input", () => setCut($("slide").value / 1000));
  $("alert-close").addEventListener("click", () => { $("alert").hidden = true; });
}

export function fail(message) {
  $("alert").hidden = false;
  $("alert").querySelector("p").textContent = message;
  $("alert").scrollIntoView({ block: "nearest" });
}

export function note(text) {
  $("note").hidden = !text;
  $("note").textContent = text ?? "";
}

export function clearMessages() {
  $("alert").hidden = true;
  note(null);
}

// The source alone, before there is an edit of it.
export async function showSource(url, caption, facts = "") {
  shown = { entry: null, results: [], at: 0 };
  $("empty").hidden = true;
  $("view").hidden = false;
  $("strip").hidden = $("actions").hidden = $("unmade").hidden = true;
  reveal(false);
  await load($("before"), url);
  fit($("before"));
  $("caption").textContent = caption;
  $("facts").textContent = facts;
}

export function showBusy(job) {
  $("busy").hidden = !job;
  if (!job) return putBack();
  $("empty").hidden = true;
  $("view").hidden = false;
  $("busy-text").textContent = newsOf(job);
  if (job.steps) $("bar").value = job.step / job.steps;
  else $("bar").removeAttribute("value");
  if (job.preview) {
    reveal(false);
    $("after").hidden = false;
    $("after").classList.add("whole");
    load($("after"), job.preview);
  }
}

// After a request that was broken off: what stood here before it.
function putBack() {
  if (!$("after").classList.contains("whole") && $("before").src) return;
  reveal(false);
  if (shown.entry) pick(shown.at);
  const nothing = !$("before").src;
  $("empty").hidden = !nothing;
  $("view").hidden = nothing;
}

export const resultsOf = (entry) =>
  entry.runs.flatMap((run) =>
    run.pictures.map((picture) => ({
      run, prompt: picture.prompt, url: fileOf(entry, picture.file), before: fileOf(entry, run.source), file: picture.file,
      made: picture.made !== false,
    })));

function nameOf(result, entry) {
  const parts = [];
  if (new Set(entry.runs.map((run) => run.editor)).size > 1) parts.push(result.run.editor);
  if (new Set(entry.runs.map((run) => run.strength)).size > 1) parts.push(result.run.strength === null ? "usual" : `${Math.round(result.run.strength * 100)}%`);
  if (new Set(entry.runs.map((run) => run.seed)).size > 1) parts.push(`seed ${result.run.seed}`);
  return parts.join(", ") || result.prompt;
}

export function factsOf(run) {
  const rows = run.nfe.edit * run.nfe.rows;
  if (run.strokes) return layersOf(run);
  const source = run.kept
    ? "the picture was kept from before, so only the change was computed"
    : "the picture is kept now: its next change is quicker";
  return `${run.seconds.toFixed(1)} s, ${rows} rows of the model; ${source}.`;
}

function layersOf(run) {
  const drawn = run.strokes.filter((stroke) => stroke.drawn), passes = drawn.reduce((sum, stroke) => sum + stroke.passes, 0);
  const rest = run.strokes.length - drawn.length;
  const kept = rest ? `; ${rest === 1 ? "one was" : `${rest} were`} kept from before` : "";
  return drawn.length ? `${run.seconds.toFixed(1)} s; ${drawn.length} of ${run.strokes.length} layers drawn in ${passes} passes of the model${kept}.` : `${run.seconds.toFixed(1)} s; nothing was drawn again: all layers were kept from before.`;
}

export async function showEntry(entry, at = 0) {
  const results = resultsOf(entry);
  shown = { entry, results, at };
  $("empty").hidden = true;
  $("view").hidden = false;
  $("busy").hidden = true;
  $("strip").hidden = results.length < 2;
  $("actions").hidden = false;
  $("strip").replaceChildren(...results.map((result, index) =>
    make("button", { type: "button", "aria-pressed": index === at, title: result.prompt, on: { click: () => pick(index) } },
      make("img", { src: result.url, alt: result.prompt, class: "tiny" }), nameOf(result, entry))));
  await pick(at);
}

async function pick(index) {
  const { entry, results } = shown, result = results[index];
  shown.at = index;
  [...$("strip").children].forEach((button, i) => button.setAttribute("aria-pressed", i === index));
  await Promise.all([load($("before"), result.before), load($("after"), result.url)]);
  if (entry.ask.picture && $("before").naturalWidth !== $("after").naturalWidth) await load($("before"), fileOf(entry, "given"));
  fit($("before"));
  reveal(true);
  setCut($("slide").value / 1000);
  $("caption").textContent = result.prompt;
  $("facts").textContent = factsOf(result.run);
  $("unmade").hidden = result.made;
  $("download").href = result.url;
  $("download").download = `${entry.id}-${result.file.replace("/", "-")}`;
}

export const current = () => ({ ...shown, result: shown.results[shown.at] ?? null });
