"use strict";
// Draws the report from the JSON block `data`: [{runs, lines, photos}] in the order of the sections.

const groups = JSON.parse(document.getElementById("data").textContent);

function element(tag, properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// --- tables ----------------------------------------------------------------------------------------------------

function sortBy(header) {
  const table = header.closest("table");
  const column = [...header.parentNode.children].indexOf(header);
  const numeric = header.classList.contains("number");
  const was = header.getAttribute("aria-sort");
  const direction = was ? (was === "descending" ? "ascending" : "descending") : numeric ? "descending" : "ascending";
  for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const rows = []; // of [value, method, ...its seeds]
  for (const row of table.tBodies[0].rows) {
    if (row.classList.contains("seed") && rows.length) rows.at(-1).push(row);
    else rows.push([row.cells[column].dataset.value, row]);
  }
  rows.sort(([a], [b]) => {
    if (!a || !b) return a ? -1 : b ? 1 : 0; // what is not known comes last, whatever the direction
    return sign * (numeric ? a - b : a.localeCompare(b));
  });
  table.tBodies[0].append(...rows.flatMap(([, ...block]) => block));
}

for (const header of document.querySelectorAll(".sortable thead th")) {
  header.addEventListener("click", () => sortBy(header));
  header.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sortBy(header); }
  });
}

// --- plots -----------------------------------------------------------------------------------------------------

const AXES = {
  seconds: "training time (s)", step: "training steps", parameters: "parameters",
  macs: "multiply-accumulates at 256×256", fit: "training time (s)", photo: "time per photo (s)",
};

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function layout(title, log) {
  const axis = {
    gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false, automargin: true, ticks: "outside",
    tickcolor: colour("--line"),
  };
  return {
    margin: { l: 56, r: 16, t: 16, b: 48 }, paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    font: { color: colour("--ink"), family: "system-ui, sans-serif", size: 13 },
    xaxis: { ...axis, title: { text: title }, type: log ? "log" : "linear", ...(log ? { dtick: 1, minor: { ticks: "outside", tickcolor: colour("--line") } } : { rangemode: "tozero" }) },
    yaxis: { ...axis, title: { text: "PSNR (dB)" } },
    legend: { orientation: "h", yanchor: "bottom", y: 1.0, x: 0 }, hovermode: "closest",
    hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
  };
}

function draw(place, traces, made) {
  Plotly.react(place, traces, made, { responsive: true, displaylogo: false, displayModeBar: false });
}

const NAMED_AT_MOST = 8; // names of more runs cover what is drawn: they are shown where one points

function drawCurves(place, group, x) {
  const traces = group.runs.filter((run) => run.val.length).map((run) => ({
    x: run[x], y: run.val, name: run.label, mode: run.val.length > 60 ? "lines" : run.val.length > 1 ? "lines+markers" : "markers",
    line: { color: run.colour, width: group.runs.length > NAMED_AT_MOST ? 1.2 : 2 }, marker: { color: run.colour, size: 5 },
    hovertemplate: `${group.monitor === "psnr" ? "%{y:.2f} dB" : "%{y:.4f}"} at %{x}<extra>${escapeText(run.label)}</extra>`,
  }));
  const made = layout(AXES[x], false);
  made.showlegend = traces.length > 1 && traces.length <= NAMED_AT_MOST;
  const values = traces.flatMap((trace) => trace.y);
  const top = Math.max(...values);
  if (group.monitor === "psnr") {
    const bottom = Math.max(Math.min(...values), top - 8); // the first validations lie far below and flatten the rest
    made.yaxis.range = [bottom - 0.05 * (top - bottom) - 0.05, top + 0.05 * (top - bottom) + 0.05];
  } else {
    made.yaxis.title.text = group.monitor;
  }
  draw(place, traces, made);
}

