// The Vercel AI SDK (ai, @ai-sdk/openai-compatible) against `gcache serve`. One line a check, ok or failed.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, streamText } from "ai";

const [url, model] = process.argv.slice(2);
const QUESTION = "Ann has 3 boxes of 12 eggs and breaks 5 eggs. How many are whole?";
const OTHER = "Tom reads 4 pages a day. How many pages does he read in 7 days?";
const PROMPT = "Once upon a time";
const MOST = 12;
const served = createOpenAICompatible({ name: "gcache", baseURL: url, apiKey: "key-of-the-test", includeUsage: true });
const ask = { temperature: 0, maxOutputTokens: MOST, maxRetries: 0 };

async function plain(path, body) {
  const headers = { "Content-Type": "application/json", Authorization: "Bearer key-of-the-test" };
  const answer = await fetch(url + path, { method: "POST", headers, body: JSON.stringify({ max_tokens: MOST, ...body }) });
  return (await answer.json()).choices[0];
}
const chat = async (content) => (await plain("/chat/completions", { messages: [{ role: "user", content }] })).message.content;
const completed = async (prompt) => (await plain("/completions", { prompt })).text;

function equal(found, wanted) {
  if (found !== wanted) throw new Error(`${JSON.stringify(found)} is not ${JSON.stringify(wanted)}`);
}

async function streamed(options) {
  const stream = streamText({ ...ask, ...options });
  let text = "";
  for await (const piece of stream.textStream) text += piece;
  return [text, await stream.usage];
}

const checks = {
  chat: async () => {
    const answer = await generateText({ model: served.chatModel(model), prompt: QUESTION, ...ask });
    equal(answer.text, await chat(QUESTION));
    return `${answer.usage.inputTokens} + ${answer.usage.outputTokens} tokens, ${answer.finishReason}`;
  },
  "chat, stream": async () => {
    const [text, usage] = await streamed({ model: served.chatModel(model), prompt: QUESTION });
    equal(text, await chat(QUESTION));
    return `usage at the end: ${usage.inputTokens} + ${usage.outputTokens}`;
  },
  "chat, several at once": async () => {
    const all = await Promise.all([QUESTION, OTHER].map((prompt) => generateText({ model: served.chatModel(model), prompt, ...ask })));
    equal(all[0].text, await chat(QUESTION));
    equal(all[1].text, await chat(OTHER));
    return "two questions";
  },
  "seed, top_p, stop": async () => {
    const draw = { model: served.chatModel(model), prompt: QUESTION, ...ask, temperature: 1.1, topP: 0.9, seed: 3, stopSequences: ["zzz"] };
    const [one, two] = [await generateText(draw), await generateText(draw)];
    equal(one.text, two.text);
    return "the same text again";
  },
  completions: async () => {
    const answer = await generateText({ model: served.completionModel(model), prompt: PROMPT, ...ask });
    return `the SDK writes a prompt of its own round a text: ${JSON.stringify(answer.text).slice(0, 60)}`;
  },
  "completions, stream": async () => {
    const whole = await generateText({ model: served.completionModel(model), prompt: PROMPT, ...ask });
    const [text] = await streamed({ model: served.completionModel(model), prompt: PROMPT });
    equal(text, whole.text);
    return "as the whole one";
  },
  errors: async () => {
    try {
      await generateText({ model: served.chatModel("other"), prompt: QUESTION, ...ask });
    } catch (error) {
      if (!APICallError.isInstance(error) || error.statusCode !== 404) throw error;
      return `${error.statusCode}: ${error.message}`;
    }
    throw new Error("another model answers");
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  let outcome = "ok";
  let told;
  try {
    told = await check();
  } catch (error) {
    [outcome, told, failed] = ["failed", `${error.name}: ${error.message}`, failed + 1];
  }
  console.log(`${outcome.padEnd(6)}  ${name}: ${String(told).split(/\s+/).join(" ").slice(0, 200)}`);
}
process.exit(failed ? 1 : 0);
