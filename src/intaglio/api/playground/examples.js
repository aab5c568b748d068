// Prompts to try: completions for the base model, and for an adapter the example that its card has.

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
