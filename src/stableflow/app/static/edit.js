// The page Edit: from the form to a result.
import { call, fileOf, run, upload } from "./api.js";
import { during, forgetSource, needSource } from "./busy.js";
import { $, make, showDifference } from "./dom.js";
import * as form from "./form.js";
import * as mask from "./mask.js";
import * as stage from "./stage.js";

const EXAMPLES = [ // prompt, change, seed, and the name of two pictures that the bundled model made of them
  ["a red dog standing on the grass at noon", "a blue dog standing on the grass at noon", 1, "dog"],
  ["a white cat sitting on the grass at noon", "a white cat sitting on the beach at noon", 3, "cat"],
  ["a red bird standing in the snow at noon", "a yellow bird standing in the snow at noon", 4, "bird"],
];
let layered = () => {}; // takes a request with layers, which another page shows

async function placed(ask) {
  const where = form.state.where;
  if (where === "everywhere") return ask;
  if (where === "word" && !mask.isTouched()) {
    if (!form.state.word) throw new Error("Click the word of the thing that may change, such as the animal.");
    return { ...ask, where: `word:${form.state.word}` };
  }
  const file = await mask.maskFile();
  if (!file) throw new Error("Nothing is marked yet: draw over the part of the picture that may change.");
  return { ...ask, mask: (await upload(file)).id };
}

export async function edit() {
  const lacks = form.missing();
  if (lacks) return stage.fail(lacks);
  await during(async (signal) => {
    const ask = await placed(form.editAsk());
    const entry = await run("api/jobs/edit", ask, { told: stage.showBusy, signal });
    if (!entry) return stage.note("Cancelled. Nothing was saved.");
    mask.setTool(null);
    forgetSource();
    await stage.showEntry(entry);
    if (entry.notes.length) stage.note(entry.notes.join(" "));
    else if (form.state.where !== "everywhere" && form.state.task !== "move") stage.note("Only the marked part was allowed to change. Choose the tool again to correct it.");
  });
}

async function place(where) {
  form.state.where = where;
  $("word-chips").hidden = where !== "word";
  if (where === "everywhere") {
    mask.setTool(null);
    if (stage.current().entry) await stage.showEntry(stage.current().entry, stage.current().at);
    return;
  }
  if (where === "word" && !form.state.word) return stage.note("Click the word of the thing that may change.");
  await draw(where);
}

async function draw(where) {
  if (form.state.origin === "own" && !form.state.picture) return stage.fail("Choose a picture first.");
  await during(async (signal) => {
    if ((await needSource(signal)) === false) return;
    mask.fitMask();
    mask.setTool(where === "box" ? "box" : "brush");
    $("frame").scrollIntoView({ block: "nearest" });
    if (form.state.task === "move" && where !== "word") return stage.note("Mark the thing that moves, then press “Drag it”.");
    if (where !== "word") return stage.note(where === "box" ? "Draw a box over the part that may change." : "Paint over the part that may change.");
    const ask = { ...form.sourceAsk(), where: `word:${form.state.word}` };
    const found = await run("api/jobs/where", ask, { told: stage.showBusy, signal });
    if (!found) return;
    await mask.showMask(found.mask);
    if (form.state.task === "move") {
      dragIt();
      return stage.note(`Here is “${form.state.word}”. Drag it to its new place, then press Edit.`);
    }
    stage.note(`Here is “${form.state.word}”, ${Math.round(found.share * 100)}% of the picture. Paint or erase to correct it.`);
  });
}

// Lets the marked thing be dragged; what was marked stays as it is.
function dragIt() {
  if ($("mask").hidden) return stage.note("Say first under 3 what moves: a thing, or mark it in the picture.");
  mask.setTool("drag");
  form.setMove(Number.parseFloat($("move-x").value) || 0, Number.parseFloat($("move-y").value) || 0);
  return null;
}

// Takes a picture: a plain one becomes the source, one that was made here brings its settings back.
export async function take(blob) {
  await during(async () => {
    const got = await upload(blob);
    const url = URL.createObjectURL(blob);
    if (got.restored?.ask) {
      const own = got.restored.ask.picture;
      const picture = own ? { id: own, url: `api/uploads/${own}` } : null;
      form.fillIn(got.restored.ask, { picture });
      if (!own && got.restored.notes.some((text) => text.includes("give that picture"))) form.setOrigin("own");
      await stage.showSource(url, (got.restored.ask.to ?? []).join("; "));
      stage.note(["Its settings are back. Press the button to make it again, or change them.", ...got.restored.notes].join(" "));
      if (got.restored.ask.layers) layered(got.restored.ask);
      else restoreMask(got.restored.ask);
    } else {
      form.setOrigin("own");
      form.setPicture({ id: got.id, url });
      form.forgetWords();
      await stage.showSource(url, "Your picture. Say what it shows, then what should be different.", `${got.width} × ${got.height} pixels`);
      for (const text of got.restored?.notes ?? []) stage.note(text);
      $("prompt").focus();
    }
    forgetSource();
  });
}

