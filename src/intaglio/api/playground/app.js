// The page: opens the view that the address names, keeps the address, and holds what the views share: the catalogue and the connection.

import { droppedFiles } from "./adapter_files.js";
import { Catalogue } from "./catalogue.js";
import { openConnection } from "./connection.js";
import { byId } from "./dom.js";
import { addressOf, readAddress } from "./router.js";
import { readSettings, saveSettings } from "./storage.js";
import { AdaptersView } from "./views/adapters.js";
import { ChatView } from "./views/chat.js";
import { CompareView } from "./views/compare.js";
import { CompleteView } from "./views/complete.js";
import { NowView } from "./views/now.js";

const VIEWS = { chat: ChatView, compare: CompareView, complete: CompleteView, adapters: AdaptersView, now: NowView };

const catalogue = new Catalogue();
const opened = new Map(); // name -> view, made when it is first shown
let current = "";

const app = {
  catalogue,
  /** Shows a view with these fields. */
  goTo: (view, fields) => { location.hash = addressOf(view, fields); },
  /** A view's fields have changed: the address follows. */
  changed: () => {
    if (!opened.has(current)) return;
    history.replaceState(null, "", address());
    saveSettings(current, opened.get(current).fields()); // a browser that refuses this is told of by the chat's list
  },
  onRefusal: (error) => connection.onRefusal(error),
};
const connection = openConnection(app);

window.addEventListener("hashchange", showAddressed);
catalogue.addEventListener("change", () => {
  document.body.dataset.loaded = String(catalogue.loaded);
  opened.get(current)?.refresh();
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") opened.get(current)?.stop?.(); });
document.addEventListener("dragover", (event) => { if (event.dataTransfer.types.includes("Files")) event.preventDefault(); });
document.addEventListener("drop", onDrop);
showAddressed();
connection.load();

/** Files that are dropped anywhere are an adapter; without this the browser would leave the page and show them. */
async function onDrop(event) {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  const found = droppedFiles(event.dataTransfer); // its entries are gone after the event
  if (readAddress(Object.keys(VIEWS)).view !== "adapters") { // not `current`: a link may have been followed just now
    history.pushState(null, "", addressOf("adapters"));
    showAddressed();
  }
  opened.get("adapters").take(await found);
}

function showAddressed() {
  const { view, fields } = readAddress(Object.keys(VIEWS));
  if (fields.account) connection.setAccount(fields.account);
  current = ""; // the address is not rewritten while the view fills
  for (const name of Object.keys(VIEWS)) byId(`view-${name}`).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a[data-view]")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const isNew = !opened.has(view);
  if (isNew) opened.set(view, new VIEWS[view](byId(`view-${view}`), app));
  if (Object.keys(fields).length) opened.get(view).restore(fields);
  else if (isNew) opened.get(view).restore(readSettings(view));
  else opened.get(view).refresh(); // the navigation's links have no fields: the view is as it was left
  current = view;
  app.changed();
}

function address() {
  const account = catalogue.account === "local" ? "" : catalogue.account;
  return addressOf(current, { account, ...opened.get(current).fields() });
}
