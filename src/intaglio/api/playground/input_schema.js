// The fields of a model's input schema: which there are, what kind of element fits each, and what is wrong with a typed value.
// Knows neither the page nor the network.

import { readJson } from "./json_text.js";

const OF_THE_PAGE = ["prompt", "messages", "raw", "stream", "lora"]; // they have places of their own

/** [{name, schema, kind}] of the fields in any form of the input. kind: number, flag, choice, text or json. */
export function formFields(input) {
  const properties = Object.assign({}, ...(input.oneOf ?? [input]).map((form) => form.properties));
  const fields = Object.entries(properties).map(([name, schema]) => ({ name, schema, kind: kindOf(schema) }));
  return fields.filter(({ name }) => !OF_THE_PAGE.includes(name));
}

function kindOf({ type, enum: allowed }) {
  if (type === "integer" || type === "number") return "number";
  if (type === "boolean") return "flag";
  if (type === "string") return allowed ? "choice" : "text";
  return "json"; // arrays, objects, and what may be one or the other
}

/** {value} of what was typed, {problem} in one sentence, or {} of an empty field, which is left out of the request. */
export function readTyped({ name, schema, kind }, typed) {
  const text = typed.trim();
  if (!text) return {};
  const read = readers[kind](typed, schema);
  if (read.problem) return { problem: `${name}, ${read.problem}` };
  const problem = violationOf(schema, read.value, name);
  return problem ? { problem: `${problem}.` } : read;
}

const readers = {
  number: (typed) => ({ value: Number.isFinite(Number(typed)) ? Number(typed) : typed }),
  flag: (typed) => ({ value: typed === "true" }),
  choice: (typed) => ({ value: typed }),
  text: (typed) => ({ value: typed }),
  json: (typed, schema) => (acceptsPlainText(schema) && !/^\s*[{["]/.test(typed) ? { value: typed } : readJson(typed)),
};

/** Whether a field takes a text without quotes beside JSON. */
export function acceptsPlainText({ type }) {
  return [type].flat().includes("string");
}

/** Why a value does not have the schema, as "temperature is 9, more than 5"; "" if it has. */
export function violationOf(schema, value, name) {
  const types = [schema.type ?? []].flat();
  if (types.length && !types.some((type) => isOfType(type, value))) return `${name} is ${shown(value)}, not ${joined(types.map(typeText))}`;
  if (schema.enum && !schema.enum.includes(value)) return `${name} is ${shown(value)}, not ${joined(schema.enum.map(String))}`;
  const either = schema.anyOf ?? schema.oneOf;
  if (either?.every((one) => violationOf(one, value, name))) return violationOf(closest(either, value), value, name);
  if (typeof value === "number") return rangeViolation(value, value, schema.minimum, schema.maximum, name, "is");
  if (typeof value === "string") return rangeViolation(value.length, `${value.length} characters long`, schema.minLength, schema.maxLength, name, "is");
  if (Array.isArray(value)) return arrayViolation(schema, value, name);
  return value && typeof value === "object" ? objectViolation(schema, value, name) : "";
}

function rangeViolation(size, text, least = -Infinity, most = Infinity, name, verb) {
  if (size < least) return `${name} ${verb} ${text}, less than ${least}`;
  return size > most ? `${name} ${verb} ${text}, more than ${most}` : "";
}

function arrayViolation({ items = {}, minItems, maxItems }, value, name) {
  const counted = `${value.length} ${value.length === 1 ? "item" : "items"}`;
  const problems = value.map((item, at) => violationOf(items, item, `${name}[${at}]`));
  return rangeViolation(value.length, counted, minItems, maxItems, name, "has") || (problems.find(Boolean) ?? "");
}

function objectViolation({ properties = {}, required = [], additionalProperties }, value, name) {
  const missing = required.find((key) => !Object.hasOwn(value, key));
  if (missing) return `${name} has no ${missing}`;
  const unknown = additionalProperties === false && Object.keys(value).find((key) => !Object.hasOwn(properties, key));
  if (unknown) return `${name} has ${unknown}, which is not one of ${Object.keys(properties).join(", ")}`;
  const own = Object.keys(value).filter((key) => Object.hasOwn(properties, key));
  return own.map((key) => violationOf(properties[key], value[key], `${name}.${key}`)).find(Boolean) ?? "";
}

/** The form that was meant: the one whose required keys are there, else the first. */
function closest(forms, value) {
  const has = (key) => Boolean(value) && typeof value === "object" && Object.hasOwn(value, key);
  return forms.find(({ required = [] }) => required.some(has)) ?? forms[0];
}

function isOfType(type, value) {
  if (type === "null") return value === null;
  if (type === "array") return Array.isArray(value);
  if (type === "integer") return Number.isInteger(value);
  if (type === "object") return value !== null && typeof value === "object" && !Array.isArray(value);
  return typeof value === type;
}

function typeText(type) {
  return { integer: "a whole number", number: "a number", string: "a text", boolean: "true or false", array: "a list", object: "an object" }[type] ?? type;
}

function shown(value) {
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

function joined(words) {
  return words.length > 1 ? `${words.slice(0, -1).join(", ")} or ${words.at(-1)}` : words[0];
}

/** The bounds of a number in words; "" without any. */
export function boundsText({ minimum, maximum }) {
  if (minimum === undefined && maximum === undefined) return "";
  return maximum === undefined ? `${minimum} or more` : `${minimum ?? "…"} to ${maximum}`;
}
