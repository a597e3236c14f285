// Results as files: their format, their names, the download.

import * as api from "./api.js";

const ENDINGS = { png: ".png", jpeg: ".jpg", webp: ".webp", tiff: ".tif" };

// `metadata` is what is wanted now, keep or strip.
export async function resultOf(item, metadata) {
  const format = item.saveAs || "";
  if (!format && item.strength === 1 && metadata === item.metadata) return item.result;
  return api.photo(item.job, { format, strength: item.strength, metadata });
}

// A format that is read and not written, such as HEIC, RAW or GIF, comes back as PNG.
export function nameOf(path, item, blob) {
  const format = item.saveAs || (item.format !== "PNG" && blob.type === "image/png" ? "png" : "");
  return format ? path.replace(/(\.[^./]*)?$/, ENDINGS[format]) : path;
}

export function deliver(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
