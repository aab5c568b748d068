// The columns of Compare in a link: names with commas between them, `*` for the base, `name:0.5` for a scale.

const BASE = "*";

/** [{lora, scale}] of the link's text, each once. */
export function readColumns(text) {
  const read = text.split(",").filter(Boolean).map((word) => {
    const [name, scale = ""] = word.split(":", 2);
    return { lora: name === BASE ? "" : name, scale };
  });
  return read.filter((column, at) => read.findIndex((other) => other.lora === column.lora) === at);
}

export function writeColumns(columns) {
  return columns.map(({ lora, scale }) => (lora || BASE) + (scale ? `:${scale}` : "")).join(",");
}
