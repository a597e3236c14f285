// Results as files: their format, their names, the download.

import * as api from "./api.js";
import { PHOTO_ENDING } from "./files.js";

// By media type: the endings of its files, the one for new names first.
const ENDINGS = {
  "image/png": ["png", "apng"],
  "image/jpeg": ["jpg", "jpeg", "jpe", "jfif"],
  "image/webp": ["webp"],
  "image/tiff": ["tif", "tiff"],
  "image/avif": ["avif"],
  "image/bmp": ["bmp", "dib"],
  "image/x-portable-anymap": ["ppm", "pgm", "pnm"],
};

// `metadata` is what is wanted now, keep or strip.
export async function resultOf(item, metadata) {
  const format = item.saveAs || "";
  if (!format && item.strength === 1 && metadata === item.metadata) return item.result;
  return api.photo(item.job, { format, strength: item.strength, metadata });
}

// The path with the ending of what is in the file: a photo may have the ending of another format, and one that
// is read and not written, such as HEIC, RAW or GIF, comes back as PNG.
export function nameOf(path, blob) {
  const fitting = ENDINGS[blob.type];
  if (!fitting || fitting.includes(path.split(".").at(-1).toLowerCase())) return path;
  return `${path.replace(PHOTO_ENDING, "")}.${fitting[0]}`;
}

export function deliver(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
