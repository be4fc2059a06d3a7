// A directed graph in SVG: nodes can be dragged and opened, edges asked about, all of it zoomed, panned, and used by keyboard.

const NODE_HEIGHT = 38;

/* figure: where it is put, before what is in it.
   aboutNode, aboutEdge: of a node or an edge, {title, rows: [[name, value], ...]} for the tooltip.
   openNode: called with a node that is clicked, or entered.
   Nodes are {id, label, decision}; edges are {key, source, target, later, value, number, shown}, whose value, from 0 to 1,
   is their width, and whose number stands on them. */
function makeGraph(figure, { label, aboutNode, aboutEdge, openNode }) {
  const nodeLayer = draw("g"), edgeLayer = draw("g"), numberLayer = draw("g", { "aria-hidden": "true" });
  const world = draw("g", {}, edgeLayer, numberLayer, nodeLayer);
  const svg = draw("svg", { role: "group", tabindex: 0, "aria-label": label }, world);
  const tip = makeTip(figure);
  const view = { x: 0, y: 0, k: 1 };
  const margin = { x: 0, y: 0 }, scale = { x: 1, y: 1 }; // pixels to place 0, and from there to place 1
  let nodes = new Map(), edges = new Map(), width = 0, height = 0;

  function show(newNodes, newEdges) {
    for (const layer of [nodeLayer, edgeLayer, numberLayer]) layer.replaceChildren();
    tip.hide();
    const places = standing(newNodes);
    nodes = new Map(newNodes.map((node) => [node.id, makeNode(node, places.get(node.id))]));
    edges = new Map(newEdges.map((edge) => [edge.key, makeEdge(edge)]));
    const ends = (edge) => [edge.source, edge.target].sort().join("\n");
    for (const edge of edges.values()) {
      const rivals = [...edges.values()].filter((other) => ends(other.data) === ends(edge.data)).length > 1;
      const near = edge.data.later ? 0.25 : 0.11;
      edge.lanes = rivals ? [near, near + 0.12, near + 0.24] : [0, 0.13, -0.13, 0.24, -0.24, 0.36, -0.36];
    }
    describe(newEdges);
    fit();
  }

  function makeNode(data, place) {
    const text = draw("text"), rect = draw("rect", { height: NODE_HEIGHT, y: -NODE_HEIGHT / 2, rx: NODE_HEIGHT / 2 });
    const group = draw("g", { class: data.decision ? "node decision" : "node", "data-node": data.id, tabindex: 0, role: "button" }, rect, text);
    nodeLayer.append(group);
    const node = { data, place, group, rect, text, height: NODE_HEIGHT };
    group.setAttribute("aria-label", nameOf(data));
    group.addEventListener("click", () => openNode(data));
    group.addEventListener("keydown", (event) => nodeKey(event, node));
    tip.on(group, () => aboutNode(data), () => onScreen({ x: node.x, y: node.y + NODE_HEIGHT / 2 }));
    return node;
  }

  const nameOf = (data, state) => `${data.label}${state ? `, ${state}` : ""}; opens what is known of it`;

  // what a node is doing, for the eye (by the style of the page) and the ear
  function mark(id, state) {
    const node = nodes.get(id);
    if (!node) return;
    node.group.setAttribute("data-state", state);
    node.group.setAttribute("aria-label", nameOf(node.data, state));
    tip.refresh();
  }

  function makeEdge(data) {
    const [line, arrow, hit] = ["line", "arrow", "hit"].map((name) => draw("path", { class: name }));
    hit.setAttribute("data-edge", data.key);
    const kind = data.later ? "edge later" : nodes.get(data.target).data.decision ? "edge decision" : "edge";
    const group = draw("g", { class: kind, tabindex: 0, role: "img" }, line, arrow, hit);
    style(line, group, data); // before it is seen, or it would grow to its width
    const number = draw("g", { class: "number", hidden: true }, draw("rect", { y: -8, height: 16, rx: 5 }), draw("text"));
    edgeLayer.append(group);
    numberLayer.append(number);
    const edge = { data, group, line, arrow, hit, number, lanes: [0], lane: 0, ends: [], seen: null };
    tip.on(group, () => aboutEdge(edge.data), () => onScreen(pointAt(edge.seen, 0.5)));
    return edge;
  }

  // edges that are not among the new ones are hidden; the graph keeps its elements, so the focus stays where it is
  function update(newEdges) {
    describe(newEdges);
    renderEdges();
    tip.refresh();
  }

  function describe(newEdges) {
    const given = new Map(newEdges.map((edge) => [edge.key, edge]));
    for (const [key, edge] of edges) {
      edge.data = given.get(key) || { ...edge.data, shown: false };
      const about = aboutEdge(edge.data);
      const facts = about.rows.filter((row) => known(row[1])).map((row) => row.join(" "));
      edge.group.setAttribute("aria-label", [about.title, ...facts].join(", "));
    }
  }

  // to the width that there is: new after a change of nodes or window
  function fit() {
    width = svg.clientWidth || 800;
    const top = [...edges.values()].some(isLoop) ? 76 : 48;
    height = within(120 + 62 * nodes.size, 360, Math.max(620, 2 * top + (NODE_HEIGHT + 8) * (nodes.size - 2)));
    svg.setAttribute("height", height);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.classList.toggle("narrow", width < 520);
    for (const node of nodes.values()) fitText(node);
    const all = [...nodes.values()];
    const half = (decision) => Math.max(40, ...all.filter((n) => n.data.decision === decision).map((n) => n.width)) / 2 + 14;
    Object.assign(margin, { x: half(false), y: top });
    Object.assign(scale, { x: Math.max(width - half(false) - half(true), 40), y: height - 2 * top });
    stand();
  }

  // new after a node has moved
  function stand() {
    for (const node of nodes.values()) {
      node.x = margin.x + node.place.x * scale.x;
      node.y = margin.y + node.place.y * scale.y;
      node.above = node.place.y <= 0.5;
      node.group.setAttribute("transform", `translate(${node.x.toFixed(1)} ${node.y.toFixed(1)})`);
    }
    for (const edge of edges.values()) {
      edge.ends = [nodes.get(edge.data.source), nodes.get(edge.data.target)];
      edge.lane = freeLane(...edge.ends, edge.lanes, [...nodes.values()]);
    }
    renderEdges();
  }

  // new after edges have other values
  function renderEdges() {
    for (const edge of edges.values()) renderEdge(edge);
    placeNumbers([...edges.values()], [...nodes.values()]);
  }

  // new after zoom and pan
  const look = () => world.setAttribute("transform", `translate(${view.x} ${view.y}) scale(${view.k})`);

  const isLoop = (edge) => edge.data.source === edge.data.target;

  function fitText(node) {
    const most = Math.max(width * (node.data.decision ? 0.4 : 0.36), 100) - 28;
    const [, start, number] = node.data.label.match(/^(.*?)( \d+)?$/s); // of agents with one name the number is kept
    node.text.textContent = node.data.label;
    for (let kept = start.length - 1; kept > 2 && node.text.getComputedTextLength() > most; kept--) {
      node.text.textContent = start.slice(0, kept).trimEnd() + "…" + (number || "");
    }
    node.width = Math.max(node.text.getComputedTextLength() + (width < 520 ? 24 : 32), 58);
    node.rect.setAttribute("width", node.width);
    node.rect.setAttribute("x", -node.width / 2);
  }

  const strokeOf = (data) => 1.2 + 6.3 * data.value;

  function style(line, group, data) {
    line.style.strokeWidth = `${strokeOf(data).toFixed(2)}px`;
    group.style.setProperty("--o", (0.3 + 0.7 * data.value).toFixed(3));
  }

  function renderEdge(edge) {
    const { data, group, line, arrow, hit } = edge;
    const paths = drawn(...edge.ends, edge.lane, strokeOf(data));
    group.toggleAttribute("hidden", !data.shown);
    edge.seen = paths.seen;
    line.setAttribute("d", paths.line);
    hit.setAttribute("d", paths.line);
    arrow.setAttribute("d", paths.arrow);
    style(line, group, data);
  }

  const onScreen = (point) => ({ x: point.x * view.k + view.x, y: point.y * view.k + view.y });

  function zoom(factor, around = { x: width / 2, y: height / 2 }) {
    const k = within(view.k * factor, 0.5, 5);
    view.x = around.x - ((around.x - view.x) * k) / view.k;
    view.y = around.y - ((around.y - view.y) * k) / view.k;
    view.k = k;
    look();
  }

  function pan(x, y) {
    view.x += x;
    view.y += y;
    look();
  }

  function showAll() {
    Object.assign(view, { x: 0, y: 0, k: 1 });
    for (const [id, place] of standing([...nodes.values()].map((n) => n.data))) nodes.get(id).place = place;
    look();
    stand();
  }

  function move(node, x, y) {
    const share = (axis, by) => within(node.place[axis] + by / view.k / scale[axis], -0.3, 1.3);
    node.place = { x: share("x", x), y: share("y", y) };
    stand();
  }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  function nodeKey(event, node) {
    if (event.key === "Enter" || event.key === " ") openNode(node.data);
    else if (event.shiftKey && ARROWS[event.key]) move(node, ...ARROWS[event.key].map((way) => 16 * way));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  svg.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") zoom(1.25);
    else if (event.key === "-") zoom(0.8);
    else if (event.key === "0") showAll();
    else if (ARROWS[event.key] && event.target === svg) pan(...ARROWS[event.key].map((way) => -40 * way));
    else return;
    event.preventDefault();
  });

  // the wheel is the page's until the graph was clicked or entered, or Ctrl is held
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && !svg.contains(document.activeElement)) return;
    event.preventDefault();
    const box = svg.getBoundingClientRect();
    zoom(Math.exp(-within(event.deltaY, -200, 200) * 0.002), { x: event.clientX - box.left, y: event.clientY - box.top });
  }, { passive: false });

  dragging(svg, (target) => nodes.get(target.closest(".node")?.dataset.node), (node, x, y) => (node ? move(node, x, y) : pan(x, y)));

  const button = (sign, name, act) => make("button", { type: "button", "aria-label": name, title: name, onclick: act }, sign);
  figure.prepend(svg, make("div", { class: "zoom", role: "group", "aria-label": "zoom" },
    button("+", "zoom in", () => zoom(1.25)), button("−", "zoom out", () => zoom(0.8)), button("⤢", "show all", showAll)), tip.element);
  new ResizeObserver(() => svg.clientWidth !== width && fit()).observe(figure);

  return {
    show, update, mark,
    node: (id) => nodes.get(id)?.group,
    select: (id) => nodes.forEach((node, key) => node.group.classList.toggle("selected", key === id)),
  };
}
