// The photos of this page on their way through the server, two at a time so that it never waits for us.
//
// An item: {id, file, name, model, sigma, mask, state, ...}; its states are paint (waits for a mask), queued,
// sending, waiting, running, done, failed, cancelled. `changed(item)` is called after every change.

import * as api from "./api.js";

const AT_ONCE = 2;
const POLL_MS = 350;
const GOING = ["sending", "waiting", "running"];

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export class Queue {
  constructor({ changed, metadata }) {
    this.items = [];
    this.changed = changed;
    this.metadata = metadata;
    this.going = 0;
    this.quietUntil = 0; // the server asked not to be asked before
  }

  add(item) {
    this.items.push(item);
    this.changed(item);
    this.pump();
  }

  // Restores an item (again), as its fields now say.
  start(item) {
    this._drop(item);
    Object.assign(item, { state: "queued", note: "", progress: 0, left: null, result: null, size: null, said: null });
    this.changed(item);
    this.pump();
  }

  cancel(item) {
    if (item.state === "queued") this._set(item, { state: "cancelled" });
    else if (GOING.includes(item.state)) {
      item.stop?.abort();
      this._drop(item);
      this._set(item, { state: "cancelled" });
    }
  }

  remove(item) {
    this.cancel(item);
    this._drop(item);
    this.items = this.items.filter((other) => other !== item);
  }

  pump() {
    while (this.going < AT_ONCE && Date.now() >= this.quietUntil) {
      const item = this.items.find((other) => other.state === "queued");
      if (!item) return;
      this.going += 1;
      this._serve(item).finally(() => {
        this.going -= 1;
        this.pump();
      });
    }
  }

  _set(item, change) {
    Object.assign(item, change);
    this.changed(item);
  }

  _drop(item) {
    if (item.job) api.forget(item.job);
    item.job = null;
  }

  async _serve(item) {
    const turn = (item.turn = Symbol("turn"));
    const current = () => item.turn === turn && GOING.includes(item.state);
    item.stop = new AbortController();
    this._set(item, { state: "sending", note: "", progress: 0, metadata: this.metadata() });
    try {
      const options = { name: item.name, model: item.model.name, sigma: item.sigma, mask: item.mask, metadata: item.metadata };
      this._name(item, options);
      let job = await api.send(item.file, options, item.stop.signal, item.key);
      if (!current()) return void api.forget(job.id);
      item.job = job.id;
      while (["waiting", "running"].includes(job.state)) {
        this._set(item, { state: job.state, position: job.position, progress: job.progress.fraction, left: job.seconds_left });
        await pause(POLL_MS);
        if (!current()) return;
        job = await this._patiently(item, () => api.status(item.job));
        if (!current()) return;
      }
      if (job.state !== "done") item.said = null; // its key would bring this job back
      if (job.state === "failed") throw new api.Problem(job.problem.status, job.problem);
      if (job.state === "cancelled") return this._set(item, { state: "cancelled" });
      const result = await this._patiently(item, () => api.photo(job.id));
      if (!current()) return;
      this._set(item, { state: "done", progress: 1, took: job.seconds, result, size: job.result, noise: item.sigma === "auto" ? job.result.sigma : null, format: job.photo.format, frames: job.photo.frames });
    } catch (problem) {
      if (item.turn !== turn || !GOING.includes(item.state)) return;
      this._failed(item, problem);
    }
  }

  // A key for what is sent: if the answer is lost, sending it again brings the same job.
  _name(item, { mask, ...options }) {
    const said = JSON.stringify(options);
    if (item.said !== said) Object.assign(item, { said, key: crypto.getRandomValues(new Uint32Array(4)).join("-") });
  }

  // A connection that breaks while the server works is nothing: it is asked again until it answers.
  async _patiently(item, ask) {
    const { turn } = item;
    const current = () => item.turn === turn && GOING.includes(item.state);
    for (;;) {
      try {
        const found = await ask();
        item.note = "";
        return found;
      } catch (problem) {
        if (problem.status !== 0 || !current()) throw problem;
        this._set(item, { note: "The server cannot be reached, trying again" });
        await pause(1000);
        if (!current()) throw problem;
      }
    }
  }

  _failed(item, problem) {
    const later = problem.status === 429 || problem.status === 503 || problem.status === 0;
    const restarted = problem.status === 404 && problem.code === "unknown";
    if (!later && !restarted) return this._set(item, { state: "failed", note: problem.message });
    item.job = null;
    const seconds = restarted ? 1 : Math.min(problem.retryAfter || 3, 30);
    const why = problem.status === 429 ? "The server is busy" : problem.status === 503 ? "The server is not ready yet" : "The server cannot be reached";
    this._set(item, { state: "queued", note: restarted ? "The server has restarted, this photo is sent again" : `${why}, trying again soon` });
    this.quietUntil = Math.max(this.quietUntil, Date.now() + seconds * 1000);
    setTimeout(() => this.pump(), seconds * 1000 + 20);
  }
}