function drawCost(place, group, x) {
  const known = group.runs.filter((run) => run.psnr !== null && run[x] > 0);
  if (!known.length) {
    Plotly.purge(place);
    place.textContent = "No run has recorded this value.";
    return;
  }
  const traces = known.map((run) => ({
    x: [run[x]], y: [run.psnr], name: run.label, text: [run.label], mode: known.length > NAMED_AT_MOST ? "markers" : "markers+text", textposition: "top center",
    marker: { color: run.colour, size: known.length > NAMED_AT_MOST ? 9 : 12 }, cliponaxis: false, showlegend: false,
    hovertemplate: `%{y:.2f} dB, ${AXES[x]}: %{x:.3s}<extra>${escapeText(run.label)}</extra>`,
  }));
  const [low, high] = [Math.min(...known.map((run) => run[x])), Math.max(...known.map((run) => run[x]))];
  const log = high > 5 * low;
  const made = layout(AXES[x], log);
  made.shapes = group.lines.map((line) => ({
    type: "line", xref: "paper", x0: 0, x1: 1, y0: line.psnr, y1: line.psnr,
    line: { color: colour("--muted"), width: 1.5, dash: "dash" },
  }));
  made.annotations = group.lines.map((line) => ({
    xref: "paper", x: 1, xanchor: "right", y: line.psnr, yanchor: "bottom", showarrow: false,
    text: `best classical: ${escapeText(line.label)} ${line.psnr.toFixed(2)}`, font: { color: colour("--muted"), size: 12 },
  }));
  const heights = [...known.map((run) => run.psnr), ...group.lines.map((line) => line.psnr)];
  const room = 0.1 * (Math.max(...heights) - Math.min(...heights)) + 0.1;
  made.yaxis.range = [Math.min(...heights) - room, Math.max(...heights) + 1.4 * room];
  made.xaxis.range = log ? [Math.log10(low) - 0.3, Math.log10(high) + 0.3] : [0, high * 1.25];
  if (log && high < 50 * low) made.xaxis.dtick = "D2";
  if (place.textContent && !place.classList.contains("js-plotly-plot")) place.textContent = "";
  draw(place, traces, made);
}

function escapeText(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
}

const drawn = [];
for (const section of document.querySelectorAll(".group")) {
  const group = groups[section.dataset.group];
  for (const [kind, drawing] of [["curves", drawCurves], ["cost", drawCost]]) {
    const place = section.querySelector(`.plot.${kind}`);
    if (!place) continue;
    const buttons = [...section.querySelectorAll(`.choice[data-plot="${kind}"] button`)];
    const redraw = () => drawing(place, group, buttons.find((b) => b.getAttribute("aria-pressed") === "true").dataset.x);
    for (const button of buttons) {
      button.addEventListener("click", () => {
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
        redraw();
      });
    }
    redraw();
    drawn.push(redraw);
  }
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((redraw) => redraw()));

// --- photos ----------------------------------------------------------------------------------------------------

const inside = (value) => Math.min(1, Math.max(0, value));
const ZOOMS = [1, 2, 4, 8];

class PhotoBench {
  // One photo at a time: a stage that slides between two versions, and a tile for each version. The tiles show the
  // part of the photo inside the frame on the stage; `close` lets the stage show that part too.
  constructor(place, photos) {
    this.photos = photos;
    this.photo = photos[0];
    this.zoom = 4; // tiles show a fourth of the photo's side
    this.close = false;
    this.centre = this.photo.focus;
    this.split = 0.5;
    const versions = this.photo.versions;
    this.left = versions[0].id;
    this.right = (versions.find((version) => version.id.startsWith("run")) || versions[versions.length - 1]).id;
    this.build(place);
    this.show();
    new ResizeObserver(() => this.arrange()).observe(place);
  }

