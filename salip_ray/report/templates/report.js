"use strict";
(() => {
  const viewer = document.getElementById("viewer");
  const stage = document.getElementById("stage");
  const layers = document.getElementById("layers");
  const detail = document.getElementById("detail");
  const title = document.getElementById("viewer-title");
  const items = [...document.querySelectorAll("button.item")];
  const shown = { cascade: true, prompt: true, reference: true };
  let current = -1;

  function open(index) {
    current = (index + items.length) % items.length;
    const item = items[current];
    title.textContent = item.querySelector(".name").textContent;
    stage.replaceChildren(item.querySelector(".picture").cloneNode(true));
    detail.replaceChildren(...[...item.nextElementSibling.cloneNode(true).childNodes]);
    listLayers();
    detail.querySelectorAll("button.find").forEach(wireFind);
    detail.scrollTop = viewer.scrollTop = 0;
    if (!viewer.open) viewer.showModal();
    title.focus();
  }

  function listLayers() {
    const names = new Map();
    for (const mark of stage.querySelectorAll("[data-layer]")) {
      names.set(mark.dataset.layer, mark.dataset.name);
    }
    // Without the cascade the first method's masks are the labels.
    if (!names.has("cascade") && names.size && !(names.keys().next().value in shown)) {
      shown[names.keys().next().value] = true;
    }
    layers.replaceChildren(layers.firstElementChild);
    layers.hidden = names.size === 0;
    for (const [layer, name] of names) {
      const label = document.createElement("label");
      const box = document.createElement("input");
      const swatch = document.createElement("span");
      box.type = "checkbox";
      box.checked = Boolean(shown[layer]);
      swatch.className = `swatch k-${layer}`;
      box.addEventListener("change", () => { shown[layer] = box.checked; showLayers(); });
      label.append(box, swatch, ` ${name}`);
      layers.append(label);
    }
    showLayers();
  }

  function showLayers() {
    for (const mark of stage.querySelectorAll("[data-layer]")) {
      mark.classList.toggle("off", !shown[mark.dataset.layer]);
    }
  }

  function wireFind(button) {
    const box = stage.querySelector(`[data-box="${button.dataset.find}"]`);
    if (!box) { button.disabled = true; return; }
    const mark = (on) => box.classList.toggle("found", on || button.ariaPressed === "true");
    button.addEventListener("mouseenter", () => mark(true));
    button.addEventListener("mouseleave", () => mark(false));
    button.addEventListener("focus", () => mark(true));
    button.addEventListener("blur", () => mark(false));
    button.addEventListener("click", () => {
      button.ariaPressed = String(button.ariaPressed !== "true");
      mark(button.ariaPressed === "true");
    });
  }

  items.forEach((item, index) => item.addEventListener("click", () => open(index)));
  document.getElementById("previous").addEventListener("click", () => open(current - 1));
  document.getElementById("next").addEventListener("click", () => open(current + 1));
  document.getElementById("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", () => { if (current >= 0) items[current].focus(); });
  viewer.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.target.closest(".scroll, pre") && event.target.closest(".scroll, pre") === event.target) return;
    if (event.key === "ArrowLeft") { event.preventDefault(); open(current - 1); }
    if (event.key === "ArrowRight") { event.preventDefault(); open(current + 1); }
  });
})();
