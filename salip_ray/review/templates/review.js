/* The page: connects the decisions, the canvas and the controls. */

const $ = (id) => document.getElementById(id);
const about = JSON.parse($("about").textContent);
const { items, classes } = about;
const decisions = new Decisions(about);
const colours = new Map(classes.map((each) => [each.id, each.colour]));
colours.set(about.ignore, about.ignoreColour);
const stage = new Stage($("canvas"), colours);
const STATUS_WORDS = { undecided: "undecided", started: "partly decided", accepted: "accepted", rejected: "rejected", corrected: "corrected" };

let current = -1;
let wanted = 0;
let base = null;       // the label map of the page
let active = classes[0].id;
let brush = null;      // its diameter if the user has set it
let queue = Promise.resolve();

/* Actions run in sequence, because packing and decoding take a moment. */
function enqueue(task) {
  queue = queue.then(task).catch((problem) => say(`Error: ${problem.message}`));
  return queue;
}

function say(text) { $("live").textContent = text; }

// ------------------------------------------------------------------------------ the image shown

const CACHED = 6;
const pictures = new Map(); // of the images shown last, and of the next one, the latest use last

function pictureOf(index) {
  const picture = pictures.get(index) ?? createImageBitmap(
    new Blob([fromBase64($(`p${index}`).textContent)], { type: "image/webp" }));
  pictures.delete(index);
  pictures.set(index, picture);
  if (pictures.size > CACHED) {
    const [[oldest, unused]] = pictures;
    pictures.delete(oldest);
    unused.then((bitmap) => bitmap.close());
  }
  return picture;
}

const packedBase = (index) => $(`m${index}`).textContent;
const sizeOf = ({ height, width }) => height * width;

async function mapOf(index) {
  const { map } = decisions.get(index);
  return map ? fromRuns(await unpackRuns(map), sizeOf(items[index])) : base.slice();
}

function go(index) {
  if (index < 0 || index >= items.length) return;
  wanted = index;
  enqueue(async () => {
    if (wanted !== index || index === current) return; // the user is already further
    const item = items[index];
    const sameVolume = current >= 0 && item.volume !== undefined && items[current].volume === item.volume;
    const [picture, steps, runs] = await Promise.all(
      [pictureOf(index), item.deep && unpackDeep($(`d${index}`).textContent, item.deep), unpackRuns(packedBase(index))]);
    base = fromRuns(runs, sizeOf(item));
    const map = await mapOf(index);
    const previous = current;
    current = index;
    if (previous >= 0) showEntry(previous);
    const long = Math.max(item.width, item.height);
    $("brush-size").max = Math.max(41, 2 * Math.round(long / 10) + 1);
    setRadius(brush ?? Math.max(5, Math.round(long / 40)));
    // A window in the units of one file means nothing in another.
    if (!sameVolume && (item.deep || items[previous]?.deep)) stage.window = null;
    const deep = item.deep ? { ...item.deep, steps } : null;
    stage.show(picture, deep, map, item.width, item.height, { sameView: sameVolume });
    stage.wheelScrolls = item.volume !== undefined;
    showItem();
    showWindowOf(index);
    if (index + 1 < items.length) pictureOf(index + 1);
  });
}

/* Return the next index in a direction among the images that the list shows. */
function neighbour(from, step, fits = isListed) {
  for (let index = from + step; index >= 0 && index < items.length; index += step) {
    if (fits(index)) return index;
  }
  return -1;
}

function isListed(index) {
  const filter = $("filter").value;
  const status = decisions.status(index);
  return filter === "all" || filter === status || (filter === "undecided" && status === "started");
}

function step(by) {
  const index = neighbour(wanted, by);
  if (index >= 0) go(index);
  else say(by > 0 ? "This is the last image." : "This is the first image.");
}

function slicesOf(index) {
  const { volume } = items[index];
  if (volume === undefined) return [];
  return items.map((_, each) => each).filter((each) => items[each].volume === volume);
}

function scroll(by) {
  const index = wanted + by;
  if (items[index] && items[wanted].volume !== undefined && items[index].volume === items[wanted].volume) go(index);
}

function showItem() {
  const item = items[current];
  $("name").textContent = item.name;
  $("uri").textContent = item.uri;
  $("place").textContent = `${(current + 1).toLocaleString("en")} of ${items.length.toLocaleString("en")}`;
  $("size").textContent = `${item.width} × ${item.height} px`;
  const slices = slicesOf(current);
  $("slices").hidden = slices.length < 2;
  if (slices.length > 1) {
    Object.assign($("slice"), { min: slices[0], max: slices.at(-1), value: current });
    $("slice-place").textContent = `slice ${current - slices[0] + 1} of ${slices.length}`;
  }
  for (const { id } of classes) {
    const figures = item.figures[id];
    $(`figures-${id}`).textContent = !figures ? "no label"
      : figures.confidence === null ? "labelled" : `confidence ${figures.confidence.toFixed(2)}`;
  }
  showState();
  showInList();
  say(describe());
}

