// A ZIP file of photos, stored as they are (they are compressed already), below 4 GB.

const TABLE = new Uint32Array(256).map((_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

function checksum(bytes) {
  let sum = ~0;
  for (const byte of bytes) sum = TABLE[(sum ^ byte) & 255] ^ (sum >>> 8);
  return ~sum >>> 0;
}

// entries: [{name, blob}] -> Blob
export async function zip(entries) {
  const parts = [];
  const index = [];
  const taken = new Set();
  let offset = 0;
  const [time, date] = stamp(new Date());
  for (const entry of entries) {
    const name = new TextEncoder().encode(unique(entry.name, taken));
    const size = entry.blob.size;
    if (offset + size > 0xf0000000) throw new Error("all photos together are larger than 4 GB: please download them one by one");
    const sum = checksum(new Uint8Array(await entry.blob.arrayBuffer()));
    // version, UTF-8 names, stored, time and date
    const common = [[20, 2], [0x0800, 2], [0, 2], [time, 2], [date, 2], [sum, 4], [size, 4], [size, 4], [name.length, 2], [0, 2]];
    const head = record(0x04034b50, common);
    index.push(record(0x02014b50, [[20, 2], ...common, [0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]]), name);
    parts.push(head, name, entry.blob);
    offset += head.length + name.length + size;
  }
  const length = index.reduce((sum, part) => sum + part.length, 0);
  const count = entries.length;
  const end = record(0x06054b50, [[0, 2], [0, 2], [count, 2], [count, 2], [length, 4], [offset, 4], [0, 2]]);
  return new Blob([...parts, ...index, end], { type: "application/zip" });
}

// Time, in steps of two seconds, and date as ZIP stores them: local, since 1980.
function stamp(at) {
  const time = (at.getHours() << 11) | (at.getMinutes() << 5) | (at.getSeconds() >> 1);
  return [time, ((at.getFullYear() - 1980) << 9) | ((at.getMonth() + 1) << 5) | at.getDate()];
}

function record(signature, fields) {
  const bytes = [];
  for (let [value, width] of [[signature, 4], ...fields]) for (; width--; value = Math.floor(value / 256)) bytes.push(value % 256);
  return new Uint8Array(bytes);
}

// Some systems take names for the same that differ by case, or by how an accent is spelt.
function unique(name, taken) {
  const [, stem, ending] = name.match(/^(.*?)(\.[^./]*)?$/s);
  const key = (text) => text.normalize().toLowerCase();
  let made = name;
  for (let n = 2; taken.has(key(made)); n++) made = `${stem}-${n}${ending || ""}`;
  taken.add(key(made));
  return made;
}
