// The page of a view: its graph at the slider's step, and all that is known of it.

const view = JSON.parse(byId("view").textContent);
const named = new Map(view.nodes.map((node) => [node.id, node.label]));
const keyOf = (edge) => `${edge.source}->${edge.target}${edge.later ? " (later)" : ""}`;
const titleOf = (edge) => `${named.get(edge.source)} → ${named.get(edge.target)}${edge.later ? ", a round later" : ""}`;
const frame = () => view.frames[Number(byId("step").value)];

// what is known of an edge, as (name, value); the table has the same columns
function facts(edge) {
  const range = (low, high, digits) => `${fixed(low, digits)} to ${fixed(high, digits)}`;
  const cost = edge.cost;
  return [
    ["probability", fixed(edge.probability, 3)],
    ["middle 90 %", known(edge.low) && known(edge.high) ? range(edge.low, edge.high, 3) : null],
    ["in the topology that is run", known(edge.kept) ? `${fixed(100 * edge.kept, 0)} %` : null],
    ["weight", known(edge.weight) ? fixed(edge.weight, 3) : null],
    ["handed over", known(edge.bytes) ? inBytes(edge.bytes) : null],
    ["slots", known(edge.slots) ? whole(edge.slots) : null],
    ["channel", edge.channel],
    ["words", edge.words],
    ["accuracy change when cut", cost ? `${signed(cost.difference)} (${signed(cost.low)} to ${signed(cost.high)}), n = ${cost.n}` : null],
  ];
}

function forGraph(edge) {
  const seen = edge.probability >= Number(byId("threshold").value);
  const number = byId("numbers").checked && edge.probability >= 0.01 ? fixed(edge.probability) : "";
  return { ...edge, key: keyOf(edge), value: within(edge.probability, 0, 1), number, shown: seen };
}

const seenEdges = () => frame().edges.map(forGraph).filter((edge) => edge.shown);

const graph = makeGraph(byId("graph"), {
  label: "graph of who hands its cache to whom; the table below says the same",
  aboutNode: (node) => ({ title: node.label, rows: handing(view.nodes.find((n) => n.id === node.id)) }),
  aboutEdge: (edge) => ({ title: titleOf(edge), rows: facts(edge) }),
  openNode: (node) => { openNode(node.id); panel.focus(); },
});
const panel = makePanel(byId("panel"), byId("stage"), graph);

// a node's details, and how many edges it has
function handing(node) {
  const edges = seenEdges();
  const count = (end) => edges.filter((edge) => edge[end] === node.id).length;
  return [...node.details, ["hands to", node.decision ? null : count("source")], ["is handed to by", count("target")]];
}

function openNode(id) {
  const node = view.nodes.find((n) => n.id === id);
  const reading = node.reading.length ? readingList(node.reading) : null;
  const read = reading || words(node.reading_text);
  panel.open(id, node.label, [
    terms(handing(node)),
    titled("Prompt", words(node.prompt)),
    titled("Text", words(node.text)),
    titled("Nearest tokens of each latent step", reading),
    titled("What the model writes from this cache alone", words(node.reading_text)),
    read && view.hint ? make("p", { class: "soft hint" }, view.hint) : null,
    titled("Share of the answer's attention, by layer", node.attention ? bars(node.attention) : null),
  ]);
}

function bars(shares) {
  const most = Math.max(...shares, 1e-9);
  return make("div", { class: "bars", role: "list" }, ...shares.flatMap((share, layer) => {
    const bar = make("div", { class: "bar" });
    bar.style.width = `${(100 * share) / most}%`;
    return [
      make("span", { class: "soft" }, layer), make("div", { class: "track", role: "listitem", "aria-label": `layer ${layer}: ${fixed(100 * share, 1)} %` }, bar),
      make("span", { "aria-hidden": "true" }, `${fixed(100 * share, 1)} %`),
    ];
  }));
}