function showInList() {
  const [list, { line }] = [$("list"), entries[current]];
  const [top, bottom] = [line.offsetTop - list.offsetTop, line.offsetTop - list.offsetTop + line.offsetHeight];
  if (top < list.scrollTop || bottom > list.scrollTop + list.clientHeight) list.scrollTop = top - list.clientHeight / 3;
}

function describe() {
  const item = items[current];
  const labels = classes.map(({ id, label }) => {
    const figures = item.figures[id];
    const { changed, verdicts } = decisions.get(current);
    const words = [!figures ? "no label" : figures.confidence === null ? "labelled" : `confidence ${figures.confidence.toFixed(2)}`];
    if (figures?.area) words.push(`${(100 * figures.area).toFixed(1)} percent of the image`);
    if (changed.includes(id)) words.push("corrected");
    if (verdicts[id]) words.push(verdicts[id]);
    return `${label}: ${words.join(", ")}`;
  });
  return `Image ${current + 1} of ${items.length}, ${item.name}, ${STATUS_WORDS[decisions.status(current)]}. ${labels.join(". ")}.`;
}

// ------------------------------------------------------------------------------------ decisions

function showState() {
  const { verdicts, changed, reason } = decisions.get(current);
  for (const { id } of classes) {
    for (const verdict of ["accepted", "rejected"]) {
      $(`${verdict}-${id}`).ariaPressed = String(verdicts[id] === verdict);
    }
    $(`changed-${id}`).hidden = !changed.includes(id);
  }
  $("reason").value = reason;
  const status = decisions.status(current);
  $("status").textContent = STATUS_WORDS[status];
  $("status").className = `chip s-${status}`;
  $("canvas").setAttribute("aria-label", describe());
  showEntry(current);
  showProgress();
}

function showProgress() {
  const decided = decisions.countDecided();
  $("progress").max = items.length;
  $("progress").value = decided;
  $("decided").textContent = `${decided.toLocaleString("en")} of ${items.length.toLocaleString("en")} decided`;
  const unsaved = decisions.unsaved.size;
  $("unsaved").textContent = !decisions.stores ? "This browser stores nothing: save before you close the page."
    : unsaved ? `${unsaved.toLocaleString("en")} changed since the last save` : "";
}

/* Give all classes, or one, a verdict; continue with the next undecided image. */
function decide(verdict, only = null) {
  enqueue(() => {
    const state = decisions.get(current);
    const ids = only === null ? decisions.classIds : [only];
    const toggles = only !== null && state.verdicts[only] === verdict;
    const verdicts = { ...state.verdicts };
    for (const id of ids) if (toggles) delete verdicts[id]; else verdicts[id] = verdict;
    decisions.change([[current, { ...state, verdicts }]]);
    showState();
    const label = only === null ? "" : ` ${classes.find(({ id }) => id === only).label}`;
    say(`${toggles ? "Undecided" : verdict === "accepted" ? "Accepted" : "Rejected"}${label}.`);
    if (only === null || (decisions.isDecided(current) && !toggles)) toNextUndecided();
  });
}

function toNextUndecided() {
  const open = (index) => !decisions.isDecided(index);
  let next = neighbour(current, 1, open);
  if (next < 0) next = neighbour(-1, 1, open);
  if (next >= 0) go(next);
  else { showItem(); say("All images are decided. Save the decisions."); }
}

/* Accept all undecided slices of the volume. */
function acceptVolume() {
  enqueue(() => {
    const open = slicesOf(current).filter((index) => !decisions.isDecided(index));
    decisions.change(open.map((index) => {
      const state = decisions.get(index);
      const missing = decisions.classIds.filter((id) => !state.verdicts[id]).map((id) => [id, "accepted"]);
      return [index, { ...state, verdicts: { ...state.verdicts, ...Object.fromEntries(missing) } }];
    }));
    open.forEach(showEntry);
    showState();
    say(`Accepted ${open.length} slices.`);
    toNextUndecided();
  });
}

function undo() {
  enqueue(async () => {
    const index = decisions.undo();
    if (index === null) { say("There is nothing to undo."); return; }
    items.forEach((_, each) => showEntry(each));
    if (index === current) {
      stage.setMap(await mapOf(index));
      wanted = index;
      showState();
    } else {
      go(index);
    }
    showProgress();
    say("Undone.");
  });
}

