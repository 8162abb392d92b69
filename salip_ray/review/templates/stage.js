/* The canvas: a picture with its label map, zoom, window and level, and the brush. */

const LARGEST_ZOOM = 40;

class Stage {
  /* Callbacks: onStroke() when a stroke has changed the map, onCancel() when a second finger ended
     one, onScroll(steps) for the wheel, onDrag(dx, dy) for the right button, onView() when the zoom
     has changed. */
  constructor(canvas, colours) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.overlay = document.createElement("canvas");
    this.shaded = document.createElement("canvas");
    this.colours = colours;
    this.tool = "move";
    this.paint = 0;
    this.radius = 6;
    this.opacity = 0.4;
    this.hidden = false;
    this.window = null; // as the label was made from it
    this.onStroke = this.onCancel = this.onScroll = this.onDrag = this.onView = () => {};
    this.pointers = new Map();
    this.cursor = null;
    new ResizeObserver(() => { this.#fitIfUntouched(); this.redraw(); }).observe(canvas);
    this.#listen();
  }

  show(picture, deep, map, width, height, { sameView = false } = {}) {
    this.picture = picture;
    this.deep = deep; // { steps, height, width, offset, step } or null
    this.map = map;
    const keepView = sameView && this.width === width && this.height === height;
    this.width = width;
    this.height = height;
    this.overlay.width = width;
    this.overlay.height = height;
    this.border = Math.max(1, Math.round(Math.max(width, height) / 500));
    this.#shade();
    this.#paintOverlay(0, 0, width, height);
    if (!keepView) this.fit();
    this.redraw();
  }

  setMap(map) { this.map = map; this.#paintOverlay(0, 0, this.width, this.height); this.redraw(); }

  setWindow(window) { this.window = window; this.#shade(); this.redraw(); }

  setOpacity(opacity) {
    this.opacity = opacity;
    if (this.map) this.#paintOverlay(0, 0, this.width, this.height);
    this.redraw();
  }

  fit() {
    const { clientWidth, clientHeight } = this.canvas;
    if (!this.width || !clientWidth || !clientHeight) return;
    this.scale = Math.min(clientWidth / this.width, clientHeight / this.height);
    this.x = (clientWidth - this.width * this.scale) / 2;
    this.y = (clientHeight - this.height * this.scale) / 2;
    this.fitted = true;
    this.onView();
    this.redraw();
  }

  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    if (!this.width) return;
    const least = 0.5 * Math.min(this.canvas.clientWidth / this.width, this.canvas.clientHeight / this.height);
    const scale = Math.min(LARGEST_ZOOM, Math.max(least, this.scale * factor));
    this.x = x - (x - this.x) * scale / this.scale;
    this.y = y - (y - this.y) * scale / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.onView();
    this.redraw();
  }

  redraw() {
    this.frame ??= requestAnimationFrame(() => { this.frame = null; this.#draw(); });
  }

  #fitIfUntouched() { if (this.fitted !== false) this.fit(); }

  #draw() {
    const { canvas, context } = this;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map(Math.round);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!this.picture) return;
    const scale = this.scale * ratio;
    context.setTransform(scale, 0, 0, scale, this.x * ratio, this.y * ratio);
    context.imageSmoothingEnabled = scale < 6;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.isShaded ? this.shaded : this.picture, 0, 0, this.width, this.height);
    if (!this.hidden && this.opacity > 0) {
      context.imageSmoothingEnabled = scale < 1;
      context.drawImage(this.overlay, 0, 0);
    }
    if (this.cursor && this.tool !== "move") {
      context.beginPath();
      context.arc(this.cursor.x, this.cursor.y, this.radius, 0, 2 * Math.PI);
      for (const [style, line] of [["#000", 3], ["#fff", 1.2]]) {
        context.strokeStyle = style;
        context.lineWidth = line / this.scale;
        context.stroke();
      }
    }
  }

  /* Apply window and level: to the grey values if the page has them, else to the 8-bit picture. */
  #shade() {
    this.isShaded = Boolean(this.picture && this.window);
    if (!this.isShaded) return;
    const { deep, picture } = this;
    const { center, width } = this.window;
    const shown = (value) => 255 * ((value - center) / width + 0.5);
    Object.assign(this.shaded, deep ? { width: deep.width, height: deep.height }
      : { width: picture.width, height: picture.height });
    const context = this.shaded.getContext("2d", { willReadFrequently: true });
    let image;
    if (deep) {
      image = context.createImageData(deep.width, deep.height);
      const table = Uint8ClampedArray.from({ length: 65536 }, (_, step) => shown(deep.offset + step * deep.step));
      const pixels = new Uint32Array(image.data.buffer); // alpha, blue, green, red
      for (let i = 0; i < pixels.length; i++) pixels[i] = 0xff000000 | (table[deep.steps[i]] * 0x010101);
    } else {
      context.drawImage(picture, 0, 0);
      image = context.getImageData(0, 0, this.shaded.width, this.shaded.height);
      const table = Uint8ClampedArray.from({ length: 256 }, (_, value) => shown(value));
      for (let i = 0; i < image.data.length; i++) if (i % 4 !== 3) image.data[i] = table[image.data[i]];
    }
    context.putImageData(image, 0, 0);
  }

