// Where a change may happen, drawn over the picture: brush, box, or what was found, corrected by hand.
import { $ } from "./dom.js";

const LONGEST = 1024, TINT = "#ff0066";
const canvas = () => $("mask");
const context = () => canvas().getContext("2d", { willReadFrequently: true });
let tool = null, erasing = false, start = null, saved = null, touched = false;

let dragTo = () => {}; // told where a drag leads, in the picture's pixels
let shift = [0, 0];

export const isTouched = () => touched;

export function setTool(name) {
  tool = name;
  canvas().style.cursor = name === "drag" ? "move" : "";
  if (name !== "drag") canvas().style.transform = "";
  canvas().hidden = name === null;
  $("mask-tools").hidden = name === null;
  for (const id of ["slide", "handle", "tag-before", "tag-after"]) if (name !== null) $(id).hidden = true;
  if (name !== null) $("after").hidden = true;
}

// Shows what is marked elsewhere: shifted by pixels of the picture.
export function showShift(dx, dy) {
  const { naturalWidth: width, naturalHeight: height } = $("before");
  shift = [dx, dy];
  canvas().style.transform = tool === "drag" && width ? `translate(${dx / width * 100}%, ${dy / height * 100}%)` : "";
}

function drag(event) {
  const scale = $("before").naturalWidth / $("frame").clientWidth;
  dragTo(...[event.clientX, event.clientY].map((now, axis) => Math.round(start[axis + 2] + (now - start[axis]) * scale)));
}

// What is marked, for another use of the canvas to leave as it was.
export const takeAway = () => ({ tool, touched, size: [canvas().width, canvas().height], pixels: context().getImageData(0, 0, canvas().width, canvas().height) });

export function bringBack(kept) {
  [canvas().width, canvas().height] = kept.size;
  context().putImageData(kept.pixels, 0, 0);
  touched = kept.touched;
  setTool(kept.tool);
}

// Takes the size of the picture below it; what was drawn is lost only where the size changes.
export function fitMask() {
  const { naturalWidth: width, naturalHeight: height } = $("before");
  if (!width) return;
  const scale = Math.min(1, LONGEST / Math.max(width, height));
  const size = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas().width === size[0] && canvas().height === size[1]) return;
  [canvas().width, canvas().height] = size;
  touched = false;
}

export function clearMask() {
  context().clearRect(0, 0, canvas().width, canvas().height);
  touched = false;
}

export function invertMask() {
  const draw = context();
  draw.globalCompositeOperation = "xor";
  draw.fillStyle = TINT;
  draw.fillRect(0, 0, canvas().width, canvas().height);
  draw.globalCompositeOperation = "source-over";
  touched = true;
}

// Marks a box of the picture's pixels, as requests describe it.
export function fillBox([x, y, width, height]) {
  const scale = canvas().width / ($("before").naturalWidth || canvas().width), draw = context();
  draw.fillStyle = TINT;
  draw.fillRect(x * scale, y * scale, width * scale, height * scale);
}

// Shows a black and white picture as the mask.
export async function showMask(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  [canvas().width, canvas().height] = [image.naturalWidth, image.naturalHeight];
  const draw = context();
  draw.drawImage(image, 0, 0);
  const pixels = draw.getImageData(0, 0, canvas().width, canvas().height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const inside = pixels.data[i] >= 128;
    [pixels.data[i], pixels.data[i + 1], pixels.data[i + 2], pixels.data[i + 3]] = [255, 0, 102, inside ? 255 : 0];
  }
  draw.putImageData(pixels, 0, 0);
  canvas().classList.toggle("tiny", canvas().width <= 160);
  touched = false;
}

// The mask as a PNG, white inside; null where nothing is drawn.
export async function maskFile() {
  const source = context().getImageData(0, 0, canvas().width, canvas().height);
  let any = false;
  for (let i = 0; i < source.data.length; i += 4) {
    const inside = source.data[i + 3] >= 128 ? 255 : 0;
    any ||= inside > 0;
    source.data[i] = source.data[i + 1] = source.data[i + 2] = inside;
    source.data[i + 3] = 255;
  }
  if (!any) return null;
  const copy = new OffscreenCanvas(canvas().width, canvas().height);
  copy.getContext("2d").putImageData(source, 0, 0);
  return copy.convertToBlob({ type: "image/png" });
}

function at(event) {
  const box = canvas().getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * canvas().width, (event.clientY - box.top) / box.height * canvas().height];
}

function stroke(from, to) {
  const draw = context();
  draw.globalCompositeOperation = erasing ? "destination-out" : "source-over";
  draw.strokeStyle = TINT;
  draw.lineCap = draw.lineJoin = "round";
  draw.lineWidth = $("brush-size").value / 100 * Math.max(canvas().width, canvas().height);
  draw.beginPath();
  draw.moveTo(...from);
  draw.lineTo(to[0] + 0.01, to[1]);
  draw.stroke();
  draw.globalCompositeOperation = "source-over";
}

function box(from, to) {
  const draw = context();
  draw.putImageData(saved, 0, 0);
  const [x, y] = [Math.floor(Math.min(from[0], to[0])), Math.floor(Math.min(from[1], to[1]))];
  const [width, height] = [Math.ceil(Math.abs(to[0] - from[0])), Math.ceil(Math.abs(to[1] - from[1]))];
  draw.globalCompositeOperation = erasing ? "destination-out" : "source-over";
  draw.fillStyle = TINT;
  draw.fillRect(x, y, width, height);
  draw.globalCompositeOperation = "source-over";
}

export function setUpMask({ onDrag }) {
  const surface = canvas();
  dragTo = onDrag;
  surface.addEventListener("pointerdown", (event) => {
    if (tool === null) return;
    surface.setPointerCapture(event.pointerId);
    if (tool === "drag") { start = [event.clientX, event.clientY, ...shift]; return; }
    start = at(event);
    saved = context().getImageData(0, 0, surface.width, surface.height);
    touched = true;
    if (tool !== "box") stroke(start, start);
  });
  surface.addEventListener("pointermove", (event) => {
    if (start === null) return;
    if (tool === "drag") return drag(event);
    const now = at(event);
    if (tool === "box") box(start, now);
    else { stroke(start, now); start = now; }
  });
  for (const end of ["pointerup", "pointercancel"]) surface.addEventListener(end, () => { start = null; });
  $("erase").addEventListener("click", () => {
    erasing = !erasing;
    $("erase").setAttribute("aria-pressed", erasing);
  });
  $("mask-clear").addEventListener("click", clearMask);
  $("mask-invert").addEventListener("click", invertMask);
}
