// Prompts to try: completions for the base model, and for an adapter the example that its finetune comes with.

const FOR_BASE = [
  { mode: "raw", prompt: "The three primary colors are", max_tokens: "24", temperature: "0" },
  { mode: "raw", prompt: "Water boils at", max_tokens: "24", temperature: "0" },
  { mode: "raw", prompt: "Once upon a time, in a small village by the sea,", max_tokens: "96", temperature: "0.7" },
];

/** Examples for a finetune, or for the base model when it is null: parts of the form's state. */
export function examplesFor(finetune) {
  if (!finetune) return FOR_BASE;
  if (!finetune.example_prompt) return [];
  return [{ mode: "prompt", prompt: finetune.example_prompt, max_tokens: "", temperature: "0" }];
}
