// What is shown of a photo: a file that the browser can decode, its result, a thumbnail.

import * as api from "./api.js";

const SIDE = 112; // pixels of a thumbnail

// The photo's own file, or a PNG that the server makes of it; asked again if the server could not be reached.
function showable(item) {
  item.shown ??= decodable(item.file).then((fine) => (fine ? item.file : api.preview(item.file))).catch((problem) => {
    if (later(problem)) item.shown = null;
    throw problem;
  });
  return item.shown;
}

const later = ({ status }) => status === 0 || status === 503;

async function decodable(blob) {
  try {
    (await createImageBitmap(blob)).close();
    return true;
  } catch {
    return false;
  }
}

async function measure(item) {
  item.beforeUrl = URL.createObjectURL(await showable(item));
  const probe = new Image();
  probe.src = item.beforeUrl;
  await probe.decode();
  item.given = { width: probe.naturalWidth, height: probe.naturalHeight, clear: isClear(probe) };
}

// Whether a picture has transparency; reduced, single pixels still count.
function isClear(picture) {
  const context = new OffscreenCanvas(SIDE, SIDE).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, SIDE, SIDE);
  const { data } = context.getImageData(0, 0, SIDE, SIDE);
  for (let at = 3; at < data.length; at += 4) if (data[at] < 255) return true;
  return false;
}

// Sets the item's `beforeUrl`, `given` size and, if it is done, `afterUrl`.
export async function picturesOf(item) {
  item.measured ??= measure(item).catch((problem) => {
    if (later(problem)) item.measured = null;
    throw problem;
  });
  await item.measured;
  if (item.state === "done" && item.afterOf !== item.result) {
    const result = item.result;
    const blob = (await decodable(result)) ? result : await previewOf(item, result);
    if (item.afterUrl) URL.revokeObjectURL(item.afterUrl);
    item.afterUrl = URL.createObjectURL(blob);
    item.afterOf = result;
  }
}

// The server keeps results for a while only; this page has it still.
const previewOf = (item, result) => api.photo(item.job, { format: "preview" }).catch((problem) => {
  if (problem.status !== 404 && problem.status !== 410) throw problem;
  return api.preview(result);
});

export async function thumbnail(item) {
  const picture = await createImageBitmap(await showable(item));
  const ratio = SIDE / Math.min(picture.width, picture.height);
  const sheet = new OffscreenCanvas(SIDE, SIDE);
  const [width, height] = [picture.width * ratio, picture.height * ratio];
  sheet.getContext("2d").drawImage(picture, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
  picture.close();
  return URL.createObjectURL(await sheet.convertToBlob({ type: "image/webp", quality: 0.85 })); // keeps transparency
}
