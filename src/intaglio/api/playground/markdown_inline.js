// Markdown inside a line: code, strong, emphasis, struck text, links. Every text becomes a text node.

import { element } from "./dom.js";

const MARKS = [["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];
const SAFE_PROTOCOLS = ["http:", "https:", "mailto:"];
const BARE_LINK = /https?:\/\/[^\s<>"'`)\]]+/y;
const MAX_DEPTH = 6;

/** Nodes of a text. A mark that is not closed stays as it is. */
export function inlineNodes(text, depth = 0) {
  const nodes = [];
  let plain = "";
  let at = 0;
  const find = finder(text);
  while (at < text.length) {
    const found = depth < MAX_DEPTH ? spanAt(text, at, find, depth) : null;
    if (!found) {
      plain += text[at];
      at += 1;
      continue;
    }
    if (plain) nodes.push(plain);
    plain = "";
    nodes.push(found.node);
    at = found.end;
  }
  return plain ? [...nodes, plain] : nodes;
}

/** indexOf that remembers what is not there any more, so that a text of open marks takes linear time. */
function finder(text) {
  const missing = new Set();
  return (mark, from) => {
    const at = missing.has(mark) ? -1 : text.indexOf(mark, from);
    if (at < 0) missing.add(mark);
    return at;
  };
}

/** {node, end} of the span that begins here, or null. */
function spanAt(text, at, find, depth) {
  const character = text[at];
  if (character === "\\" && /[\\`*_~[\]()#|>+.!-]/.test(text[at + 1] ?? "")) return { node: text[at + 1], end: at + 2 };
  if (character === "`") return codeSpan(text, at, find);
  if (character === "[") return link(text, at, find, depth);
  if (character === "h") return bareLink(text, at);
  if ("*_~".includes(character)) return markedSpan(text, at, find, depth);
  return null;
}

function codeSpan(text, at, find) {
  const [mark] = /^`+/.exec(text.slice(at, at + 8));
  const close = find(mark, at + mark.length);
  return close < 0 ? null : { node: element("code", {}, text.slice(at + mark.length, close)), end: close + mark.length };
}

function markedSpan(text, at, find, depth) {
  for (const [mark, tag] of MARKS) {
    if (!text.startsWith(mark, at) || /\s/.test(text[at + mark.length] ?? " ")) continue;
    if (mark[0] === "_" && /\w/.test(text[at - 1] ?? "")) return null; // inside a_name
    const close = find(mark, at + mark.length + 1);
    if (close < 0 || /\s/.test(text[close - 1])) continue;
    if (mark[0] === "_" && /\w/.test(text[close + mark.length] ?? "")) continue;
    return { node: element(tag, {}, ...inlineNodes(text.slice(at + mark.length, close), depth + 1)), end: close + mark.length };
  }
  return null;
}

function link(text, at, find, depth) {
  const middle = find("](", at);
  const close = middle < 0 ? -1 : find(")", middle);
  if (close < 0) return null;
  const [label, address] = [text.slice(at + 1, middle), text.slice(middle + 2, close)];
  if (label.includes("[") || !isSafe(address)) return null;
  return { node: anchor(address, inlineNodes(label, depth + 1)), end: close + 1 };
}

function bareLink(text, at) {
  BARE_LINK.lastIndex = at;
  const address = BARE_LINK.exec(text)?.[0].replace(/[.,;:!?]+$/, "");
  return address && isSafe(address) ? { node: anchor(address, [address]), end: at + address.length } : null;
}

/** Whether an address may be a link: absolute, and of a protocol that runs no script. */
function isSafe(address) {
  return URL.canParse(address) && SAFE_PROTOCOLS.includes(new URL(address).protocol);
}

function anchor(href, children) {
  return element("a", { href, target: "_blank", rel: "noopener noreferrer" }, ...children);
}
