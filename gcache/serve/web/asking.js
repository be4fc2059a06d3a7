// The form: what is asked, with which settings, of which agents.

let modelName = "gcache";

function authorization() {
  const key = byId("key").value.trim();
  return key ? { authorization: `Bearer ${key}` } : {};
}

// what is sent; a setting that is left empty is left to the server
function request() {
  const gcache = { trace: true };
  const agents = agentRows();
  if (agents.length) gcache.agents = agents;
  const body = { model: modelName, messages: [{ role: "user", content: byId("question").value }], stream: true, gcache };
  for (const name of ["temperature", "seed", "max_tokens"]) {
    if (byId(name).value !== "") body[name] = Number(byId(name).value);
  }
  return body;
}

// the filled rows of the editor
function agentRows() {
  return [...byId("agents").children]
    .map((row) => Object.fromEntries([...row.querySelectorAll("input")].map((input) => [input.name, input.value.trim()])))
    .filter((agent) => Object.values(agent).some(Boolean))
    .map(({ description, ...agent }) => (description ? { ...agent, description } : agent));
}

function addAgent() {
  const number = byId("agents").children.length + 1;
  const field = (name, title) => make("label", {}, title, make("input", { name, type: "text", autocomplete: "off", "aria-label": `${title} of agent ${number}` }));
  const row = make("div", { class: "agent" }, field("role", "Role"), field("description", "Description"), field("note", "Note that it alone has"));
  row.append(make("button", { type: "button", "aria-label": `remove agent ${number}`, onclick: () => { row.remove(); byId("add").focus(); } }, "✕"));
  byId("agents").append(row);
  row.querySelector("input").focus();
}

// the model's name, for the heading and for requests; a server that wants a key says so here
async function askModel() {
  try {
    const listed = await (await reach("v1/models", { headers: authorization() })).json();
    modelName = listed.data[0].id;
    byId("model").textContent = `Model: ${modelName}`;
  } catch (error) {
    if (error.status === 401) wantKey();
    else byId("model").textContent = "The model's name is not known.";
  }
}

function wantKey() {
  byId("model").textContent = "This server wants an API key: enter it in the settings.";
  byId("settings").open = true;
}
