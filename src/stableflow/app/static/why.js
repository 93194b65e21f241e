// The page Why: vital layers, and what a point looks at.
import { newsOf, run } from "./api.js";
import { $, make } from "./dom.js";
import * as form from "./form.js";
import { current } from "./stage.js";

const SVG = "http://www.w3.org/2000/svg";
let chart = null;

function svg(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

export function setChart(about) {
  chart = about.chart;
}

export function showWhy() {
  const { entry, result: shown } = current(), result = entry?.ask.layers ? null : shown;
  drawChart(result?.run.layers ?? []);
  $("why-hint").textContent = result
    ? "Click a point in either picture: below you see where in the picture, and at which words, it looks while the edit is drawn."
    : "Make an edit first, then click a point in either picture here.";
  $("why-pair").replaceChildren();
  $("looks").replaceChildren();
  if (!result) return;
  for (const [url, title] of [[result.before, "before"], [result.url, "after"]]) $("why-pair").append(pointer(url, title));
}

function drawChart(injected) {
  const { vitality, kinds, chosen } = chart, count = kinds.length, top = Math.max(0.001, ...vitality);
  if (!vitality.length) {
    $("chart").replaceChildren();
    $("chart-text").textContent = chosen.length
      ? `Vital layers of ${chart.model}: ${chosen.join(", ")}, from: ${chart.source}.`
      : `The vital layers of ${chart.model} are not known yet. stableflow vital measures them.`;
    return;
  }
  const step = 720 / count, picture = svg("svg", { viewBox: "0 0 760 200", role: "img", "aria-label": "Vitality of each layer" });
  vitality.forEach((value, layer) => {
    const height = value / top * 150, kind = `bar${chosen.includes(layer) ? " vital" : ""}${injected.includes(layer) ? " now" : ""}`;
    const bar = svg("rect", { x: 30 + layer * step + step * 0.15, y: 165 - height, width: step * 0.7, height, rx: 3, class: kind });
    bar.append(svg("title", {}, `layer ${layer} (${kinds[layer]}): ${value.toFixed(4)}`));
    picture.append(bar);
    if (count <= 30 || layer % 5 === 0) picture.append(svg("text", { x: 30 + layer * step + step / 2, y: 185, "text-anchor": "middle" }, layer));
  });
  $("chart").replaceChildren(picture);
  const now = injected.length ? ` The last edit read the source in layers ${injected.join(", ")} (outlined).` : "";
  $("chart-text").textContent = `Layers of ${chart.model} in order; vital ones in colour. Measured by ${chart.by}.${now}`;
}

function pointer(url, title) {
  const image = make("img", { src: url, alt: title, class: "tiny", draggable: "false" });
  const button = make("button", { type: "button", class: "point", "aria-label": `Click a point: ${title}` }, image);
  button.addEventListener("click", (event) => {
    const box = image.getBoundingClientRect();
    const share = event.detail === 0 ? [0.5, 0.5] : [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    for (const dot of document.querySelectorAll(".point i")) dot.remove();
    for (const other of document.querySelectorAll("#why-pair .point")) {
      const dot = make("i");
      dot.style.left = `${share[0] * 100}%`;
      dot.style.top = `${share[1] * 100}%`;
      other.append(dot);
    }
    ask(share);
  });
  return make("figure", { class: "look" }, make("h3", { text: title }), button);
}

async function ask(share) {
  const say = (text) => { $("why-news").textContent = text; };
  const { naturalWidth: width, naturalHeight: height } = document.querySelector("#why-pair img"); // the source's own pixels
  const point = [Math.min(width - 1, Math.floor(share[0] * width)), Math.min(height - 1, Math.floor(share[1] * height))];
  const wanted = { ...form.editAsk(), to: [current().result.prompt], point, editor: "stable-flow" };
  for (const name of ["seeds", "strengths", "strength", "set", "where", "mask", "task", "move"]) delete wanted[name];
  if (current().result.run.seed !== null) wanted.seed = current().result.run.seed;
  try {
    const found = await run("api/jobs/why", wanted, { told: (job) => say(newsOf(job)) });
    say("");
    if (found) showLooks(found);
  } catch (error) {
    say(error.message);
  }
}

function showLooks(found) {
  const { result } = current(), names = { vital: "vital layers", other: "other layers", all: "all layers" };
  $("looks").replaceChildren();
  for (const [name, layers] of Object.entries(found.groups))
    found.passes.forEach((pass, row) => {
      const looks = pass.groups[name], injected = row === 1 && layers.every((layer) => found.injected.includes(layer));
      const url = row === 0 || injected ? result.before : result.url;
      const title = `${row === 0 ? "before" : "after"}: ${names[name]} ${layers.join(", ")}`;
      $("looks").append(make("figure", { class: "look" }, make("h3", { text: title }), heat(url, looks.image),
        make("figcaption", { class: "quiet", text: `${Math.round(looks.image_sum * 100)}% on the picture${injected ? " before the edit" : ""}, the rest on words` }),
        bars(pass.words, looks)));
    });
}

function heat(url, rows) {
  const canvas = make("canvas", { width: rows[0].length, height: rows.length, class: "tiny" });
  const draw = canvas.getContext("2d"), top = Math.max(...rows.flat()) || 1;
  rows.forEach((row, y) => row.forEach((value, x) => {
    draw.fillStyle = `rgb(255 ${Math.round(230 - 190 * value / top)} 60 / ${(value / top) ** 0.6})`;
    draw.fillRect(x, y, 1, 1);
  }));
  return make("div", { class: "point" }, make("img", { src: url, alt: "", class: "tiny" }), canvas);
}

function bars(words, looks) {
  const top = Math.max(0.001, ...looks.words, looks.rest);
  const rows = [...words.map((word, i) => [word, looks.words[i]]), ["(end of the text)", looks.rest]];
  return make("div", { class: "bars" }, ...rows.flatMap(([word, value]) => [
    make("span", { text: word }), make("meter", { max: top, value }), make("span", { text: `${(value * 100).toFixed(1)}%` })]));
}
