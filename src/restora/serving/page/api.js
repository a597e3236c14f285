// The HTTP API, with the token where the server asks for one. What goes wrong is thrown as a Problem.

export class Problem extends Error {
  constructor(status, body, retryAfter) {
    // what only the operator can do is left out for the person at the page
    super((body.detail || "the server cannot be reached").replace(/[,:] (or )?start (the server )?with .*$/, ""));
    this.status = status;
    this.code = body.code || "";
    this.retryAfter = retryAfter;
  }
}

const KEY = "restora-token";
let token = sessionStorage.getItem(KEY) || "";
if (location.hash.startsWith("#token=")) {
  setToken(decodeURIComponent(location.hash.slice(7)));
  history.replaceState(null, "", location.pathname);
}
let askForToken = async () => null;

export function onTokenNeeded(ask) {
  askForToken = ask;
}

function setToken(value) {
  token = value.replace(/[^\x20-\x7e]/g, "?"); // a header holds nothing else: the server refuses it
  sessionStorage.setItem(KEY, value);
}

async function call(path, options = {}) {
  for (;;) {
    const used = token;
    const headers = { ...options.headers, ...(used && { Authorization: `Bearer ${used}` }) };
    let answer;
    try {
      answer = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(0, {}, 3);
    }
    if (answer.ok) return answer;
    if (answer.status === 401) {
      if (used !== token) continue; // another request has asked meanwhile
      const given = await askForToken({ refused: Boolean(used) });
      if (given === null) throw new Problem(401, { code: "token", detail: "an access token is needed" });
      setToken(given);
      continue;
    }
    const body = await answer.json().catch(() => ({ detail: `the server reported an error (${answer.status})` }));
    throw new Problem(answer.status, body, Number(answer.headers.get("Retry-After")) || null);
  }
}

// A file that cannot be read any more looks to `fetch` as if the server could not be reached.
async function upload(path, body, file, options = {}) {
  try {
    return await call(path, { method: "POST", body, ...options });
  } catch (problem) {
    if (problem.status !== 0 || (await readable(file))) throw problem;
    throw new Problem(422, { detail: "the file was moved, changed or deleted after it was added: please add it again" });
  }
}

async function readable(file) {
  const reader = file.stream().getReader();
  return reader.read().then(() => (reader.cancel(), true), () => false);
}

export const models = async () => (await call("/v1/models")).json();

export const image = async (path) => URL.createObjectURL(await (await call(path)).blob());

export async function send(file, { name, model, sigma, mask, metadata }, signal, key) {
  const form = new FormData();
  form.append("model", model);
  form.append("name", name);
  form.append("metadata", metadata);
  if (sigma !== null) form.append("sigma", sigma);
  if (mask) {
    form.append("mask_orientation", "upright");
    form.append("mask", mask, "mask.png");
  }
  form.append("photo", file, "photo");
  return (await upload("/v1/restorations", form, file, { signal, headers: { "Idempotency-Key": key } })).json();
}

export const status = async (id) => (await call(`/v1/restorations/${id}`)).json();

export async function photo(id, { format = "", strength = 1, metadata = "" } = {}) {
  const query = new URLSearchParams();
  if (format) query.set("format", format);
  if (strength < 1) query.set("strength", strength);
  if (metadata) query.set("metadata", metadata);
  return (await call(`/v1/restorations/${id}/photo?${query}`)).blob();
}

export async function preview(file) {
  const form = new FormData();
  form.append("photo", file, "photo");
  return (await upload("/v1/preview", form, file)).blob();
}

// Also called when the page goes: `keepalive` lets it arrive.
export function forget(id) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(`/v1/restorations/${id}`, { method: "DELETE", headers, keepalive: true }).catch(() => {});
}