function restoreMask(ask) {
  const where = placeOf(ask);
  form.state.word = where === "word" ? ask.where.slice(5) : null;
  $("word-chips").hidden = where !== "word";
  form.showWords();
  if (ask.mask) mask.showMask(`api/uploads/${ask.mask}`).then(() => mask.setTool("brush"));
}

// Brings an earlier result back: its settings and its pictures; returns the page that shows it.
export async function reopen(name) {
  const { ask, entry } = await call(`api/history/${name}/again`, { method: "POST" });
  const picture = ask.picture ? { id: ask.picture, url: `api/uploads/${ask.picture}` } : null;
  form.fillIn(ask, { picture });
  mask.setTool(null);
  await stage.showEntry(entry);
  forgetSource();
  if (ask.layers) {
    layered(ask);
    return "layers";
  }
  const where = placeOf(ask);
  if (ask.mask) await mask.showMask(`api/uploads/${ask.mask}`);
  form.state.word = where === "word" ? ask.where.slice(5) : null;
  return "edit";
}

// Chooses the tool that a request was placed with; returns its name.
function placeOf(ask) {
  const where = ask.mask ? "brush" : ask.where?.startsWith("word:") ? "word" : "everywhere";
  for (const input of document.querySelectorAll("[name=where]")) input.checked = input.value === where;
  form.state.where = where;
  return where;
}

function example({ prompt, wish, pictures, start }) {
  const text = make("span"), images = pictures.map((src) => make("img", { src, alt: "", class: src.startsWith("static") ? "tiny" : "photo" }));
  showDifference(text, prompt, wish);
  return make("button", { type: "button", on: { click: start } }, images.length ? make("span", { class: "two" }, ...images) : null, text);
}

async function fromPhoto({ name, prompt, to }) {
  await take(await (await fetch(`api/examples/${name}`)).blob());
  form.fillIn({ prompt, to: [to] }, { picture: form.state.picture });
  await edit();
}

// Ways to begin: pictures that the bundled model made, photographs for others, else words alone.
export function showExamples({ model, photos }) {
  const small = model === "tiny";
  const drawn = EXAMPLES.map(([prompt, wish, seed, name]) => ({
    prompt, wish, pictures: small ? [`static/${name}-before.png`, `static/${name}-after.png`] : [],
    start: () => { form.fillIn({ prompt, to: [wish], seed }); edit(); },
  }));
  const shown = photos.map((photo) => ({
    prompt: photo.prompt, wish: photo.to, pictures: [`api/examples/${photo.name}`], start: () => fromPhoto(photo).catch((error) => stage.fail(error.message)),
  }));
  $("examples").replaceChildren(...[...shown, ...drawn.slice(0, shown.length ? 2 : 3)].map(example));
  for (const name of small ? ["dog-before", "layers-after"] : []) $("layers-pictures").append(make("img", { src: `static/${name}.png`, alt: "", class: "tiny" }));
}

async function further() {
  const { result } = stage.current();
  const blob = await (await fetch(result.url)).blob();
  const plain = await createImageBitmap(blob); // its recipe stays behind: it is a picture of its own now
  const canvas = new OffscreenCanvas(plain.width, plain.height);
  canvas.getContext("2d").drawImage(plain, 0, 0);
  const copy = await canvas.convertToBlob({ type: "image/png" });
  await take(copy);
  $("prompt").value = result.prompt;
  $("prompt").dispatchEvent(new Event("input"));
  form.fillIn({ prompt: result.prompt }, { picture: form.state.picture });
  stage.note("This result is the picture now. Change it further.");
}

async function session() {
  const { entry } = stage.current();
  await during(async (signal) => {
    const made = await run(`api/history/${entry.id}/session`, {}, { told: stage.showBusy, signal });
    if (made) make("a", { href: fileOf(entry, made.file), download: `${entry.id}-session.zip` }).click();
  });
}

// Draws the change again at the least strength that makes it.
export function findLeast() {
  form.setStrength("auto");
  return edit();
}

export function setUpEdit({ onLayers }) {
  layered = onLayers;
  for (const input of document.querySelectorAll("[name=origin]")) input.addEventListener("change", () => form.setOrigin(input.value));
  for (const input of document.querySelectorAll("[name=where]")) input.addEventListener("change", () => place(input.value));
  $("word-chips").addEventListener("click", (event) => {
    if (!event.target.dataset.word) return;
    form.state.word = event.target.dataset.word;
    form.showWords();
    draw("word");
  });
  $("file").addEventListener("change", () => { if ($("file").files[0]) take($("file").files[0]); $("file").value = ""; });
  $("continue").addEventListener("click", () => further().catch((error) => stage.fail(error.message)));
  $("drag").addEventListener("click", dragIt);
  $("least").addEventListener("click", findLeast);
  $("session").addEventListener("click", session);
}