  build(place) {
    this.photoChoice = this.choice("photo", (value) => {
      this.photo = this.photos[value];
      this.centre = this.photo.focus;
    });
    this.leftChoice = this.choice("left", (value) => { this.left = value; });
    this.rightChoice = this.choice("right", (value) => { this.right = value; });
    this.zoomButtons = ZOOMS.map((zoom) => element("button", {
      textContent: zoom === 1 ? "whole" : `${zoom}×`, onclick: () => { this.zoom = zoom; this.arrange(); },
    }));
    this.closeButton = element("button", { textContent: "zoom the large view too", onclick: () => { this.close = !this.close; this.arrange(); } });
    const controls = element("div", { className: "bar-of-controls" }, [
      this.photoChoice, this.leftChoice, this.rightChoice,
      element("div", { className: "choice" }, this.zoomButtons), element("div", { className: "choice" }, [this.closeButton]),
    ]);
    this.stageView = element("div", { className: "view" });
    this.slider = element("input", { type: "range", min: 0, max: 100, ariaLabel: "divider between left and right" });
    this.slider.addEventListener("input", () => { this.split = this.slider.value / 100; this.arrange(); });
    const stage = element("div", { className: "stage" }, [this.stageView, this.slider]);
    this.tiles = element("div", { className: "tiles" });
    this.note = element("p", { className: "hint" });
    place.append(controls, element("div", { className: "bench" }, [stage, this.tiles]), this.note);
    this.listen(this.stageView, null);
  }

  choice(label, chosen) {
    const select = element("select", { ariaLabel: label });
    select.addEventListener("change", () => { chosen(select.value); this.show(); });
    return element("label", { textContent: label }, [select]);
  }

  fill(choice, options, value) {
    const select = choice.querySelector("select");
    select.replaceChildren(...options.map(([key, text]) => element("option", { value: key, textContent: text })));
    select.value = value;
  }

  version(id) {
    return this.photo.versions.find((version) => version.id === id) || this.photo.versions[0];
  }

  picture(version) {
    return element("img", { src: version.uri, alt: `${this.photo.name}: ${version.label}`, draggable: false });
  }

  caption(version) {
    return version.psnr === null ? version.label : `${version.label} · ${version.psnr.toFixed(2)} dB`;
  }

  show() {
    const options = this.photo.versions.map((version) => [version.id, version.label]);
    const [left, right] = [this.version(this.left), this.version(this.right)];
    this.fill(this.photoChoice, this.photos.map((photo, i) => [String(i), photo.name]), String(this.photos.indexOf(this.photo)));
    this.fill(this.leftChoice, options, left.id);
    this.fill(this.rightChoice, options, right.id);
    this.over = element("div", { className: "over" }, [this.picture(left)]);
    this.frame = element("div", { className: "frame" });
    this.handle = element("div", { className: "handle" });
    this.listenHandle(this.handle);
    this.stageView.replaceChildren(this.picture(right), this.over, this.frame, this.handle,
      element("span", { className: "tag left", textContent: this.caption(left) }),
      element("span", { className: "tag right", textContent: this.caption(right) }));
    this.stageView.style.aspectRatio = `${this.photo.width} / ${this.photo.height}`;
    this.tiles.replaceChildren(...this.photo.versions.map((version) => this.tile(version)));
    const hint = "Click the large photo to choose the area that the tiles show. Drag inside a tile to move this area. Click a tile to show it on the right.";
    this.note.textContent = [this.photo.note, hint].filter(Boolean).join(" · ");
    this.arrange();
  }

  tile(version) {
    const view = element("div", { className: "view" }, [this.picture(version)]);
    this.listen(view, () => { this.right = version.id; this.show(); });
    const figure = version.psnr === null ? "" : `${version.psnr.toFixed(2)} dB`;
    const caption = element("div", { className: "caption" },
      [element("span", { textContent: version.label, title: version.label }), element("span", { textContent: figure })]);
    const shown = version.id === this.right || version.id === this.left;
    return element("div", { className: `tile${shown ? " shown" : ""}` }, [view, caption]);
  }

  // scale and offset in CSS pixels with which a view shows the photo
  placement(view) {
    const { width, height } = this.photo;
    const [w, h] = [view.clientWidth, view.clientHeight];
    const zoom = view === this.stageView && !this.close ? 1 : this.zoom;
    const scale = zoom * (zoom === 1 ? Math.min(w / width, h / height) : Math.max(w / width, h / height));
    const offset = [[w, width, 0], [h, height, 1]].map(([box, side, axis]) => {
      const size = side * scale;
      return size <= box ? (box - size) / 2 : Math.min(0, Math.max(box - size, box / 2 - this.centre[axis] * size));
    });
    return { scale, offset };
  }