  /* Draw a part of the label map as colours; borders of classes are stronger than their inside. */
  #paintOverlay(left, top, right, bottom) {
    const { map, width, height, border } = this;
    left = Math.max(0, left - border);
    top = Math.max(0, top - border);
    right = Math.min(width, right + border);
    bottom = Math.min(height, bottom + border);
    if (right <= left || bottom <= top) return;
    const context = this.overlay.getContext("2d");
    const image = context.createImageData(right - left, bottom - top);
    const inside = Math.round(255 * this.opacity);
    const edge = Math.round(255 * Math.min(1, this.opacity * 1.6 + 0.15));
    let at = 0;
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++, at += 4) {
        const here = y * width + x;
        const value = map[here];
        if (value === 0) continue;
        const [red, green, blue] = this.colours.get(value);
        const atEdge = (x >= border && map[here - border] !== value)
          || (x + border < width && map[here + border] !== value)
          || (y >= border && map[here - border * width] !== value)
          || (y + border < height && map[here + border * width] !== value);
        image.data[at] = red;
        image.data[at + 1] = green;
        image.data[at + 2] = blue;
        image.data[at + 3] = atEdge ? edge : inside;
      }
    }
    context.putImageData(image, left, top);
  }

  /* Set all pixels whose centre is within the radius of a line. */
  #stroke(from, to) {
    const { map, width, height, radius } = this;
    const value = this.tool === "erase" ? 0 : this.paint;
    const left = Math.max(0, Math.floor(Math.min(from.x, to.x) - radius));
    const right = Math.min(width, Math.ceil(Math.max(from.x, to.x) + radius) + 1);
    const top = Math.max(0, Math.floor(Math.min(from.y, to.y) - radius));
    const bottom = Math.min(height, Math.ceil(Math.max(from.y, to.y) + radius) + 1);
    const [dx, dy] = [to.x - from.x, to.y - from.y];
    const length = dx * dx + dy * dy;
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) {
        const [px, py] = [x + 0.5 - from.x, y + 0.5 - from.y];
        const along = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
        const [ox, oy] = [px - along * dx, py - along * dy];
        if (ox * ox + oy * oy <= radius * radius && map[y * width + x] !== value) {
          map[y * width + x] = value;
          this.changed = true;
        }
      }
    }
    this.#paintOverlay(left, top, right, bottom);
  }

  #position(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  #pixel({ x, y }) { return { x: (x - this.x) / this.scale, y: (y - this.y) / this.scale }; }

  #listen() {
    const { canvas, pointers } = this;
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.picture) return;
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, this.#position(event));
      if (this.painting) this.onCancel();
      this.painting = this.tool !== "move" && pointers.size === 1 && event.button === 0;
      if (this.painting) {
        this.changed = false;
        this.last = this.#pixel(this.#position(event));
        this.#stroke(this.last, this.last);
        this.redraw();
      }
    });
    canvas.addEventListener("pointermove", (event) => {
      const here = this.#position(event);
      if (this.scale) this.cursor = event.pointerType === "touch" ? null : this.#pixel(here);
      const before = pointers.get(event.pointerId);
      if (before && this.painting) {
        for (const each of event.getCoalescedEvents?.() ?? [event]) {
          const next = this.#pixel(this.#position(each));
          this.#stroke(this.last, next);
          this.last = next;
        }
      } else if (before && pointers.size === 2) {
        this.#pinch(event.pointerId, before, here);
      } else if (before && event.buttons & 2) {
        this.onDrag(here.x - before.x, before.y - here.y);
      } else if (before) {
        this.x += here.x - before.x;
        this.y += here.y - before.y;
        this.fitted = false;
      }
      if (before) pointers.set(event.pointerId, here);
      this.redraw();
    });
    for (const type of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(type, (event) => {
        if (!pointers.delete(event.pointerId)) return;
        if (this.painting && this.changed) this.onStroke();
        this.painting = this.changed = false;
      });
    }
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerleave", () => { this.cursor = null; this.redraw(); });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const { x, y } = this.#position(event);
      if (this.wheelScrolls && !event.ctrlKey) this.onScroll(Math.sign(event.deltaY));
      else this.zoom(Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) * 0.004), x, y);
    }, { passive: false });
  }

  #pinch(id, before, here) {
    const [other] = [...this.pointers].filter(([key]) => key !== id).map(([, value]) => value);
    const distance = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);
    this.x += (here.x - before.x) / 2;
    this.y += (here.y - before.y) / 2;
    this.zoom(distance(here, other) / Math.max(1, distance(before, other)), (here.x + other.x) / 2, (here.y + other.y) / 2);
  }
}
