// What can be tried: prompts (completions for the base model, for an adapter the example that its card has), and values of the
// fields that are typed as text.

const FOR_BASE = [
  { mode: "raw", prompt: "The three primary colors are", max_tokens: "24", temperature: "0" },
  { mode: "raw", prompt: "Water boils at", max_tokens: "24", temperature: "0" },
  { mode: "raw", prompt: "Once upon a time, in a small village by the sea,", max_tokens: "96", temperature: "0.7" },
];

/** Examples for a finetune, or for the base model when it is null: parts of the form's state. */
export function examplesFor(finetune) {
  if (!finetune) return FOR_BASE;
  if (!finetune.example_prompt) return [];
  return [{ ...suggestionOf(finetune), prompt: finetune.example_prompt }];
}

/**
 * The prompt form and limits for an adapter, or for the base model when it is null: what the adapter's card suggests, as the server
 * lists it. Without a card's word the form is a turn of a chat, which most adapters are trained on, and the limits are the server's.
 */
export function suggestionOf(finetune) {
  if (!finetune) return { mode: "raw", max_tokens: "24", temperature: "0" };
  const { form = "prompt", max_tokens = "", temperature = "" } = finetune.suggested ?? {};
  return { mode: form, max_tokens: String(max_tokens ?? ""), temperature: String(temperature ?? "") };
}

const ORDER = {
  type: "object",
  properties: { customer: { type: "string" }, item: { type: "string" }, quantity: { type: "integer" } },
  required: ["customer", "item", "quantity"],
};
const WEATHER = {
  name: "get_weather",
  description: "Weather in a city",
  parameters: { type: "object", properties: { city: { type: "string", description: "its name" } }, required: ["city"] },
};
const readable = (value) => JSON.stringify(value, null, 2);

/** Name of a field -> an example of it, as a reader would type it. A field of the schema that is not here has none. */
export const FIELD_EXAMPLES = Object.freeze({
  response_format: readable({ type: "json_schema", json_schema: ORDER }),
  guided_json: readable(ORDER),
  tools: readable([WEATHER]),
  functions: readable([{ name: "add", code: "const add = (a, b) => a + b;" }]),
  tool_choice: "required",
  stop: readable(["\n\n", "###"]),
  stop_token_ids: "[107]",
  structured_outputs: readable({ choice: ["yes", "no"] }),
  guided_choice: readable(["yes", "no"]),
  guided_regex: "[0-9]{4}-[0-9]{2}-[0-9]{2}",
  guided_grammar: 'start: "yes" | "no"',
});
