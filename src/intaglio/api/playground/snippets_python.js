// Code in Python: Cloudflare's SDK, OpenAI's, and the model inside the program with `intaglio`.

const CLOUDFLARE_FIELDS = ["prompt", "messages", "raw", "stream", "max_tokens", "temperature", "top_p", "top_k", "seed", "repetition_penalty", "frequency_penalty", "presence_penalty", "response_format", "tools", "functions"];
const OPENAI_FIELDS = ["model", "prompt", "messages", "stream", "max_tokens", "temperature", "top_p", "seed", "stop", "frequency_penalty", "presence_penalty", "response_format", "tools", "tool_choice", "logprobs", "top_logprobs"];
const SAMPLING = ["max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "repetition_penalty", "frequency_penalty", "presence_penalty", "min_tokens", "stop_token_ids"];
const TOKEN = 'os.environ["CLOUDFLARE_API_TOKEN"]';
const LINE = 90; // characters, from which a value is laid out on several
const BUNDLED = "@intaglio/gemma-3-270m";

export function cloudflareOf({ origin, account, model, body, withToken, isOpenai }) {
  const call = [`    ${literal(model)},`, `    account_id=${literal(account)},`, ...argumentsOf(body, CLOUDFLARE_FIELDS)];
  const imports = [...(body.stream ? ["import json"] : []), ...(withToken ? ["import os"] : [])];
  return [
    ...(isOpenai ? ["# Logprobs are of the OpenAI-compatible routes: the code for openai asks for them."] : []),
    ...imports, ...(imports.length ? [""] : []),
    "from cloudflare import Cloudflare",
    "",
    `client = Cloudflare(base_url=${literal(`${origin}/client/v4`)}, api_token=${withToken ? TOKEN : '"any"'})`,
    ...(body.stream ? [
      "with client.ai.with_streaming_response.run(", ...call, ") as response:",
      "    for line in response.iter_lines():",
      '        if line.startswith("data: {"):',
      "            event = json.loads(line[6:])",
      ...(offersTools(body) ? ['            for call in event.get("tool_calls", []):', '                print(call["name"], call["arguments"])'] : []),
      '            print(event["response"], end="", flush=True)',
    ] : ["answer = client.ai.run(", ...call, ")", offersTools(body) ? 'print(answer.get("tool_calls") or answer["response"])' : 'print(answer["response"])']),
  ].join("\n");
}

export function openaiPythonOf({ base, openai, withToken }) {
  const { route, body } = openai;
  const isText = route === "completions";
  return [
    ...(withToken ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${literal(base)}, api_key=${withToken ? TOKEN : '"any"'})`,
    `answer = client.${route.replace("/", ".")}.create(`,
    ...argumentsOf(body, OPENAI_FIELDS),
    ")",
    ...(body.stream ? streamLoop(isText, body) : [
      `print(answer.choices[0].${isText ? "text" : "message.content"})`,
      ...(offersTools(body) ? ["for call in answer.choices[0].message.tool_calls or []:", "    print(call.function.name, call.function.arguments)"] : []),
      ...(body.logprobs === undefined ? [] : ["print(answer.choices[0].logprobs)"]),
    ]),
  ].join("\n");
}

function streamLoop(isText, body) {
  return [
    "for chunk in answer:",
    `    print(chunk.choices[0].${isText ? "text" : "delta.content"} or "", end="", flush=True)`,
    ...(offersTools(body) ? ["    for call in chunk.choices[0].delta.tool_calls or []:", "        print(call.function.name, call.function.arguments)"] : []),
    ...(body.logprobs === undefined ? [] : ["    if chunk.choices[0].logprobs:", "        print(chunk.choices[0].logprobs)"]),
  ];
}

/** The model in the program itself. What LLM does not have is named, never left out in silence. */
export function intaglioOf({ model, body, defaults }) {
  const { prompt, messages, raw, stream, lora, stop, response_format: format, guided_json: guided, ignore_eos: goesOn, ...fields } = body;
  const others = Object.keys(fields).filter((name) => !SAMPLING.includes(name));
  if (others.length) return `# LLM of intaglio does not have these fields: ${others.join(", ")}. Choose another client for them.`;
  const schema = guided ?? schemaOf(format);
  const given = [lora].flat().filter(Boolean).map((one) => (typeof one === "string" ? { name: one } : one));
  const sampled = { ...defaults, ...fields }; // the program's result is then the server's
  const words = Object.entries(sampled).map(([name, value]) => `${name}=${name === "stop_token_ids" ? `tuple(${literal(value)})` : literal(value)}`);
  if (goesOn) words.push("ignore_stop_tokens=True");
  const call = [
    `    ${literal(messages ?? prompt)},`, `    SamplingParams(${words.join(", ")}),`,
    ...(raw ? ["    raw=True,"] : []),
    ...(given.length ? [`    adapters=[${given.map(adapterText).join(", ")}],`] : []),
    ...(stop ? [`    stop=${literal(stop)},`] : []),
    ...(schema ? [`    json_schema=${literal(schema)},`] : []),
  ];
  const uploaded = given.filter(({ name }) => !isDemo(name));
  return [
    ...uploaded.map(({ name }) => `# First: intaglio adapters download ${name} --out ${name}`),
    `from intaglio import LLM, SamplingParams${given.some(isScaled) ? ", ScaledAdapter" : ""}`,
    "",
    model === BUNDLED ? "llm = LLM()" : `llm = LLM("path/to/its/weights")  # of ${model}: a folder or a .gguf file`,
    ...(stream ? ["for delta in llm.stream(", ...call, "):", '    print(delta.text, end="", flush=True)'] : [`completion = llm.${messages ? "chat" : "generate"}(`, ...call, ")", "print(completion.text)"]),
  ].join("\n");
}

function schemaOf(format) {
  if (!format || format.type === "text") return null;
  const schema = format.json_schema?.schema ?? format.json_schema;
  return schema && Object.keys(schema).length ? schema : { type: "object" };
}

const isDemo = (name) => name.startsWith("intaglio-");
const isScaled = ({ scale }) => scale !== undefined;

function adapterText({ name, scale }) {
  const place = literal(isDemo(name) ? name : `./${name}`);
  return scale === undefined ? place : `ScaledAdapter(llm.load_adapter(${place}), ${literal(scale)})`;
}

function offersTools({ tools, functions }) {
  return Boolean(tools?.length || functions?.length);
}

/** One line for each field; those that the client's method does not name go into `extra_body`. */
function argumentsOf(body, known) {
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => !known.includes(name)));
  const lines = Object.entries(body).filter(([name]) => known.includes(name)).map(([name, value]) => `    ${name}=${literal(value)},`);
  return Object.keys(extra).length ? [...lines, `    extra_body=${literal(extra)},`] : lines;
}

/** A value as Python writes it (JSON's texts are Python's too), on several lines if one would be long; `indent` is that of its first line. */
function literal(value, indent = "    ") {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}    `;
  const [open, close] = Array.isArray(value) ? ["[", "]"] : ["{", "}"];
  const items = Object.entries(value).map(([key, item]) => (Array.isArray(value) ? "" : `${JSON.stringify(key)}: `) + literal(item, inner));
  const line = `${open}${items.join(", ")}${close}`;
  return line.length + indent.length <= LINE && !line.includes("\n") ? line : `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${indent}${close}`;
}
