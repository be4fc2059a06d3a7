// One request to the server and the events of its answer. Whatever goes wrong ends as a `Failure` with a sentence.

class Failure extends Error {
  constructor(sentence, status = 0, field = "") {
    super(sentence);
    Object.assign(this, { status, field }); // field: of the request, where the server names one
  }
}

const UNREACHED = "The server cannot be reached. Is it still running?";
const LOST = "The connection was lost before the answer was complete.";
const STRANGE = "The server sent something that this page does not understand.";

// fetch, with a sentence for all that is no answer; aborting stays what it is
async function reach(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Failure(UNREACHED);
  }
  if (!response.ok) throw await complaint(response);
  return response;
}

// what the server says is wrong; not every proxy on the way speaks JSON
async function complaint(response) {
  const said = await response.json().then((body) => body.error, () => null);
  const refused = `The server refused: ${response.status} ${response.statusText}`.trimEnd() + ".";
  return new Failure(said?.message || refused, response.status, said?.param || "");
}

// the data of server-sent events, one after another
async function* dataOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", data = [];
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new Failure(LOST);
    });
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines.map((each) => each.replace(/\r$/, ""))) {
      if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
      else if (line === "" && data.length) {
        yield data.join("\n");
        data = [];
      }
    }
  }
}

// POSTs a chat completion and calls `told` with every chunk of its answer, until that is complete
async function complete(body, headers, signal, told) {
  const response = await reach("v1/chat/completions", {
    method: "POST", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(body), signal,
  });
  for await (const data of dataOf(response)) {
    if (data === "[DONE]") return;
    let chunk;
    try {
      chunk = JSON.parse(data);
    } catch {
      throw new Failure(STRANGE);
    }
    if (chunk.error) throw new Failure(chunk.error.message || STRANGE);
    told(chunk);
  }
  throw new Failure(LOST);
}