function fillTable() {
  const edges = seenEdges().sort((a, b) => b.probability - a.probability);
  const all = frame().edges;
  const columns = all.length ? facts(all[0]).map(([name]) => name).filter((_, i) => all.some((edge) => known(facts(edge)[i][1]))) : [];
  const caption = `${edges.length} of ${all.length} edges, ${frame().label}`;
  const isText = (name) => name === "channel" || name === "words";
  const cell = (name, value) => make("td", { class: isText(name) ? null : "figure" }, known(value) ? value : "");
  byId("edges").replaceChildren(
    make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...["from", "to"].map((name) => make("th", { scope: "col" }, name)),
      ...columns.map((name) => make("th", { scope: "col", class: isText(name) ? null : "figure" }, name)))),
    make("tbody", {}, ...edges.map((edge) => {
      const values = new Map(facts(edge));
      return make("tr", { "data-row": edge.key }, make("td", {}, named.get(edge.source)), make("td", {}, named.get(edge.target) + (edge.later ? ", a round later" : "")),
        ...columns.map((name) => cell(name, values.get(name))));
    })),
  );
}

const charts = view.curves.filter((curve) => curve.points.length).map(makeChart);

function show() {
  const { step, label, edges } = frame();
  byId("step-label").textContent = label;
  byId("step").setAttribute("aria-valuetext", label);
  byId("threshold-label").textContent = fixed(Number(byId("threshold").value));
  graph.update(edges.map(forGraph));
  charts.forEach((chart) => chart.at(step));
  fillTable();
  if (panel.opened() !== null) openNode(panel.opened());
}

function makePlayer(button, slider) {
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "▶ Play";
  };
  const next = () => {
    if (Number(slider.value) >= Number(slider.max)) return stop();
    slider.value = Number(slider.value) + 1;
    show();
  };
  button.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (slider.value === slider.max) slider.value = 0;
    show();
    timer = setInterval(next, 700);
    button.textContent = "⏸ Pause";
  });
  slider.addEventListener("input", () => { stop(); show(); });
}

function fillHead() {
  byId("title").textContent = view.title;
  byId("subtitle").textContent = [view.subtitle, view.task, view.model, `step ${view.step}`].filter(Boolean).join(" · ");
  if (known(view.question)) {
    byId("asked").append(make("h2", {}, "Question"), words(view.question) || "", ...(known(view.answer) ? [make("h2", {}, "Answer"), words(view.answer) || ""] : []));
    byId("asked").hidden = false;
  }
  const edges = view.frames.flatMap((f) => f.edges);
  const kinds = [
    ["decision", "into the decision maker", (e) => !e.later && isDecision(e.target)],
    ["among", "among agents", (e) => !e.later && !isDecision(e.target)],
    ["later", "a round later", (e) => e.later],
  ].filter(([, , fits]) => edges.some(fits));
  byId("legend").append(...kinds.map(([kind, name]) => make("span", {}, make("span", { class: `key ${kind}`, "aria-hidden": "true" }), name)));
  if (kinds.length) byId("legend").append("The wider, the likelier.");
  const notes = view.notes || [];
  byId("notes").append(...notes.map((note) => make("p", {}, note)));
  byId("notes").hidden = !notes.length;
}

function isDecision(id) {
  return view.nodes.some((node) => node.id === id && node.decision);
}

followTheme(byId("theme"));
fillHead();
byId("step").max = view.frames.length - 1;
byId("step").value = view.frames.length - 1;
byId("steps").hidden = view.frames.length < 2;
byId("curves").append(...charts.map((chart) => chart.element));
byId("curves-section").hidden = !charts.length;
const every = new Map(view.frames.flatMap((f) => f.edges).map((edge) => [keyOf(edge), forGraph(edge)]));
graph.show(view.nodes, [...every.values()]);
makePlayer(byId("play"), byId("step"));
byId("threshold").addEventListener("input", show);
byId("numbers").addEventListener("change", show);
show();
