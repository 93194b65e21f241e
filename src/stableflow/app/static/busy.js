// One thing at a time: what runs, how it is cancelled, and the source picture that the stage shows first.
import { run } from "./api.js";
import { $ } from "./dom.js";
import * as form from "./form.js";
import * as stage from "./stage.js";

let running = null; // what cancels it
let source = { key: null };

export const isBusy = () => running !== null;

export async function during(work) {
  if (running) {
    stage.note("One thing at a time: this waits until the present request is over, or is cancelled.");
    return null;
  }
  running = new AbortController();
  $("go").hidden = true;
  $("cancel").hidden = false;
  $("cancel").textContent = "Cancel";
  stage.clearMessages();
  if (matchMedia("(max-width: 900px)").matches) scrollTo({ top: 0, behavior: "smooth" }); // the picture stands there
  try {
    return await work(running.signal);
  } catch (error) {
    stage.fail(error.message);
    return null;
  } finally {
    running = null;
    $("go").hidden = false;
    $("cancel").hidden = true;
    stage.showBusy(null);
  }
}

// Makes sure that the stage shows the source picture; false where that was cancelled.
export async function needSource(signal) {
  const ask = form.sourceAsk();
  const key = JSON.stringify(ask.picture ? [ask.picture] : [ask.prompt, ask.seed, ask.steps, ask.width, ask.height]);
  if (source.key === key) {
    await stage.showSource(source.url, ask.prompt);
    return true;
  }
  if (form.state.origin === "own") {
    source = { key, url: form.state.picture.url };
  } else {
    const made = await run("api/jobs/source", { ...ask, editor: "stable-flow", set: {} }, { told: stage.showBusy, signal });
    if (!made) return false;
    source = { key, url: made.picture };
  }
  await stage.showSource(source.url, ask.prompt);
  return true;
}

export const forgetSource = () => { source = { key: null }; };

export function setUpBusy() {
  $("cancel").addEventListener("click", () => { $("cancel").textContent = "Stopping…"; running?.abort(); });
  $("draw").addEventListener("click", () => during(needSource));
  $("dice").addEventListener("click", () => { $("seed").value = Math.floor(Math.random() * 1e6); during(needSource); });
}
