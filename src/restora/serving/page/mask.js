// What is painted over: a list of steps (strokes, inversion, a loaded picture), drawn anew on undo.

const COLOUR = "#ff2d6f";
const SHOWN = 2048; // pixels of the longer side of what is seen; what is sent has the photo's size

export class Mask {
  constructor(canvas, { onChange }) {
    this.canvas = canvas;
    canvas.getContext("2d", { willReadFrequently: true });
    this.onChange = onChange;
    this.steps = [];
    this.undone = [];
    this.erasing = false;
    this.size = 30;
    this.cursor = null;
  }

  // Takes up the steps of one photo, which are kept with it.
  open(width, height, { steps = [], undone = [] } = {}) {
    this.width = width;
    this.height = height;
    const ratio = Math.min(1, SHOWN / Math.max(width, height));
    this.canvas.width = Math.max(1, Math.round(width * ratio));
    this.canvas.height = Math.max(1, Math.round(height * ratio));
    this.steps = steps;
    this.undone = undone;
    this.cursor = null;
    this._redraw();
  }

  get brush() {
    // a size of 100 is a fifth of the photo's shorter side
    return Math.max(3, ((this.size / 100) ** 1.5 * Math.min(this.width, this.height)) / 5);
  }

  // Whether nothing is painted, by what is seen: strokes may have been erased, a picture may be black.
  get empty() {
    return !this._some((alpha) => alpha > 0);
  }

  // Whether the whole photo is painted: there is nothing to fill it in from.
  get full() {
    return !this._some((alpha) => alpha < 128);
  }

  _some(has) {
    const { width, height } = this.canvas;
    const { data } = this.canvas.getContext("2d").getImageData(0, 0, width, height);
    for (let at = 3; at < data.length; at += 4) if (has(data[at])) return true;
    return false;
  }

  start(x, y) {
    this.stroke = { kind: this.erasing ? "erase" : "paint", size: this.brush, points: [[x, y]] };
    draw(this._context(), this.stroke);
  }

  move(x, y) {
    if (!this.stroke) return;
    const { points } = this.stroke;
    draw(this._context(), { ...this.stroke, points: [points.at(-1), [x, y]] });
    points.push([x, y]);
  }

  end() {
    if (this.stroke) this._add(this.stroke);
    this.stroke = null;
  }

  cancel() {
    this.stroke = null;
    this._redraw();
  }

  // Painting by keyboard: arrows move the brush, Enter dabs. Returns where the brush is, or null.
  key(key, far) {
    const step = this.brush * (far ? 4 : 0.5);
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (!(key in moves) && key !== "Enter") return null;
    const [x, y] = this.cursor || [this.width / 2, this.height / 2];
    const [dx, dy] = moves[key] || [0, 0];
    this.cursor = [clamp(x + dx, this.width), clamp(y + dy, this.height)];
    if (key === "Enter") {
      this.start(...this.cursor);
      this.end();
    }
    return this.cursor;
  }

  invert() {
    this._add({ kind: "invert" });
  }

  clear() {
    this._add({ kind: "clear" });
  }

  // A picture of another program: white is what should go. Throws what is wrong with it.
  async load(file) {
    const picture = await createImageBitmap(file).catch(() => {
      throw new Error("This file is not a picture, so it cannot be used as a mask.");
    });
    if (Math.abs(picture.width - (picture.height * this.width) / this.height) > 1 && Math.abs(picture.height - (picture.width * this.height) / this.width) > 1)
      throw new Error(`This mask is ${picture.width} × ${picture.height} pixels, the photo ${this.width} × ${this.height}: use a mask of the same shape.`);
    const sheet = new OffscreenCanvas(picture.width, picture.height);
    const context = sheet.getContext("2d");
    context.drawImage(picture, 0, 0);
    const pixels = context.getImageData(0, 0, sheet.width, sheet.height);
    const { data } = pixels;
    let some = false;
    for (let at = 0; at < data.length; at += 4) {
      const white = (data[at] + data[at + 1] + data[at + 2]) * data[at + 3] >= 3 * 128 * 255;
      data[at + 3] = white ? 255 : 0;
      some ||= white;
    }
    if (!some) throw new Error("No pixel of this mask is white: what is to be repaired has to be white in it.");
    context.putImageData(pixels, 0, 0);
    context.globalCompositeOperation = "source-in";
    context.fillStyle = COLOUR;
    context.fillRect(0, 0, sheet.width, sheet.height);
    this._add({ kind: "picture", sheet });
  }

  undo() {
    if (this.steps.length) this.undone.push(this.steps.pop());
    this._redraw();
    this.onChange();
  }

  redo() {
    if (this.undone.length) this.steps.push(this.undone.pop());
    this._redraw();
    this.onChange();
  }

  // A PNG of the photo's size, white on black.
  async toBlob() {
    const sheet = new OffscreenCanvas(this.width, this.height);
    const context = sheet.getContext("2d");
    for (const step of this.steps) draw(context, step);
    context.globalCompositeOperation = "source-in"; // what is painted becomes white
    context.fillStyle = "#fff";
    context.fillRect(0, 0, this.width, this.height);
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.width, this.height);
    return sheet.convertToBlob({ type: "image/png" });
  }

  _add(step) {
    this.steps.push(step);
    this.undone.length = 0;
    if (!step.points) draw(this._context(), step); // strokes are drawn while they are made
    this.onChange();
  }

  _context() {
    const context = this.canvas.getContext("2d");
    context.setTransform(this.canvas.width / this.width, 0, 0, this.canvas.height / this.height, 0, 0);
    return context;
  }

  _redraw() {
    const context = this._context();
    context.globalCompositeOperation = "source-over";
    context.clearRect(0, 0, this.width, this.height);
    for (const step of this.steps) draw(context, step);
  }
}

const clamp = (value, most) => Math.min(Math.max(value, 0), most);

function draw(context, step) {
  const { width, height } = context.canvas;
  context.globalCompositeOperation = step.kind === "erase" ? "destination-out" : "source-over";
  context.fillStyle = context.strokeStyle = COLOUR;
  if (step.kind === "invert" || step.kind === "clear") {
    context.save();
    context.resetTransform();
    context.globalCompositeOperation = step.kind === "invert" ? "xor" : "destination-out";
    context.fillRect(0, 0, width, height);
    context.restore();
  } else if (step.kind === "picture") {
    context.save();
    context.resetTransform();
    context.imageSmoothingEnabled = width < step.sheet.width; // or single pixels are left out
    context.imageSmoothingQuality = "high";
    context.drawImage(step.sheet, 0, 0, width, height);
    context.restore();
  } else {
    context.lineWidth = step.size;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.arc(...step.points[0], step.size / 2, 0, 2 * Math.PI); // a line without length draws nothing
    context.fill();
    context.beginPath();
    context.moveTo(...step.points[0]);
    for (const point of step.points) context.lineTo(...point);
    context.stroke();
  }
}
