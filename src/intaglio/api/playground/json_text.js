// Reads JSON that a person types: where it is broken, the line, the column and what is expected there are said.
// JSON.parse alone says this in other words in each browser, and in some not at all.

const SPACE = /[ \t\r\n]*/y;
const TOKEN = /([{}[\],:])|("(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")|(-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)/y;

/** {value}, or {problem} in one sentence. */
export function readJson(text) {
  try {
    return { value: JSON.parse(text) };
  } catch {
    return { problem: faultOf(text) };
  }
}

function faultOf(text) {
  const open = []; // the closing marks of the arrays and objects around this place
  let expected = "value";
  let at = 0;
  for (;;) {
    at = matchAt(SPACE, text, at).end;
    const { found, end } = matchAt(TOKEN, text, at);
    const next = found && stepOf(expected, found, open);
    if (!next) return `line ${lineOf(text, at)}, column ${columnOf(text, at)}: ${sentenceOf(expected, text.slice(at, at + 1), open)}`;
    expected = next;
    at = end;
  }
}

function matchAt(pattern, text, at) {
  pattern.lastIndex = at;
  const found = pattern.exec(text);
  return { found, end: pattern.lastIndex };
}

/** What is expected after this token; "" if the token cannot stand here. */
function stepOf(expected, [token, mark, string], open) {
  const after = () => (open.length ? "rest" : "end");
  const close = () => { open.pop(); return after(); };
  const isValue = expected === "value" || expected === "first value";
  if (isValue && token === "{") { open.push("}"); return "first key"; }
  if (isValue && token === "[") { open.push("]"); return "first value"; }
  if (isValue && !mark) return after();
  if (expected.endsWith("key") && string) return "colon";
  if (expected.startsWith("first") && token === open.at(-1)) return close();
  if (expected === "colon" && token === ":") return "value";
  if (expected === "rest" && token === ",") return open.at(-1) === "}" ? "key" : "value";
  if (expected === "rest" && token === open.at(-1)) return close();
  return "";
}

function sentenceOf(expected, character, open) {
  const isText = expected.endsWith("value") || expected.endsWith("key");
  if (isText && character === '"') return "this text has no closing quote, a line break in it, or a wrong escape.";
  if (isText && character === "'") return "texts stand in double quotes.";
  const where = character ? `not ${character}` : "but the text ends here";
  if (expected === "end") return "the JSON ends before this place, but the text goes on.";
  if (expected === "colon") return `a colon is expected, ${where}.`;
  if (expected === "rest") return `a comma or ${open.at(-1)} is expected, ${where}.`;
  return `${expected.endsWith("key") ? "a key in double quotes" : "a value"} is expected, ${where}.`;
}

function lineOf(text, at) {
  return text.slice(0, at).split("\n").length;
}

function columnOf(text, at) {
  return at - text.lastIndexOf("\n", at - 1); // lastIndexOf is -1 in the first line
}
