// The page: models to choose from, photos to add, a list that fills, and the photo before and after.

import { Again } from "./again.js";
import * as api from "./api.js";
import { fromClipboard, fromDrop, fromInput, isPhoto, skipped } from "./files.js";
import { Painting } from "./painting.js";
import { picturesOf, thumbnail } from "./pictures.js";
import { Queue } from "./queue.js";
import { deliver, nameOf, resultOf } from "./saving.js";
import { Stage } from "./stage.js";
import { askForToken } from "./token.js";
import { noiseWord, sentence, stateOf, timeLeft } from "./words.js";
import { zip } from "./zip.js";

const $ = (id) => document.getElementById(id);
const UNFINISHED = ["queued", "sending", "waiting", "running"];
const ENDED = ["done", "failed", "cancelled"];
const LOSSY = ["JPEG", "WEBP", "AVIF"];

const metadata = () => ($("keep-metadata").checked ? "keep" : "strip");
const queue = new Queue({ changed, metadata });
const stage = new Stage({ onPaint: (...what) => painting.onPaint(...what) });
let models = [];
let current = null;
let numbers = 0;
const early = []; // added before the models were there

// --- models ------------------------------------------------------------------------------------------------

async function loadModels() {
  for (;;) {
    try {
      const held = await api.models();
      if (held.ready || held.models.every((model) => model.example)) return showModels(held.models);
      notReady("The server is starting, please wait a moment.");
    } catch (problem) {
      if (problem.code === "token") return withoutToken();
      notReady(problem.status ? problem.message : "The server cannot be reached. This page keeps trying.");
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

function notReady(text) {
  const photos = early.filter(({ file }) => isPhoto(file));
  if (photos.length) text += ` ${photos.length === 1 ? `${photos[0].path} is` : `${photos.length} photos are`} added as soon as it is ready.`;
  if ($("notice").hidden || $("notice").textContent !== text) say(text, { lasting: true });
}

function withoutToken() {
  say("Without an access token this page cannot restore photos.", { lasting: true });
  $("enter-token").hidden = false;
}

$("enter-token").addEventListener("click", () => {
  $("enter-token").hidden = true;
  loadModels();
});

function showModels(found) {
  models = found;
  $("notice").hidden = true;
  const twice = (model) => models.filter((other) => other.title === model.title).length > 1;
  $("models").replaceChildren(...models.map((model, index) => {
    const card = $("card").content.cloneNode(true).firstElementChild;
    const radio = card.querySelector("input");
    radio.value = model.name;
    radio.checked = index === 0;
    card.querySelector(".card-title").textContent = twice(model) ? `${model.title} (${model.name})` : model.title;
    card.querySelector(".card-text").textContent = model.description;
    const frame = card.querySelector(".example");
    if (model.example) showExample(card, model).catch(() => { frame.hidden = true; });
    else frame.hidden = true;
    return card;
  }));
  modelChanged();
  queue.pump();
  if (early.length) add(early.splice(0));
}

async function showExample(card, model) {
  const [before, after] = await Promise.all(["before", "after"].map((side) => api.image(`${model.example}?side=${side}`)));
  card.querySelector(".example-before").src = before;
  card.querySelector(".example-after").src = after;
}

function chosen() {
  const name = document.querySelector("input[name=model]:checked")?.value;
  return models.find((model) => model.name === name);
}

const asksForNoise = (model) => model?.needs === "noise level";
const sigmaFor = (model) => (!asksForNoise(model) ? null : $("sigma-auto").checked ? "auto" : Number($("sigma").value));

function modelChanged() {
  $("noise").hidden = !asksForNoise(chosen());
  $("sigma").disabled = $("sigma-auto").checked;
  $("sigma-word").textContent = $("sigma").disabled ? "" : noiseWord(Number($("sigma").value));
  $("sigma").setAttribute("aria-valuetext", $("sigma-word").textContent);
  renderTools();
  cancelOrAgain();
}

// --- photos come in ----------------------------------------------------------------------------------------

function add(found) {
  const model = chosen();
  if (!model) {
    early.push(...found);
    if ($("enter-token").hidden) notReady("The server is not ready yet.");
    return;
  }
  const photos = found.filter(({ file }) => isPhoto(file));
  const others = found.filter(({ file }) => !isPhoto(file));
  if (others.length) say(skipped(others.map(({ path }) => path)));
  else $("notice").hidden = true;
  if (!photos.length) return;
  makeRoom();
  $("photos").hidden = false;
  for (const { file, path } of photos) {
    const item = { id: ++numbers, file, path, name: path.split("/").at(-1), model, sigma: sigmaFor(model), strength: 1, progress: 0 };
    item.state = model.needs === "mask" ? "paint" : "queued";
    makeRow(item);
    queue.add(item);
  }
  if (!current || current.state !== "paint") open(queue.items.at(-photos.length), { scroll: model.needs === "mask" && "instant" });
  announce(photos.length === 1 ? `${photos[0].path} was added` : `${photos.length} photos were added`);
}

// The models become one line, which scrolls on a phone: to the chosen one.
function makeRoom() {
  document.body.classList.add("small");
  skipTo("photos", "Skip to your photos");
  const line = $("models"), card = line.querySelector(".card:has(:checked)");
  line.scrollLeft = card.offsetLeft + card.offsetWidth / 2 - line.clientWidth / 2;
}

function skipTo(id, text) {
  Object.assign(document.querySelector(".skip"), { href: `#${id}`, textContent: text });
}

for (const [button, input] of [["pick-files", "files"], ["pick-folder", "folder"], ["pick-camera", "camera"]]) {
  $(button).addEventListener("click", () => $(input).click());
  $(input).addEventListener("change", () => add(fromInput($(input))));
}
document.addEventListener("paste", (event) => {
  const found = fromClipboard(event.clipboardData);
  if (found.length) event.preventDefault(), add(found);
});
let depth = 0;
document.addEventListener("dragenter", () => $("drop").classList.toggle("over", ++depth > 0));
document.addEventListener("dragleave", () => $("drop").classList.toggle("over", --depth > 0));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  depth = 0;
  $("drop").classList.remove("over");
  const found = await fromDrop(event.dataTransfer);
  if (found.length) add(found);
  else say("No photo was found in what you dropped.");
});

// --- the list ----------------------------------------------------------------------------------------------

function makeRow(item) {
  const row = $("row").content.cloneNode(true).firstElementChild;
  item.row = row;
  row.querySelector(".name").textContent = row.querySelector(".name").title = item.path;
  row.querySelector(".open").addEventListener("click", () => open(item, { scroll: "smooth" }));
  row.querySelector(".row-save").addEventListener("click", () => saveOne(item));
  row.querySelector(".row-cancel").addEventListener("click", () => (UNFINISHED.includes(item.state) ? queue.cancel(item) : remove(item)));
  seen.observe(row);
  row.item = item;
  $("list").append(row);
}

// Thumbnails are made when their row comes into sight, one after the other.
let thumbnails = Promise.resolve();
const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    thumbnails = thumbnails.then(() => thumbnail(target.item)).then((url) => (target.querySelector(".thumb img").src = url)).catch(() => {});
  }
});