  arrange() {
    for (const view of [this.stageView, ...this.tiles.querySelectorAll(".view")]) {
      const { scale, offset } = this.placement(view);
      view.classList.toggle("movable", this.zoom > 1 && view !== this.stageView);
      for (const picture of view.querySelectorAll("img")) {
        Object.assign(picture.style, {
          width: `${this.photo.width * scale}px`, height: `${this.photo.height * scale}px`,
          left: `${offset[0]}px`, top: `${offset[1]}px`, imageRendering: scale >= 1.5 ? "pixelated" : "auto",
        });
      }
    }
    this.arrangeFrame();
    this.over.style.clipPath = `inset(0 ${100 - 100 * this.split}% 0 0)`;
    this.handle.style.left = `${100 * this.split}%`;
    this.slider.value = 100 * this.split;
    ZOOMS.forEach((zoom, i) => this.zoomButtons[i].setAttribute("aria-pressed", String(zoom === this.zoom)));
    this.closeButton.setAttribute("aria-pressed", String(this.close));
  }

  arrangeFrame() {
    const tile = this.tiles.querySelector(".view");
    this.frame.hidden = this.close || this.zoom === 1 || !tile;
    if (this.frame.hidden) return;
    const [stage, shown] = [this.placement(this.stageView), this.placement(tile)];
    const ratio = stage.scale / shown.scale;
    Object.assign(this.frame.style, {
      left: `${stage.offset[0] - shown.offset[0] * ratio}px`, top: `${stage.offset[1] - shown.offset[1] * ratio}px`,
      width: `${tile.clientWidth * ratio}px`, height: `${tile.clientHeight * ratio}px`,
    });
  }

  // where in the photo, in shares of its sides, an event on a view points
  position(view, event) {
    const { scale, offset } = this.placement(view);
    const box = view.getBoundingClientRect();
    return [inside((event.clientX - box.left - offset[0]) / (this.photo.width * scale)),
      inside((event.clientY - box.top - offset[1]) / (this.photo.height * scale))];
  }

  // the stage moves the frame to where it is pressed (dragged along); a tile, and a close stage, is dragged itself
  listen(view, clicked) {
    let start = null;
    const aims = () => view === this.stageView && !this.close;
    view.addEventListener("pointerdown", (event) => {
      start = { x: event.clientX, y: event.clientY, centre: this.centre, moved: false };
      if (aims()) { this.centre = this.position(view, event); this.arrange(); }
      if (event.pointerType === "mouse") view.setPointerCapture(event.pointerId);
    });
    view.addEventListener("pointermove", (event) => {
      if (!start) return;
      const [dx, dy] = [event.clientX - start.x, event.clientY - start.y];
      start.moved = start.moved || Math.hypot(dx, dy) > 4;
      if (aims()) {
        this.centre = this.position(view, event);
      } else {
        const { scale } = this.placement(view);
        this.centre = [inside(start.centre[0] - dx / (this.photo.width * scale)),
          inside(start.centre[1] - dy / (this.photo.height * scale))];
      }
      this.arrange();
    });
    view.addEventListener("pointerup", () => {
      if (start && !start.moved && clicked) clicked();
      start = null;
    });
    view.addEventListener("pointercancel", () => { start = null; });
  }

  listenHandle(handle) {
    handle.addEventListener("pointerdown", (event) => { event.stopPropagation(); handle.setPointerCapture(event.pointerId); });
    handle.addEventListener("pointermove", (event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      event.stopPropagation();
      const box = this.stageView.getBoundingClientRect();
      this.split = inside((event.clientX - box.left) / box.width);
      this.arrange();
    });
  }
}

for (const section of document.querySelectorAll(".group")) {
  const place = section.querySelector(".photos");
  if (place) new PhotoBench(place, groups[section.dataset.group].photos);
}
