// The photo before and after in one place: one zoom and one position for both, a divider between them.

const $ = (id) => document.getElementById(id);
const MAX_ZOOM = 32;
const LEAST_SIDE = 240; // CSS pixels of a tiny photo's longer side, which the divider's handle would cover
const COMPARING = "Photo. Press plus or minus to zoom and the arrow keys to move. Hold the space bar to see the original.";
const PAINTING = "Photo to paint on. The arrow keys move the brush, with Shift further; Enter paints. Press plus or minus to zoom.";

export class Stage {
  constructor({ onPaint }) {
    this.box = $("stage");
    this.before = $("before");
    this.base = $("base"); // the original once more, under a result of less than full strength
    this.after = $("after");
    this.mask = $("mask");
    this.pictures = [this.before, this.base, this.after, this.mask];
    this.onPaint = onPaint; // called with (kind, x, y) in the photo's pixels while painting is on
    this.width = this.height = 1;
    this.largest = MAX_ZOOM;
    this.fitted = true;
    this.split = 50;
    this.strength = 1;
    this.showsAfter = false;
    this.painting = false;
    this.pointers = new Map();
    this._listen();
    new ResizeObserver(() => this._resized()).observe(this.box);
  }

  // Sizes are those of the result; the photo before is stretched to them. `clear`: whether it has transparency.
  show({ before, after, width, height, clear = false }) {
    const same = this.width === width && this.height === height && this.before.src === before;
    this.width = width;
    this.height = height;
    for (const picture of this.pictures) {
      picture.style.width = `${width}px`;
      picture.style.height = `${height}px`;
    }
    set(this.before, before);
    set(this.after, after);
    this.showsAfter = Boolean(after);
    $("ground").hidden = !clear || !before;
    $("after-layer").hidden = !after;
    if (!same) this.fit();
    this.setSplit(this.split);
  }

  setStrength(value) {
    this.strength = value;
    this.after.style.opacity = value;
    this.base.style.opacity = 1 - value;
    set(this.base, value < 1 && this.showsAfter ? this.before.src : null);
    this.setSplit(this.split);
  }

  setSplit(percent) {
    this.split = percent;
    const at = this.holding ? 100 : percent;
    $("after-layer").style.clipPath = `inset(0 0 0 ${at}%)`;
    $("before-layer").style.clipPath = this.showsAfter ? `inset(0 ${100 - at}% 0 0)` : "none"; // or it is seen through a transparent result
    $("divider").style.left = `${percent}%`;
    $("divider").hidden = !this.showsAfter || this.holding;
    $("tag-before").hidden = !this.showsAfter || at < 12;
    $("tag-after").hidden = !this.showsAfter || at > 88;
    $("split").value = percent;
    $("split").setAttribute("aria-valuetext", `${Math.round(percent)}% of the photo's width shows the original`);
  }

  hold(on) {
    this.holding = on && this.showsAfter;
    $("hold").setAttribute("aria-pressed", String(Boolean(this.holding)));
    this.setSplit(this.split);
  }

  setPainting(on) {
    this.painting = on;
    this.box.setAttribute("aria-label", on ? PAINTING : COMPARING);
    this.box.classList.toggle("painting", on);
    $("mask-layer").hidden = !on;
    $("brush-ring").hidden = true;
  }

  fit() {
    const { clientWidth, clientHeight } = this.box;
    this.fitted = true;
    const most = Math.max(8, LEAST_SIDE / Math.max(this.width, this.height));
    this.zoom = Math.min(clientWidth / this.width, clientHeight / this.height, most) || 1;
    this.largest = Math.max(MAX_ZOOM, this.zoom);
    this.x = (clientWidth - this.width * this.zoom) / 2;
    this.y = (clientHeight - this.height * this.zoom) / 2;
    this._place();
  }

  // `zoom` is in CSS pixels per pixel of the photo; the point (x, y) of the stage stays where it is.
  zoomTo(zoom, x = this.box.clientWidth / 2, y = this.box.clientHeight / 2) {
    const smallest = Math.min(this.box.clientWidth / this.width, this.box.clientHeight / this.height, 1);
    const next = Math.min(Math.max(zoom, smallest), this.largest);
    const ratio = next / this.zoom;
    this.x = x - (x - this.x) * ratio;
    this.y = y - (y - this.y) * ratio;
    this.zoom = next;
    this.fitted = false;
    this._place();
  }

  fullSize() {
    this.zoomTo(1 / devicePixelRatio);
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this._place();
  }

  // From the stage to the photo's pixels.
  toPhoto(x, y) {
    return [(x - this.x) / this.zoom, (y - this.y) / this.zoom];
  }

  _resized() {
    if (this.fitted) this.fit();
    else this._place();
  }

  _place() {
    const { clientWidth, clientHeight } = this.box;
    this.x = held(this.x, clientWidth, this.width * this.zoom);
    this.y = held(this.y, clientHeight, this.height * this.zoom);
    const transform = `translate(${this.x}px, ${this.y}px) scale(${this.zoom})`;
    for (const picture of this.pictures) picture.style.transform = transform;
    const place = { left: this.x, top: this.y, width: this.width * this.zoom, height: this.height * this.zoom };
    for (const [name, pixels] of Object.entries(place)) $("ground").style[name] = `${pixels}px`;
    this.whole = this.width * this.zoom < clientWidth + 1 && this.height * this.zoom < clientHeight + 1;
    this.box.classList.toggle("whole", this.whole);
    this.box.classList.toggle("sharp", this.zoom * devicePixelRatio >= 3);
    $("zoom-value").textContent = `${Math.round(this.zoom * devicePixelRatio * 100)}%`;
  }