function changed(item) {
  const { row } = item;
  row.className = `row ${item.state}`;
  row.querySelector(".state").textContent = stateOf(item);
  const bar = row.querySelector("progress");
  if (item.state === "sending") bar.removeAttribute("value");
  else bar.value = item.progress;
  bar.setAttribute("aria-label", `Progress of ${item.path}`);
  const button = row.querySelector(".row-cancel");
  const verb = UNFINISHED.includes(item.state) ? "Cancel" : "Remove";
  button.querySelector(".wide").textContent = verb;
  button.setAttribute("aria-label", `${verb} ${item.path}`);
  const save = row.querySelector(".row-save");
  save.hidden = !item.result;
  save.setAttribute("aria-label", `Download ${item.path}`);
  if (["done", "failed"].includes(item.state) && item.announced !== item.state) announce(`${item.path}: ${stateOf(item)}`);
  item.announced = item.state;
  summary();
  if (item === current) render();
}

function summary() {
  const { items } = queue;
  const done = items.filter((item) => item.state === "done").length;
  const open = items.filter((item) => UNFINISHED.includes(item.state));
  const failed = items.filter((item) => item.state === "failed").length;
  const parts = [`${done} of ${items.length} done`];
  if (failed) parts.push(`${failed} failed`);
  const cancelled = items.filter((item) => item.state === "cancelled").length;
  if (cancelled) parts.push(`${cancelled} cancelled`);
  const seconds = remaining(open);
  if (open.length && seconds !== null) parts.push(timeLeft(seconds));
  $("count").textContent = parts.join(", ");
  document.title = open.length ? `${done} of ${items.length}: restora` : "restora: restore your photos";
  $("total").value = items.length ? items.reduce((sum, item) => sum + share(item), 0) / items.length : 0;
  $("save-all").disabled = !items.some((item) => item.result) || $("save-all").busy;
  cancelOrAgain();
}

// One button: as long as something is to be done it cancels that, then it restores what was not restored.
function cancelOrAgain() {
  const open = queue.items.some((item) => UNFINISHED.includes(item.state));
  const again = new Again(queue.items, chosen());
  $("cancel-all").disabled = !open && !again.items.length;
  $("cancel-all").textContent = open || !again.items.length ? "Cancel all" : again.label;
}

