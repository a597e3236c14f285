// The tools for painting a mask over a photo.

import { fromInput } from "./files.js";
import { Mask } from "./mask.js";

const $ = (id) => document.getElementById(id);

export class Painting {
  // `say` shows a message, `restore` is called with the item and its mask when the button is pressed.
  constructor({ stage, say, restore }) {
    this.stage = stage;
    this.mask = new Mask($("mask"), { onChange: () => this._changed() });
    this.item = null;
    this._listen(say, restore);
  }

  // Shows the mask of `item`, or none.
  show(item) {
    if (item && (this.item !== item || !this.stage.painting)) {
      item.steps ??= [];
      item.undone ??= [];
      this.mask.open(item.given.width, item.given.height, item);
      this.item = item;
      this._sized();
      this._changed();
    }
    this.stage.setPainting(Boolean(item));
  }

  // What the stage reports: (kind, x, y) in the photo's pixels, or a key.
  onPaint(kind, x, y) {
    if (kind === "key") {
      const at = this.mask.key(x, y);
      if (at) this.stage.ring(at[0] * this.stage.zoom + this.stage.x, at[1] * this.stage.zoom + this.stage.y);
      return Boolean(at);
    }
    this.mask[kind](x, y);
    return true;
  }

  _changed() {
    $("undo").disabled = !this.mask.steps.length;
    $("redo").disabled = !this.mask.undone.length;
    $("restore").disabled = this.mask.empty;
  }

  _sized() {
    this.mask.size = Number($("brush-size").value);
    this.stage.brush = this.mask.brush;
  }

  _erase(on) {
    this.mask.erasing = on;
    $("brush").setAttribute("aria-pressed", String(!on));
    $("eraser").setAttribute("aria-pressed", String(on));
  }

  _listen(say, restore) {
    const { mask } = this;
    $("brush").addEventListener("click", () => this._erase(false));
    $("eraser").addEventListener("click", () => this._erase(true));
    $("brush-size").addEventListener("input", () => this._sized());
    for (const step of ["undo", "redo", "invert", "clear"]) $(step).addEventListener("click", () => mask[step]());
    $("pick-mask").addEventListener("click", () => $("mask-file").click());
    $("mask-file").addEventListener("change", async () => {
      const [found] = fromInput($("mask-file"));
      if (found) await mask.load(found.file).catch((error) => say(error.message));
    });
    $("restore").addEventListener("click", async () => {
      if (mask.full) return say("The whole photo is painted: erase some of the paint, what is painted is filled in from the rest.");
      const { item } = this; // another one may be open when the mask is made
      restore(item, await mask.toBlob());
    });
    document.addEventListener("keydown", (event) => {
      if (!this.stage.painting || !(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z") return;
      event.preventDefault();
      if (event.shiftKey) mask.redo();
      else mask.undo();
    });
  }
}
