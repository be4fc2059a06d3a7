// What happens between a question and its answer: agents light up in turn, edges show what they carried, text grows.

const HINT = "Readings are a hint of what a cache holds, not a proof: the model's output head was not trained on them.";
const QUESTION = -1; // the number of the question among the agents of a trace
const DOING = { thinking: "thinking", done: "done", unheard: "not heard", waiting: "waiting", stopped: "stopped", failed: "failed" };
const ENDS = { unheard: "unheard", failed: "failed" }; // what a step says of its agent, where that is not "done"

let run = null; // of the question that is asked or was last: see `begin`

const graph = makeGraph(byId("graph"), {
  label: "graph of who hands its cache to whom; the table below says who did what",
  aboutNode: (node) => ({ title: node.label, rows: [["now", DOING[run.states.get(node.id)]], ...sums(node.id)] }),
  aboutEdge: (edge) => ({
    title: `${run.names.get(edge.source)} → ${run.names.get(edge.target)}${edge.later ? ", a round later" : ""}`,
    rows: [
      ["weight", fixed(edge.weight, 3)], ["probability", fixed(edge.probability, 3)], ["channel", edge.channel],
      ["handed over", known(edge.bytes) ? inBytes(edge.bytes) : null],
    ],
  }),
  openNode: (node) => { openNode(node.id); panel.focus(); },
});
const panel = makePanel(byId("panel"), byId("bench"), graph);

function begin() {
  run = { names: new Map(), states: new Map(), steps: [], edges: [], began: performance.now(), cut: false, stopping: new AbortController() };
  panel.close();
  graph.show([], []);
  byId("answer").textContent = "";
  byId("error").hidden = true;
  byId("heard-section").hidden = true;
  byId("turns-section").hidden = true;
}

function setState(id, state) {
  if (!run.names.has(id)) return;
  run.states.set(id, state);
  graph.mark(id, state);
}

// -- what the server tells -----------------------------------------------------------------------

const TOLD = {
  topology({ agents, edges }) {
    const last = Math.max(...agents.map((agent) => agent.number));
    const alike = (role) => agents.filter((agent) => agent.role === role).length > 1;
    const nodes = agents.map(({ number, role }) => ({ id: String(number), label: alike(role) ? `${role} ${number + 1}` : role, decision: number === last }));
    run.names = new Map(nodes.map((node) => [node.id, node.label]));
    run.edges = edges.map((edge) => ({
      ...edge, source: String(edge.source), target: String(edge.target), later: edge.delay > 0, value: within(edge.weight, 0, 1),
      number: fixed(edge.weight), shown: true, bytes: null,
      key: `${edge.source}->${edge.target}${edge.delay ? " (later)" : ""}`,
    }));
    run.states = new Map(nodes.map((node) => [node.id, "waiting"]));
    byId("bench").hidden = false;
    graph.show(nodes, run.edges);
    nodes.forEach((node) => graph.mark(node.id, "waiting"));
  },

  turn({ round, agent }) {
    const id = String(agent), last = agent === run.names.size - 1;
    setState(id, "thinking");
    say(`${run.names.get(id) || "an agent"} ${last ? "writes" : "thinks"}${round ? `, round ${round + 1}` : ""} …`);
  },

  step(step) {
    run.steps.push(step);
    if (step.agent !== QUESTION) setState(String(step.agent), ENDS[step.what] || "done");
    fillTurns();
    if (panel.opened() === String(step.agent)) openNode(panel.opened());
  },

  done({ edge_bytes }) {
    const carried = new Map(edge_bytes.map((edge) => [`${edge.source} ${edge.target}`, edge.bytes]));
    for (const edge of run.edges) edge.bytes = carried.get(`${edge.source} ${edge.target}`) ?? null;
    graph.update(run.edges);
  },

  heard({ documents }) {
    const most = Math.max(...documents.flatMap(({ words }) => words.map(({ share }) => share)), Number.MIN_VALUE);
    byId("heard").replaceChildren(...documents.map(({ role, share, words }) => make("li", {},
      make("div", { class: "title" }, make("span", {}, role), known(share) ? make("span", { class: "figure" }, `${fixed(100 * share, 0)} %`) : null),
      known(share) ? bar(share) : null,
      make("div", {}, ...words.flatMap((each) => [word(each, most), " "])),
    )));
    byId("heard-section").hidden = !documents.length;
  },
};

function bar(share) {
  const filled = make("span", {});
  filled.style.width = `${100 * within(share, 0, 1)}%`;
  return make("div", { class: "bar" }, filled);
}

// the more a word was attended to, the stronger it stands out
function word({ word: text, share }, most) {
  const marked = make("mark", {}, text);
  marked.style.setProperty("--part", `${100 * within(share / most, 0, 1)}%`);
  return marked;
}