const share = (item) => (ENDED.includes(item.state) ? 1 : UNFINISHED.includes(item.state) ? item.progress : 0);

// Seconds for all photos that are not done, by what the done ones took for each byte.
function remaining(open) {
  const running = open.filter((item) => item.left != null && item.state === "running");
  const rest = open.filter((item) => !running.includes(item));
  const finished = queue.items.filter((item) => item.state === "done" && item.took);
  if (rest.length && !finished.length && !rest.some((item) => item.left != null)) return null;
  const pace = finished.reduce((sum, item) => sum + item.took, 0) / (finished.reduce((sum, item) => sum + item.file.size, 0) || 1);
  return running.reduce((sum, item) => sum + item.left, 0) + rest.reduce((sum, item) => sum + (item.left ?? item.file.size * pace), 0);
}

function remove(item) {
  const index = queue.items.indexOf(item);
  const held = item.row.contains(document.activeElement);
  queue.remove(item);
  item.row.remove();
  for (const url of [item.beforeUrl, item.afterUrl]) if (url) URL.revokeObjectURL(url);
  const next = queue.items[Math.min(index, queue.items.length - 1)] || null;
  if (item === current) open(next);
  if (held) next?.row.querySelector(".row-cancel").focus({ preventScroll: true });
  if (!queue.items.length) {
    if (held || document.activeElement === $("remove-all")) $("pick-files").focus({ preventScroll: true });
    $("photos").hidden = true;
    document.body.classList.remove("small");
    skipTo("drop", "Skip to adding photos");
  }
  summary();
}

$("cancel-all").addEventListener("click", (event) => {
  if (event.detail > 1) return; // the second of a double click, or it would undo the first
  const open = queue.items.filter((item) => UNFINISHED.includes(item.state));
  if (open.length) return open.forEach((item) => queue.cancel(item));
  const again = new Again(queue.items, chosen());
  for (const item of again.items) queue.start(Object.assign(item, again.changes(item, sigmaFor(again.model))));
});
$("remove-all").addEventListener("click", () => {
  const lost = queue.items.filter(wouldBeLost).length;
  if (lost && !confirm(`${lost === 1 ? "1 photo is" : `${lost} photos are`} not finished or not downloaded. Clear the list anyway?`)) return;
  [...queue.items].forEach(remove);
});

// --- one photo, large --------------------------------------------------------------------------------------

async function open(item, { scroll = "" } = {}) {
  const last = current;
  current = item;
  for (const other of [last, item]) other?.row.querySelector(".open").setAttribute("aria-current", other === item);
  $("viewer").hidden = !item;
  if (!item) return;
  $("viewer-title").textContent = $("viewer-title").title = item.path;
  $("strength").value = item.strength * 100;
  $("format").value = item.saveAs ?? "";
  render();
  if (scroll) show(scroll);
}

const show = (behavior) => $("viewer").scrollIntoView({ block: "start", behavior });

async function render() {
  const item = current;
  renderTools();
  try {
    await picturesOf(item);
  } catch (problem) {
    if (item !== current) return;
    stage.show({ before: null, after: null, width: 1, height: 1 });
    $("zoom-value").textContent = "";
    return wait(`This photo cannot be shown: ${problem.message}`, { spin: false });
  }
  if (item !== current) return;
  const done = item.state === "done" && item.afterOf === item.result;
  const scale = done ? Math.max(1, Math.round(Math.max(item.size.width, item.size.height) / Math.max(item.given.width, item.given.height))) : 1;
  stage.show({ before: item.beforeUrl, after: done ? item.afterUrl : null, width: item.given.width * scale, height: item.given.height * scale, clear: item.given.clear });
  stage.setStrength(item.strength);
  painting.show(item.state === "paint" ? item : null);
  const busy = UNFINISHED.includes(item.state);
  wait(busy || item.state === "failed" ? stateOf(item) : "", { spin: busy });
}

function wait(text, { spin }) {
  $("stage-wait").hidden = !text;
  $("stage-text").textContent = text;
  $("stage-wait").querySelector(".spinner").hidden = !spin;
}

function renderTools() {
  const item = current;
  if (!item) return;
  const held = $("viewer").contains(document.activeElement) && document.activeElement.matches(":focus-visible") && document.activeElement;
  const done = item.state === "done";
  $("compare-tools").hidden = !done;
  const paints = item.state === "paint";
  const model = chosen();
  const other = model && model !== (paints ? item.wanted ?? item.model : item.model);
  $("save-tools").hidden = !(ENDED.includes(item.state) || paints);
  $("restore").hidden = !paints;
  for (const id of ["save", "format"]) (id === "format" ? $(id).parentElement : $(id)).hidden = !done;
  $("mask-tools").hidden = !paints;
  $("strength-value").textContent = `${Math.round(item.strength * 100)}%`;
  $("again").hidden = !other && (paints || item.model.needs === "mask"); // that is to paint again
  const verb = paints && !item.result ? "Restore" : "Restore again";
  $("again").textContent = other ? `${verb} as “${model.title.toLowerCase()}”` : verb;
  $("paint-again").hidden = paints || item.model.needs !== "mask";
  $("back").hidden = !(paints && item.result);
  if (held && !held.checkVisibility()) $("stage").focus(); // or the keyboard would be nowhere
}

