// Photos from what the user dropped, chose or pasted: [{file, path}], folders walked through.

export const PHOTO_ENDING = new RegExp(`\\.(${[
  "jpe?g|jpe|jfif|png|apng|tiff?|webp|bmp|dib|p[bgnp]m|avif|heic|heif|hif|gif|jp2|j2k|jpx|mpo",
  "dng|cr2|cr3|crw|nef|nrw|arw|sr2|raf|orf|rw2|pef|srw|x3f|erf|mrw|kdc|dcr|mef|mos|iiq|3fr", // of cameras
].join("|")})$`, "i");
const DOCUMENT = /\.(pdf|svg|psd|xcf|ai|eps|docx?|odt|pptx?|odp|key|pages)$/i;
const TYPES = { "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/bmp": "bmp", "image/tiff": "tif", "image/gif": "gif", "image/avif": "avif", "image/heic": "heic", "image/heif": "heif" };

export const isPhoto = (file) => PHOTO_ENDING.test(file.name) || file.type in TYPES;

// What to say of the files that are not photos.
export function skipped(names) {
  const fix = names.some((name) => DOCUMENT.test(name)) ? " (save the pictures of a document as JPEG or PNG first)" : "";
  if (names.length === 1) return `${names[0]} is not a photo and was skipped${fix}.`;
  return `${names.length} files are not photos and were skipped${fix}: ${names.slice(0, 3).join(", ")}${names.length > 3 ? ", …" : ""}`;
}

export function fromInput(input) {
  const found = [...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
  input.value = "";
  return found;
}

export function fromClipboard(data) {
  return [...data.files].map((file, index) => {
    const plain = file.name && file.name !== "image.png" ? file.name : `pasted-${stamp(index)}.${TYPES[file.type] || "png"}`;
    return { file, path: plain };
  });
}

function stamp(index) {
  const now = new Date().toTimeString().slice(0, 8).replaceAll(":", "");
  return index ? `${now}-${index}` : now;
}

// The entries have to be taken before the first `await`: they are gone after the event.
export async function fromDrop(data) {
  const entries = [...data.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const loose = entries.length ? [] : [...data.files].map((file) => ({ file, path: file.name }));
  const found = [];
  for (const entry of entries) await walk(entry, found);
  return loose.concat(found);
}

async function walk(entry, found) {
  if (entry.name.startsWith(".")) return;
  if (entry.isFile) {
    const file = await new Promise((done, fail) => entry.file(done, fail)).catch(() => null);
    if (file) found.push({ file, path: entry.fullPath.replace(/^\//, "") });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail)).catch(() => []);
    if (!some.length) return; // a folder comes in portions of a hundred
    for (const inner of some.sort((a, b) => a.name.localeCompare(b.name))) await walk(inner, found);
  }
}