  _point(event) {
    const box = this.box.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  _listen() {
    const box = this.box;
    box.addEventListener("pointerdown", (event) => this._down(event));
    box.addEventListener("pointermove", (event) => this._move(event));
    for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, (event) => this._up(event));
    box.addEventListener("pointerleave", () => ($("brush-ring").hidden = true));
    box.addEventListener("dblclick", (event) => {
      if (this.painting) return;
      if (this.fitted) this.zoomTo(Math.max(1 / devicePixelRatio, this.zoom * 2), ...this._point(event));
      else this.fit();
    });
    box.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && this.whole && document.activeElement !== box) return; // the page scrolls
      event.preventDefault();
      this.zoomTo(this.zoom * Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), ...this._point(event));
    }, { passive: false });
    $("split").addEventListener("input", (event) => this.setSplit(Number(event.target.value)));
    $("zoom-in").addEventListener("click", () => this.zoomTo(this.zoom * 1.5));
    $("zoom-out").addEventListener("click", () => this.zoomTo(this.zoom / 1.5));
    $("zoom-fit").addEventListener("click", () => this.fit());
    $("zoom-full").addEventListener("click", () => this.fullSize());
    const hold = $("hold");
    hold.addEventListener("pointerdown", () => this.hold(true));
    for (const end of ["pointerup", "pointerleave", "pointercancel", "blur"]) hold.addEventListener(end, () => this.hold(false));
    hold.addEventListener("keydown", (event) => {
      if ([" ", "Enter"].includes(event.key)) this.hold(true), event.preventDefault();
    });
    hold.addEventListener("keyup", () => this.hold(false));
    box.addEventListener("keyup", (event) => event.key === " " && this.hold(false));
    box.addEventListener("keydown", (event) => this._key(event));
  }

  _key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 200 : 50;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (this.painting && this.onPaint("key", event.key, event.shiftKey)) return event.preventDefault();
    if (event.key in moves) this.pan(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoomTo(this.zoom * 1.5);
    else if (event.key === "-") this.zoomTo(this.zoom / 1.5);
    else if (event.key === "0") this.fit();
    else if (event.key === "1") this.fullSize();
    else if (event.key === " ") {
      this.hold(true);
      if (!event.repeat) this.box.addEventListener("blur", () => this.hold(false), { once: true });
    } else return;
    event.preventDefault();
  }

  _down(event) {
    if (event.button !== 0) return;
    this.box.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this._point(event));
    if (this.pointers.size > 1) {
      if (this.action === "paint") this.onPaint("cancel");
      this.action = "pinch";
    } else if (this.painting) {
      this.action = "paint";
      this.onPaint("start", ...this.toPhoto(...this._point(event)));
    } else if (!this.whole && !event.target.closest("#divider")) this.action = "pan";
    else this.action = this.showsAfter ? "split" : null; // nothing of a whole photo is out of sight
  }

  _move(event) {
    const to = this._point(event);
    if (this.painting) this.ring(...to);
    const from = this.pointers.get(event.pointerId);
    if (!from) return;
    if (this.action === "split") this.setSplit(Math.min(Math.max((to[0] / this.box.clientWidth) * 100, 0), 100));
    else if (this.action === "pan") this.pan(to[0] - from[0], to[1] - from[1]);
    else if (this.action === "paint") {
      const steps = event.getCoalescedEvents?.() || [];
      for (const step of steps.length ? steps : [event]) this.onPaint("move", ...this.toPhoto(...this._point(step)));
    } else if (this.action === "pinch" && this.pointers.size === 2) this._pinch(event.pointerId, from, to);
    this.pointers.set(event.pointerId, to);
  }

  _pinch(id, from, to) {
    const [other] = [...this.pointers].filter(([key]) => key !== id).map(([, point]) => point);
    const distance = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]);
    const middle = [(to[0] + other[0]) / 2, (to[1] + other[1]) / 2];
    this.zoomTo((this.zoom * distance(to)) / Math.max(distance(from), 1), ...middle);
    this.pan((to[0] - from[0]) / 2, (to[1] - from[1]) / 2);
  }

  _up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.action === "paint") this.onPaint("end");
    if (!this.pointers.size) this.action = null;
  }

  // Shows the brush around a point of the stage.
  ring(x, y) {
    const ring = $("brush-ring");
    const side = `${Math.max(this.brush * this.zoom, 4)}px`;
    Object.assign(ring.style, { left: `${x}px`, top: `${y}px`, width: side, height: side });
    ring.hidden = false;
  }
}

function set(picture, source) {
  picture.hidden = !source;
  if (source) {
    if (picture.src !== source) picture.src = source;
  } else picture.removeAttribute("src");
}

// A picture smaller than the stage is in its middle, a larger one covers it.
function held(at, room, length) {
  return length <= room ? (room - length) / 2 : Math.min(Math.max(at, room - length), 0);
}