$("strength").addEventListener("input", () => {
  current.strength = Number($("strength").value) / 100;
  stage.setStrength(current.strength);
  renderTools();
});
$("format").addEventListener("change", () => (current.saveAs = $("format").value));
$("again").addEventListener("click", () => {
  const item = current;
  const model = chosen();
  if (model.needs === "mask") return paint(item, model);
  Object.assign(item, { model, sigma: sigmaFor(model), mask: null, wanted: null });
  queue.start(item);
});
$("paint-again").addEventListener("click", () => paint(current, current.model));
$("back").addEventListener("click", () => changed(Object.assign(current, { state: "done", wanted: null })));

// --- painting ----------------------------------------------------------------------------------------------

// The photo's result and the model that made it are kept until the next one starts.
function paint(item, model) {
  Object.assign(item, { state: "paint", wanted: model });
  changed(item);
  show("instant"); // with the tools below it
}

const painting = new Painting({ stage, say, restore: (item, drawn) => {
  if (item.state !== "paint") return;
  Object.assign(item, { model: item.wanted ?? item.model, sigma: null, wanted: null, mask: drawn });
  if (LOSSY.includes(item.format) || /\.(jpe?g|jpe|jfif|webp|avif)$/i.test(item.name)) item.saveAs ??= "png"; // or the untouched pixels are compressed anew
  if (item === current) $("format").value = item.saveAs ?? "";
  queue.start(item);
} });

// --- results go out ----------------------------------------------------------------------------------------

async function saveOne(item) {
  try {
    const blob = await resultOf(item, metadata());
    deliver(blob, nameOf(item.name, blob));
    item.saved = item.result;
  } catch (problem) {
    say(`${item.path} was not saved: ${reasonOf(item, problem)}`);
  }
}

// Why a result is not saved. The server keeps results for a while only: what is asked for later is restored again.
function reasonOf(item, problem) {
  if (problem.status !== 404 && problem.status !== 410) return problem.message;
  queue.start(item);
  return "the server no longer has this result. The photo is being restored again: please download it when it is done";
}

$("save").addEventListener("click", () => saveOne(current));
$("save-all").addEventListener("click", async () => {
  const button = $("save-all");
  button.busy = button.disabled = true;
  const entries = [];
  const missing = [];
  for (const item of queue.items.filter((other) => other.result)) {
    try {
      const { result } = item;
      const blob = await resultOf(item, metadata());
      entries.push({ name: nameOf(item.path, blob), blob, item, result });
    } catch (problem) {
      missing.push({ path: item.path, why: reasonOf(item, problem) });
    }
  }
  const names = missing.slice(0, 3).map(({ path }) => path).join(", ") + (missing.length > 3 ? ", …" : "");
  if (missing.length) say(`Not in the ZIP: ${names} (${missing[0].why})`);
  try {
    if (entries.length) deliver(await zip(entries), "restored.zip");
    for (const { item, result } of entries) item.saved = result;
  } catch (error) {
    say(sentence(error.message));
  }
  button.busy = false;
  summary();
});

// --- messages ----------------------------------------------------------------------------------------------

let quiet = 0;
function say(text, { lasting = false } = {}) {
  $("notice").textContent = text;
  $("notice").hidden = false;
  $("notice").classList.toggle("passing", !lasting); // over the page, wherever it is scrolled to
  clearTimeout(quiet);
  if (!lasting) quiet = setTimeout(() => ($("notice").hidden = true), 12000);
}

function announce(text) {
  $("live").textContent = text;
}

api.onTokenNeeded(askForToken);

window.addEventListener("pagehide", () => queue.items.forEach((item) => item.job && api.forget(item.job)));
// Asks before photos, results that were not downloaded, or strokes are lost.
const wouldBeLost = (item) =>
  UNFINISHED.includes(item.state) || (item.result && item.saved !== item.result) || (item.state === "paint" && item.steps?.length);
window.addEventListener("beforeunload", (event) => {
  if (early.length || queue.items.some(wouldBeLost)) event.preventDefault();
});
document.addEventListener("change", (event) => event.target.name === "model" && modelChanged());
$("sigma").addEventListener("input", modelChanged);
$("sigma-auto").addEventListener("change", modelChanged);
loadModels();
