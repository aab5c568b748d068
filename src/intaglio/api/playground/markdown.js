// Markdown of a completion as DOM nodes: paragraphs, headings, lists, quotes, tables, code blocks with a copy button.
// Nodes are made one by one, so that markup in the text is only ever text. Images and HTML are not rendered.

import { button, copyText, element } from "./dom.js";
import { inlineNodes } from "./markdown_inline.js";

const MAX_DEPTH = 8; // of quotes and lists inside each other; deeper ones are paragraphs
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*)$/;
const RULE = /^ {0,3}(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,})$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(\s+)(.*)$/;
const TABLE_RULE = /^\s*\|?(?:\s*:?-+:?\s*\|)+(?:\s*:?-+:?\s*)?$/;

/** The nodes of a text, which may be cut anywhere: an open code block or list is shown as far as it is. */
export function markdownNodes(text) {
  return blockNodes(text.replaceAll("\r\n", "\n").split("\n"), 0);
}

function blockNodes(lines, depth) {
  const nodes = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) { at += 1; continue; }
    const block = blockAt(lines, at, depth);
    nodes.push(block.node);
    at = block.end;
  }
  return nodes;
}

/** {node, end} of the block that begins at a line: the index after its last line. */
function blockAt(lines, at, depth) {
  const heading = HEADING.exec(lines[at]);
  if (FENCE.test(lines[at])) return codeBlock(lines, at);
  if (heading) return { node: element(`h${Math.min(heading[1].length + 2, 6)}`, {}, ...inlineNodes(heading[2])), end: at + 1 };
  if (RULE.test(lines[at])) return { node: element("hr"), end: at + 1 };
  if (depth < MAX_DEPTH && QUOTE.test(lines[at])) return quote(lines, at, depth);
  if (depth < MAX_DEPTH && ITEM.test(lines[at])) return list(lines, at, depth);
  if (isTable(lines, at)) return table(lines, at);
  return paragraph(lines, at);
}

function beginsBlock(lines, at, depth) {
  return [FENCE, HEADING, RULE].some((form) => form.test(lines[at])) || (depth < MAX_DEPTH && (QUOTE.test(lines[at]) || ITEM.test(lines[at])));
}

function paragraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !beginsBlock(lines, end, 0) && !isTable(lines, end)) end += 1;
  return { node: element("p", {}, ...inlineNodes(lines.slice(at, end).join("\n"))), end };
}

function codeBlock(lines, at) {
  const [, fence, language] = FENCE.exec(lines[at]);
  let end = at + 1;
  while (end < lines.length && !(lines[end].trim().startsWith(fence) && !lines[end].replaceAll(fence[0], "").trim())) end += 1;
  const code = element("code", {}, lines.slice(at + 1, end).join("\n"));
  const copy = button("Copy", () => copyText(code.textContent, copy, code), { "aria-label": "Copy this code" });
  const bar = element("div", { class: "code-bar" }, element("span", {}, language), copy);
  return { node: element("div", { class: "code-block" }, bar, element("pre", { tabIndex: 0 }, code)), end: end + 1 };
}

function quote(lines, at, depth) {
  const inner = [];
  let end = at;
  for (; end < lines.length && QUOTE.test(lines[end]); end += 1) inner.push(QUOTE.exec(lines[end])[1]);
  return { node: element("blockquote", {}, ...blockNodes(inner, depth + 1)), end };
}

/** Items of one kind, numbered or not, with the lines below them that are indented. */
function list(lines, at, depth) {
  const [, indent, firstMark] = ITEM.exec(lines[at]);
  const isNumbered = /\d/.test(firstMark);
  const node = element(isNumbered ? "ol" : "ul");
  if (isNumbered) node.start = Number.parseInt(firstMark, 10);
  let end = at;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end]);
    if (!item || item[1].length > indent.length + 1 || /\d/.test(item[2]) !== isNumbered) break;
    const inner = [item[4]];
    end += 1;
    for (; end < lines.length && belongsToItem(lines, end, item[1].length); end += 1) {
      inner.push(lines[end].slice(Math.min(lines[end].search(/\S|$/), item[1].length + item[2].length + item[3].length)));
    }
    node.append(element("li", {}, ...itemNodes(inner, depth)));
    while (end < lines.length - 1 && !lines[end].trim() && ITEM.test(lines[end + 1])) end += 1;
  }
  return { node, end };
}

/** A line below an item: indented more than its mark, or empty before such a one, or the paragraph's next line. */
function belongsToItem(lines, at, indent) {
  const isDeeper = (line) => line !== undefined && line.trim() && line.search(/\S/) > indent + 1;
  if (!lines[at].trim()) return isDeeper(lines[at + 1]);
  return isDeeper(lines[at]) || (lines[at - 1].trim() && !beginsBlock(lines, at, 0));
}

/** An item of one paragraph holds its text without the paragraph's margins. */
function itemNodes(lines, depth) {
  const nodes = blockNodes(lines, depth + 1);
  return nodes[0]?.tagName === "P" ? [...nodes[0].childNodes, ...nodes.slice(1)] : nodes;
}

function isTable(lines, at) {
  return lines[at].includes("|") && at + 1 < lines.length && TABLE_RULE.test(lines[at + 1]);
}

function table(lines, at) {
  const row = (line, tag) => element("tr", {}, ...cellsOf(line).map((cell) => element(tag, {}, ...inlineNodes(cell))));
  const body = element("tbody");
  let end = at + 2;
  for (; end < lines.length && lines[end].includes("|"); end += 1) body.append(row(lines[end], "td"));
  const node = element("table", {}, element("thead", {}, row(lines[at], "th")), body);
  return { node: element("div", { class: "table", tabIndex: 0 }, node), end };
}

function cellsOf(line) {
  return line.trim().replace(/^\|/, "").replace(/\|$/, "").split("|").map((cell) => cell.trim());
}
