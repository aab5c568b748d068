// What stays in this browser: chats, and the last settings of each view. The token is never among them.
// A browser may forbid storage, or its storage may be full: then everything works until the page is closed, and a sentence says so.

const CHAT = "intaglio.chat.";
const SETTINGS = "intaglio.settings.";
const FORMAT = "intaglio-playground-1";
const MAX_IMPORT_BYTES = 10_000_000; // browsers keep about 5 MB

/** Saved chats, newest first: [{id, title, updated, turns, …}]. */
export function listChats() {
  return entriesOf(CHAT).map(([, chat]) => chat).filter(isChat).sort((a, b) => b.updated - a.updated);
}

/** A saved chat, or null. */
export function readChat(id) {
  const chat = read(CHAT + id);
  return isChat(chat) ? chat : null;
}

/**
 * Saves a chat, and sets its `updated`. If another tab has saved it meanwhile, it gets an id of its own: both are kept.
 * Returns a sentence about why it is not saved, or "".
 */
export function saveChat(chat) {
  const saved = readChat(chat.id);
  if (saved && saved.updated !== chat.updated) chat.id = newId();
  chat.updated = Math.max(Date.now(), chat.updated + 1);
  return write(CHAT + chat.id, chat);
}

export function deleteChat(id) {
  return attempt(() => localStorage.removeItem(CHAT + id));
}

/** The last settings of a view; empty without any. */
export function readSettings(view) {
  const fields = read(SETTINGS + view);
  return isTexts(fields) ? fields : {};
}

export function saveSettings(view, fields) {
  return write(SETTINGS + view, fields);
}

/** Everything that is kept, as the text of a JSON file. */
export function exported() {
  return JSON.stringify({ format: FORMAT, chats: listChats(), settings: Object.fromEntries(entriesOf(SETTINGS).map(([key, value]) => [key.slice(SETTINGS.length), value])) }, null, 1);
}

/** Adds the chats and settings of an exported file to those that are kept; what is there already is replaced. Returns a sentence. */
export async function imported(file) {
  if (file.size > MAX_IMPORT_BYTES) return `${file.name} has ${file.size} bytes, more than ${MAX_IMPORT_BYTES}.`;
  let content;
  try {
    content = JSON.parse(await file.text());
  } catch {
    return `${file.name} is not JSON.`;
  }
  if (content?.format !== FORMAT || !Array.isArray(content.chats)) return `${file.name} was not exported by this page: its format is not ${FORMAT}.`;
  const chats = content.chats.filter(isChat);
  const settings = Object.entries(content.settings ?? {}).filter(([, fields]) => isTexts(fields));
  const kept = [...chats.map((chat) => [CHAT + chat.id, chat]), ...settings.map(([view, fields]) => [SETTINGS + view, fields])];
  for (const [key, value] of kept) {
    const problem = write(key, value);
    if (problem) return problem;
  }
  return `${chats.length} ${chats.length === 1 ? "chat" : "chats"} imported.`;
}

/** Calls `onChange(id)` when another tab has saved or deleted a chat. */
export function onOtherTab(onChange) {
  window.addEventListener("storage", ({ key }) => { if (key?.startsWith(CHAT)) onChange(key.slice(CHAT.length)); });
}

export function newId() {
  return Date.now().toString(36) + Math.random().toString(36).slice(2, 8); // randomUUID is missing on plain-http pages
}

function isTexts(fields) {
  return Boolean(fields) && typeof fields === "object" && Object.values(fields).every((value) => typeof value === "string");
}

function isChat(chat) {
  const isTurn = (turn) => ["user", "assistant"].includes(turn?.role) && typeof turn.content === "string";
  return typeof chat?.id === "string" && typeof chat.title === "string" && Number.isFinite(chat.updated) && isTexts(chat.fields) && Array.isArray(chat.turns) && chat.turns.every(isTurn);
}

function entriesOf(prefix) {
  let keys = [];
  attempt(() => { keys = Object.keys(localStorage).filter((key) => key.startsWith(prefix)); });
  return keys.map((key) => [key, read(key)]).filter(([, value]) => value !== null);
}

/** The value of a key; null if there is none, if it is not JSON, or if storage is forbidden. */
function read(key) {
  let value = null;
  attempt(() => { value = JSON.parse(localStorage.getItem(key)); });
  return value;
}

function write(key, value) {
  return attempt(() => localStorage.setItem(key, JSON.stringify(value)));
}

/** A sentence about why the browser refused, or "". */
function attempt(act) {
  try {
    act();
    return "";
  } catch (error) {
    if (error.name === "QuotaExceededError") return "Not saved: this browser's storage is full. Export the chats, then delete some.";
    if (error.name === "SecurityError") return "Not saved: this browser forbids storage. The page forgets the chats when it is closed.";
    return `Not saved: ${error.message}`;
  }
}
