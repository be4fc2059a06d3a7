// The panel beside a graph: opened from a node, closed by its button or Escape, which give the focus back.

function makePanel(panel, stage, graph) {
  let from = null;

  function close() {
    if (panel.hidden) return;
    const held = panel.contains(document.activeElement);
    panel.hidden = true;
    stage.classList.remove("open");
    graph.select(null);
    if (held && from) graph.node(from)?.focus();
    from = null;
  }

  // parts: elements, or null for what is not there
  function open(id, title, parts) {
    from = id;
    const button = make("button", { type: "button", "aria-label": "close the panel", onclick: close }, "✕");
    panel.replaceChildren(make("header", {}, make("h2", { id: "panel-title" }, title), button), ...parts.filter(Boolean));
    panel.hidden = false;
    stage.classList.add("open");
    graph.select(id);
  }

  panel.addEventListener("keydown", (event) => event.key === "Escape" && close());
  return { open, close, opened: () => from, focus: () => panel.focus({ preventScroll: innerWidth > 800 }) };
}

// a heading and what is under it; null where there is nothing
function titled(title, content) {
  return known(content) ? make("div", {}, make("h3", {}, title), content) : null;
}

const words = (text) => (known(text) && text !== "" ? make("p", { class: "words" }, text) : null);
