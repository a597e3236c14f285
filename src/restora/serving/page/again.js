// Photos that were cancelled or failed, all restored once more.

export class Again {
  constructor(items, model) {
    this.items = items.filter(({ state }) => ["cancelled", "failed"].includes(state));
    // A model chosen since takes over. One of theirs does not, nor one that needs a mask for each photo.
    this.other = Boolean(model) && model.needs !== "mask" && this.items.every((item) => item.model !== model);
    this.model = model;
  }

  get label() {
    return `Restore ${this.items.length} again${this.other ? ` as “${this.model.title.toLowerCase()}”` : ""}`;
  }

  // What changes of an item: the chosen model, its noise level, and no mask.
  changes(item, sigma) {
    const { model } = this;
    return this.other || (item.model === model && !item.mask) ? { model, sigma, mask: null } : {};
  }
}
