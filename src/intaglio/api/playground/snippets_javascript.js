// Code in JavaScript: fetch with server-sent events, OpenAI's SDK, the AI SDK, and a Worker.

const TOKEN = "process.env.CLOUDFLARE_API_TOKEN";
const LINE = 90; // characters, from which a value is laid out on several

/** A module for Node.js 18 and later; all but the last line's process.stdout runs in a browser too. */
export function fetchOf({ sent, withToken, isOpenai }) {
  const { url, body } = sent;
  const headers = `{ "Content-Type": "application/json"${withToken ? `, Authorization: \`Bearer \${${TOKEN}}\`` : ""} }`;
  return [
    `const response = await fetch(${literal(url)}, {`,
    '  method: "POST",',
    `  headers: ${headers},`,
    `  body: JSON.stringify(${literal(body, "  ")}),`,
    "});",
    "if (!response.ok) throw new Error(await response.text());",
    ...(body.stream ? streamReader(isOpenai, body) : [isOpenai
      ? "console.log(JSON.stringify((await response.json()).choices[0], null, 2));"
      : `const { result } = await response.json();\nconsole.log(${offersTools(body) ? "result.tool_calls ?? " : ""}result.response);`]),
  ].join("\n");
}

function streamReader(isOpenai, body) {
  return [
    'let held = ""; // an event ends with an empty line, a piece of the stream anywhere',
    "for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {",
    '  const events = (held + piece).split("\\n\\n");',
    "  held = events.pop();",
    "  for (const event of events) {",
    '    const data = event.replace(/^data: /, "");',
    '    if (data === "[DONE]") break;',
    `    const { ${isOpenai ? "choices, error" : `response: text, errors${offersTools(body) ? ", tool_calls: calls" : ""}`} } = JSON.parse(data);`,
    `    if (${isOpenai ? "error" : "errors"}) throw new Error(${isOpenai ? "error" : "errors[0]"}.message);`,
    ...(isOpenai ? ["    console.log(JSON.stringify(choices[0]));"] : [
      ...(offersTools(body) ? ["    if (calls) console.log(JSON.stringify(calls));"] : []),
      "    process.stdout.write(text);",
    ]),
    "  }",
    "}",
  ];
}

/** A module for Node.js. */
export function openaiJavascriptOf({ base, openai, withToken }) {
  const { route, body } = openai;
  const isText = route === "completions";
  const logprobs = body.logprobs !== undefined;
  return [
    'import OpenAI from "openai";',
    "",
    `const client = new OpenAI({ baseURL: ${literal(base)}, apiKey: ${withToken ? TOKEN : '"any"'} });`,
    `const answer = await client.${route.replace("/", ".")}.create({`,
    ...Object.entries(body).map(([name, value]) => `  ${key(name)}: ${literal(value, "  ")},`),
    "});",
    ...(body.stream ? [
      "for await (const { choices: [choice] } of answer) {",
      `  process.stdout.write(choice.${isText ? "text" : "delta.content"} ?? "");`,
      ...(offersTools(body) ? ["  if (choice.delta.tool_calls) console.log(JSON.stringify(choice.delta.tool_calls));"] : []),
      ...(logprobs ? ["  if (choice.logprobs) console.log(JSON.stringify(choice.logprobs));"] : []),
      "}",
    ] : [
      `console.log(answer.choices[0].${isText ? "text" : "message.content"});`,
      ...(offersTools(body) ? ["console.log(JSON.stringify(answer.choices[0].message.tool_calls));"] : []),
      ...(logprobs ? ["console.log(JSON.stringify(answer.choices[0].logprobs));"] : []),
    ]),
  ].join("\n");
}

/** The AI SDK with @ai-sdk/openai-compatible: fields that it does not name go into the body under the provider's name. */
export function aiSdkOf({ base, model, body, openai, withToken, isOpenai }) {
  const { prompt, messages, raw, stream, tools = [], functions: _, tool_choice: choice, ...fields } = body;
  const { model: name, messages: chat, tools: wrapped = [], response_format: format, lora } = openai.body;
  if (body.functions) return "// The AI SDK does not know `functions`: send them as tools.";
  const { lora: __, response_format: ___, ...sampling } = fields;
  const options = { ...sampling, ...(lora ? { lora } : {}), ...(format ? { response_format: format } : {}) };
  const system = messages?.find(({ role }) => role === "system")?.content;
  const offered = wrapped.map(({ function: tool }) => tool);
  const call = [
    `  model: provider.${raw ? "completionModel" : "chatModel"}(${literal(name)}),`,
    ...(system === undefined ? [] : [`  instructions: ${literal(system)},`]),
    `  prompt: ${raw ? "prompt" : literal(chat.at(-1).content)},`,
    ...(offered.length ? ["  tools: {", ...offered.map(toolText), "  },"] : []),
    ...(choice === undefined || !offered.length ? [] : [`  toolChoice: ${choiceText(choice)},`]),
    ...(Object.keys(options).length ? [`  providerOptions: ${literal({ intaglio: options }, "  ")},`] : []),
  ];
  return [
    ...(isOpenai ? ["// The AI SDK does not hand logprobs on."] : []),
    'import { createOpenAICompatible } from "@ai-sdk/openai-compatible";',
    `import { ${[...(tools.length ? ["jsonSchema"] : []), stream ? "streamText" : "generateText", ...(tools.length ? ["tool"] : [])].sort().join(", ")} } from "ai";`,
    "",
    ...(raw ? rawFetch(prompt, body.stop) : []),
    `const provider = createOpenAICompatible({ name: "intaglio", baseURL: ${literal(base)}, apiKey: ${withToken ? TOKEN : '"any"'}${raw ? ", fetch: asRaw" : ""} });`,
    `const answer = ${stream ? "" : "await "}${stream ? "streamText" : "generateText"}({`,
    ...call,
    "});",
    stream ? "for await (const piece of answer.textStream) process.stdout.write(piece);" : "console.log(answer.text);",
    ...(tools.length ? [`for (const { toolName, input } of ${stream ? "await " : ""}answer.toolCalls) console.log(toolName, JSON.stringify(input));`] : []),
  ].join("\n");
}

function rawFetch(prompt, stop) {
  const sent = `{ ...JSON.parse(init.body), prompt, stop: ${stop === undefined ? "undefined" : literal(stop)} }`;
  return [
    "// The AI SDK writes every prompt as a chat; this fetch sends the text as it stands.",
    `const prompt = ${literal(prompt)};`,
    `const asRaw = (url, init) => fetch(url, { ...init, body: JSON.stringify(${sent}) });`,
  ];
}

function toolText({ name, description = "", parameters }) {
  return `    ${key(name)}: tool({ description: ${literal(description)}, inputSchema: jsonSchema(${literal(parameters ?? { type: "object", properties: {} }, "    ")}) }),`;
}

function choiceText(choice) {
  return typeof choice === "string" ? literal(choice) : `{ type: "tool", toolName: ${literal(choice.function?.name)} }`;
}

/** A Worker with env.AI, bound to the server by the module in `workers/`. */
export function workerOf({ model, body, isOpenai }) {
  return [
    ...(isOpenai ? ["// env.AI has no logprobs."] : []),
    'export { IntaglioAI } from "intaglio-workers"; // npm install the folder workers/ of Intaglio',
    "",
    "export default {",
    "  async fetch(request, env) {",
    `    const answer = await env.AI.run(${literal(model)}, ${literal(body, "    ")});`,
    body.stream ? '    return new Response(answer, { headers: { "content-type": "text/event-stream" } });' : "    return Response.json(answer);",
    "  },",
    "};",
  ].join("\n");
}

/** Its configuration. Deployed, INTAGLIO_URL is an address that the internet reaches. */
export function workerConfigOf({ origin, account, withToken }) {
  const config = {
    name: "intaglio-example",
    main: "src/index.js",
    compatibility_date: "2026-10-01",
    services: [{ binding: "AI", service: "intaglio-example", entrypoint: "IntaglioAI" }],
    vars: { INTAGLIO_URL: origin, INTAGLIO_ACCOUNT: account },
  };
  const secret = withToken ? ["// The server's token: npx wrangler secret put INTAGLIO_TOKEN, or INTAGLIO_TOKEN=... in .dev.vars"] : [];
  return [...secret, JSON.stringify(config, null, 2)].join("\n");
}

function offersTools({ tools, functions }) {
  return Boolean(tools?.length || functions?.length);
}

/** A value as JavaScript writes it, on several lines if one would be long; `indent` is that of its first line. */
function literal(value, indent = "") {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}  `;
  const [open, close, gap] = Array.isArray(value) ? ["[", "]", ""] : ["{", "}", " "];
  const items = Object.entries(value).map(([name, item]) => (Array.isArray(value) ? "" : `${key(name)}: `) + literal(item, inner));
  if (!items.length) return open + close;
  const line = `${open}${gap}${items.join(", ")}${gap}${close}`;
  return line.length + indent.length <= LINE && !line.includes("\n") ? line : `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${indent}${close}`;
}

/** A key of an object; one named __proto__ would set its prototype otherwise. */
function key(name) {
  if (name === "__proto__") return '["__proto__"]';
  return /^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name);
}
