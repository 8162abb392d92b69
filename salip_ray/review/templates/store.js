/* Decisions on all images: in memory, with undo, and in the browser's storage. */

const EMPTY = Object.freeze({ verdicts: Object.freeze({}), changed: Object.freeze([]), map: null, reason: "" });
const UNDO_STEPS = 500;

class Decisions {
  /* A state is never altered, only replaced: { verdicts: {class id: "accepted" | "rejected"},
     changed: [class ids whose pixels were corrected], map: packed runs or null, reason }. */
  constructor(about) {
    this.about = about;
    this.classIds = about.classes.map((each) => each.id);
    this.history = [];
    this.stores = true;
    this.unsaved = new Set();
    this.states = about.items.map((item) => this.#read(item) ?? EMPTY);
  }

  get(index) { return this.states[index]; }

  /* Replace the states of some images as one step that undo reverts. */
  change(changes) {
    const before = [];
    for (const [index, state] of changes) {
      before.push([index, this.states[index]]);
      this.#set(index, state);
    }
    this.history.push(before);
    if (this.history.length > UNDO_STEPS) this.history.shift();
  }

  /* Revert the last step; return the index of an image that it changed, or null. */
  undo() {
    const before = this.history.pop();
    if (!before) return null;
    for (const [index, state] of before) this.#set(index, state);
    return before[0][0];
  }

  isDecided(index) {
    const { verdicts, changed } = this.states[index];
    return this.classIds.every((id) => verdicts[id] || changed.includes(id));
  }

  status(index) {
    const { verdicts, changed } = this.states[index];
    if (!this.isDecided(index)) {
      return changed.length || Object.keys(verdicts).length ? "started" : "undecided";
    }
    if (changed.some((id) => verdicts[id] !== "rejected")) return "corrected";
    return this.classIds.some((id) => verdicts[id] === "rejected") ? "rejected" : "accepted";
  }

  countDecided() {
    return this.states.reduce((count, _, index) => count + this.isDecided(index), 0);
  }

  /* The content of the file that import-review reads. */
  toFile(labelMapOf) {
    const { format, version, output, classes, items } = this.about;
    const images = [];
    items.forEach((item, index) => {
      const { verdicts, changed, map, reason } = this.states[index];
      const by = (verdict) => this.classIds.filter((id) => verdicts[id] === verdict);
      const rejected = by("rejected");
      const corrected = this.classIds.filter((id) => !rejected.includes(id)
        && (changed.includes(id) || (verdicts[id] === "accepted" && item.drawn.includes(id))));
      const accepted = by("accepted").filter((id) => !corrected.includes(id));
      if (!accepted.length && !rejected.length && !corrected.length) return;
      const image = { image_id: item.id, accepted, rejected, corrected };
      if (reason) image.reason = reason;
      if (corrected.length) {
        Object.assign(image, { height: item.height, width: item.width, label_map: map ?? labelMapOf(index) });
      }
      images.push(image);
    });
    const ids = Object.fromEntries(classes.map((each) => [each.label, each.id]));
    return { format, version, output, classes: ids, images };
  }

  #set(index, state) {
    this.states[index] = state;
    this.unsaved.add(index);
    const key = this.#key(this.about.items[index]);
    try {
      if (state === EMPTY) localStorage.removeItem(key);
      else localStorage.setItem(key, JSON.stringify(state));
    } catch { this.stores = false; }
  }

  #key(item) { return `${this.about.format} ${this.about.output} ${item.id}`; }

  #read(item) {
    try {
      const text = localStorage.getItem(this.#key(item));
      return text && { ...EMPTY, ...JSON.parse(text) };
    } catch {
      this.stores = false;
      return null;
    }
  }
}
