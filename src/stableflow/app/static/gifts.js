// Pictures that come by drop, paste or camera; and the dialogs.
import { $ } from "./dom.js";
import { take } from "./edit.js";
import { current, fail } from "./stage.js";

export function setUpGifts() {
  let depth = 0;
  const over = (by) => { depth = Math.max(0, depth + by); $("dropping").hidden = depth === 0; };
  addEventListener("dragenter", (event) => { if (event.dataTransfer?.types.includes("Files")) over(1); });
  addEventListener("dragleave", () => over(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    over(-Infinity);
    const file = event.dataTransfer?.files[0];
    if (file) take(file);
  });
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((given) => given.type.startsWith("image/"));
    if (file) take(file);
  });
  setUpCamera();
  setUpCode();
}

function setUpCamera() {
  const video = $("video");
  const close = () => { for (const track of video.srcObject?.getTracks() ?? []) track.stop(); video.srcObject = null; };
  $("camera").addEventListener("click", async () => {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
      $("camera-dialog").showModal();
    } catch {
      fail("The camera cannot be used: the browser does not allow it here, or there is none.");
    }
  });
  $("shoot").addEventListener("click", async () => {
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await canvas.convertToBlob({ type: "image/png" });
    $("camera-dialog").close();
    take(blob);
  });
  $("camera-dialog").addEventListener("close", close);
}

function setUpCode() {
  $("code").addEventListener("click", () => {
    const { entry } = current();
    const needs = [entry.ask.picture ? "your picture as given.png" : null, entry.ask.mask ? "the mask as mask.png" : null,
      ...(entry.ask.layers ?? []).map((layer, number) => (layer.mask && !layer.hidden ? `a layer’s mask as mask_${number}.png` : null))].filter(Boolean);
    for (const element of document.querySelectorAll(".by-command")) element.hidden = !entry.command;
    $("code-needs").textContent = needs.length ? `Beside it: ${needs.join(" and ")}.` : "It needs no other file.";
    $("code-command").textContent = entry.command;
    $("code-python").textContent = entry.python;
    $("code-dialog").showModal();
  });
  for (const button of document.querySelectorAll(".copy"))
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText($(button.dataset.from).textContent).catch(() => {});
      button.textContent = "Copied";
    });
}