function resetImage() {
  enqueue(async () => {
    decisions.change([[current, EMPTY]]);
    stage.setMap(await mapOf(current));
    showState();
    say("The image is as it was.");
  });
}

stage.onStroke = () => {
  const painted = stage.map;
  const runs = toRuns(painted);
  const changed = changedClasses(base, painted);
  enqueue(async () => {
    const map = changed.length ? await packRuns(runs) : null;
    decisions.change([[current, { ...decisions.get(current), changed, map }]]);
    showState();
    say(changed.length ? `Corrected ${changed.map(labelOf).join(", ")}.` : "As it was.");
  });
};
stage.onCancel = () => enqueue(async () => stage.setMap(await mapOf(current)));

function labelOf(id) { return classes.find((each) => each.id === id).label; }

/* Pixels to ignore that replace background concern all classes. */
function changedClasses(before, after) {
  const touched = new Set();
  for (let i = 0; i < after.length; i++) {
    if (before[i] !== after[i]) { touched.add(before[i]); touched.add(after[i]); }
  }
  const changed = decisions.classIds.filter((id) => touched.has(id));
  return touched.has(about.ignore) && !changed.length ? [...decisions.classIds] : changed;
}

function save() {
  enqueue(() => {
    const content = JSON.stringify(decisions.toFile(packedBase));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
    link.download = `${about.title}-${about.output.slice(0, 6)}.review.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    decisions.unsaved.clear();
    showProgress();
    $("saved").hidden = false;
    $("saved-file").textContent = link.download;
    say(`Saved ${link.download}.`);
  });
}

// ------------------------------------------------------------------------------------- the list

const entries = items.map((item, index) => {
  const line = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.addEventListener("click", () => go(index));
  line.append(button);
  return { line, button, mark: document.createElement("span"), name: document.createTextNode(item.name) };
});
for (const { button, mark, name } of entries) button.append(mark, name);
$("list").append(...entries.map(({ line }) => line));

function showEntry(index) {
  const status = decisions.status(index);
  const { line, button, mark } = entries[index];
  mark.className = `dot s-${status}`;
  button.setAttribute("aria-label", `${items[index].name}, ${STATUS_WORDS[status]}`);
  if (index === current) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
  line.hidden = !isListed(index);
}

function showList() { entries.forEach((_, index) => showEntry(index)); }

// --------------------------------------------------------------------------------- the controls

function setTool(tool) {
  stage.tool = tool;
  for (const each of ["move", "brush", "erase"]) $(`tool-${each}`).ariaPressed = String(each === tool);
  $("canvas").dataset.tool = tool;
  stage.redraw();
}

function choose(id) {
  active = stage.paint = id;
  $(`paint-${id}`).checked = true;
}

function setRadius(diameter) {
  $("brush-size").value = diameter;
  stage.radius = $("brush-size").value / 2;
  $("brush-size-value").textContent = `${$("brush-size").value} px`;
  stage.redraw();
}

function chooseRadius(diameter) {
  brush = Math.max(1, Math.round(diameter));
  setRadius(brush);
}

function setHidden(hidden) {
  stage.hidden = hidden;
  $("hide").ariaPressed = String(hidden);
  stage.redraw();
}

/* Let the sliders cover the values of the image shown; slices of a volume share their range. */
function showWindowOf(index) {
  const deeps = (slicesOf(index).length ? slicesOf(index) : [index]).map((each) => items[each].deep).filter(Boolean);
  const least = deeps.length ? Math.min(...deeps.map((each) => each.least)) : 0;
  const largest = deeps.length ? Math.max(...deeps.map((each) => each.largest)) : 255;
  const whole = deeps.every((each) => each.step === 1);
  const step = whole ? 1 : Number(((largest - least) / 1000).toPrecision(1));
  Object.assign($("level"), { min: least, max: largest, step });
  Object.assign($("window"), { min: step, max: 2 * (largest - least), step });
  const { low = 0, high = 255 } = items[index].deep ?? {};
  const { center, width } = stage.window ?? { center: (low + high) / 2, width: high - low };
  $("level").value = center;
  $("window").value = width;
  showWindowValues();
}

function showWindowValues() {
  const digits = Number($("level").step) < 1 ? 2 : 0;
  for (const each of ["level", "window"]) {
    $(`${each}-value`).textContent = Number($(each).value).toFixed(digits).replace(/^-(0[.0]*)$/, "$1");
  }
}

function setWindow() {
  stage.setWindow({ center: Number($("level").value), width: Number($("window").value) });
  showWindowValues();
}

function resetWindow() {
  stage.setWindow(null);
  showWindowOf(current);
}

const on = (id, action, type = "click") => $(id).addEventListener(type, action);
on("accept", () => decide("accepted"));
on("reject", () => decide("rejected"));
on("previous", () => step(-1));
on("next", () => step(1));
on("undo", undo);
on("reset", resetImage);
on("accept-volume", acceptVolume);
on("save", save);
on("help-open", () => $("help").showModal());
on("help-close", () => $("help").close());
on("zoom-in", () => stage.zoom(1.4));
on("zoom-out", () => stage.zoom(1 / 1.4));
on("zoom-fit", () => stage.fit());
on("hide", () => setHidden(!stage.hidden));
on("window-reset", resetWindow);
on("slice", (event) => go(Number(event.target.value)), "input");
on("opacity", (event) => {
  stage.setOpacity(event.target.value / 100);
  $("opacity-value").textContent = `${event.target.value} %`;
}, "input");
on("level", setWindow, "input");
on("window", setWindow, "input");
on("brush-size", (event) => chooseRadius(event.target.value), "input");
on("reason", (event) => enqueue(() => {
  decisions.change([[current, { ...decisions.get(current), reason: event.target.value }]]);
  showState();
}), "change");
on("filter", () => { showList(); const index = isListed(current) ? current : neighbour(-1, 1); if (index >= 0) go(index); }, "change");
for (const tool of ["move", "brush", "erase"]) on(`tool-${tool}`, () => setTool(tool));
for (const { id } of [...classes, { id: about.ignore }]) on(`paint-${id}`, () => choose(id), "change");
for (const { id } of classes) {
  on(`accepted-${id}`, () => decide("accepted", id));
  on(`rejected-${id}`, () => decide("rejected", id));
}
stage.onScroll = scroll;
stage.onDrag = (dx, dy) => {
  const share = (Number($("level").max) - Number($("level").min)) / 600;
  $("window").value = Number($("window").value) + dx * share;
  $("level").value = Number($("level").value) + dy * share;
  setWindow();
};
stage.onView = () => { $("zoom-value").textContent = `${Math.round(100 * stage.scale)} %`; };

const KEYS = {
  a: () => decide("accepted"), r: () => decide("rejected"), q: () => decide("accepted", isClass(active)),
  w: () => decide("rejected", isClass(active)), u: undo, n: toNextUndecided,
  ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => scroll(-1), ArrowDown: () => scroll(1),
  "+": () => stage.zoom(1.4), "=": () => stage.zoom(1.4), "-": () => stage.zoom(1 / 1.4), 0: () => stage.fit(),
  m: () => setTool("move"), b: () => setTool("brush"), e: () => setTool("erase"), h: () => setHidden(!stage.hidden),
  "[": () => chooseRadius(Math.min(stage.radius * 1.7, stage.radius * 2 - 1)),
  "]": () => chooseRadius(Math.max(stage.radius * 2.4, stage.radius * 2 + 1)),
  "?": () => $("help").showModal(),
};

function isClass(id) { return id === about.ignore ? classes[0].id : id; }

document.addEventListener("keydown", (event) => {
  if ($("help").open || event.altKey) return;
  if (event.ctrlKey || event.metaKey) {
    const action = { z: undo, s: save }[event.key.toLowerCase()];
    if (action) { event.preventDefault(); action(); }
    return;
  }
  const arrow = event.key.startsWith("Arrow");
  const field = event.target.closest("input, select, textarea");
  // Arrows belong to the control that has the focus, letters to a list of choices.
  if (field && (arrow || field.tagName === "SELECT")) return;
  if (!arrow && !$("single-keys").checked) return;
  if (event.shiftKey && event.key === "A") { event.preventDefault(); acceptVolume(); return; }
  const number = Number(event.key);
  const action = KEYS[event.key] ?? KEYS[event.key.toLowerCase()]
    ?? (classes[number - 1] && (() => choose(classes[number - 1].id)));
  if (!action) return;
  event.preventDefault();
  action();
});
// After a mouse has set a slider or a class, arrow keys belong to the images again.
document.addEventListener("click", (event) => {
  if (event.detail && event.target.matches("input")) $("canvas").focus({ preventScroll: true });
});
window.addEventListener("beforeunload", (event) => {
  if (!decisions.stores && decisions.unsaved.size) event.preventDefault();
});

if (typeof CompressionStream === "undefined") {
  say("This browser is too old for the page.");
  $("too-old").hidden = false;
} else {
  choose(active);
  setTool("move");
  showList();
  const first = neighbour(-1, 1, (index) => !decisions.isDecided(index));
  go(Math.max(0, first));
}