function told(chunk) {
  if (chunk.gcache) TOLD[chunk.gcache.kind]?.(chunk.gcache);
  for (const choice of chunk.choices || []) {
    byId("bench").hidden = false;
    if (choice.delta?.content) byId("answer").append(choice.delta.content);
    if (choice.finish_reason === "length") run.cut = true;
  }
}

// -- what is shown of it ------------------------------------------------------------------------

const say = (sentence) => { byId("status").textContent = sentence; };
const stepsOf = (id) => run.steps.filter((step) => String(step.agent) === id);
const seconds = (step) => `${fixed(step.ended - step.started)} s`;
const counted = (count, what) => (count ? `${whole(count)} ${what}` : null);

const figures = (step) => [
  ["read", counted(step.prefilled, "tokens")], ["kept caches of", counted(step.stored, "tokens")], ["latent steps", step.latent || null], ["written", counted(step.generated, "tokens")],
  ["received", counted(step.received, "slots")], ["took", seconds(step)], ["note", step.note || null],
];

function sums(id) {
  const steps = stepsOf(id);
  if (!steps.length) return [];
  const sum = (name) => steps.reduce((all, step) => all + (step[name] || 0), 0);
  return figures({ started: 0, ...Object.fromEntries(["prefilled", "stored", "latent", "generated", "received"].map((n) => [n, sum(n)])), ended: sum("ended") - sum("started") });
}

function openNode(id) {
  const steps = stepsOf(id), rounds = steps.length > 1;
  const parts = steps.flatMap((step) => [
    rounds ? make("h3", {}, `Round ${step.round + 1}`) : null,
    terms(figures(step)),
    titled("Nearest tokens of each latent step", step.reading?.length ? readingList(step.reading) : null),
  ]);
  const read = steps.some((step) => step.reading?.length);
  const state = make("p", { class: "soft" }, DOING[run.states.get(id)]);
  panel.open(id, run.names.get(id), [state, ...parts, read ? make("p", { class: "soft hint" }, HINT) : null]);
}

function fillTurns() {
  const columns = ["who", "round", "what", "read", "latent", "written", "received", "seconds"];
  const row = (step) => [
    run.names.get(String(step.agent)) || step.role, step.agent === QUESTION ? "" : step.round + 1, step.note ? `${step.what}: ${step.note}` : step.what,
    step.prefilled, step.latent, step.generated, step.received, fixed(step.ended - step.started),
  ];
  const style = (i) => ({ class: i === 1 || i > 2 ? "figure" : null });
  byId("turns").replaceChildren(
    make("thead", {}, make("tr", {}, ...columns.map((name, i) => make("th", { scope: "col", ...style(i) }, name)))),
    make("tbody", {}, ...run.steps.map((step) => make("tr", {}, ...row(step).map((value, i) => make("td", style(i), value))))),
  );
  byId("turns-section").hidden = false;
}

// -- asking --------------------------------------------------------------------------------------

function busy(on) {
  const [ask, stop] = [byId("ask"), byId("stop")];
  const [from, to] = on ? [ask, stop] : [stop, ask];
  const held = document.activeElement === from;
  to.disabled = false;
  if (held) to.focus(); // a button that is switched off would lose the focus to nowhere
  from.disabled = true;
}

function fail(error) {
  const stopped = error.name === "AbortError";
  for (const [id, state] of run.states) if (state === "thinking" || state === "waiting") setState(id, "stopped");
  if (stopped) return say("Stopped.");
  if (error.status === 401) wantKey();
  if (error.field?.startsWith("gcache.agents")) byId("cast").open = true;
  byId("error").textContent = error.message;
  byId("error").hidden = false;
  say("");
  if (!(error instanceof Failure)) throw error; // a mistake of this page: the console has it
}

function summary() {
  const bytes = run.edges.reduce((all, edge) => all + (edge.bytes || 0), 0);
  const over = bytes ? `, ${inBytes(bytes)} handed over` : "";
  const cut = run.cut ? " The answer was cut at the most tokens allowed." : "";
  return `Done in ${fixed((performance.now() - run.began) / 1000, 1)} s${over}.${cut}`;
}

async function ask(event) {
  event.preventDefault();
  if (byId("ask").disabled) return;
  begin();
  busy(true);
  say("Asking …");
  try {
    await complete(request(), authorization(), run.stopping.signal, told);
    say(summary());
  } catch (error) {
    fail(error);
  } finally {
    busy(false);
  }
}

followTheme(byId("theme"));
byId("form").addEventListener("submit", ask);
byId("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
});
byId("stop").addEventListener("click", () => run.stopping.abort());
byId("add").addEventListener("click", addAgent);
byId("key").addEventListener("change", askModel);
askModel();
