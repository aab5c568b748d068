// Account and token: a panel that opens when the server asks for a token. Everything is loaded once they have been typed.

import { byId, showAlert } from "./dom.js";
import { errorText } from "./measured_run.js";

const UNAUTHORIZED = 401;

/** The panel's behaviour: {load, setAccount, onRefusal}. */
export function openConnection({ catalogue, changed }) {
  catalogue.token = storedToken();
  byId("token").value = catalogue.token;
  byId("account").value = catalogue.account;

  async function load() {
    showAlert(byId("connection-error"), "");
    try {
      await catalogue.load();
      byId("connection").open = false;
    } catch (error) {
      showAlert(byId("connection-error"), errorText(error));
      onRefusal(error);
    }
  }

  function onRefusal(error) {
    if (error.status !== UNAUTHORIZED || byId("connection").open) return;
    byId("connection").open = true;
    byId("token").focus();
  }

  async function onTyped() {
    catalogue.account = byId("account").value.trim() || "local";
    catalogue.token = byId("token").value.trim();
    storeToken(catalogue.token);
    await load();
    changed();
  }

  byId("connection-form").addEventListener("submit", (event) => { event.preventDefault(); onTyped(); });
  byId("connection-form").addEventListener("change", onTyped);
  return {
    load,
    onRefusal,
    setAccount: (account) => { catalogue.account = byId("account").value = account; },
  };
}

// The token lives as long as the tab. A browser that forbids storage gets it typed again.

function storedToken() {
  try {
    return sessionStorage.getItem("token") ?? "";
  } catch {
    return "";
  }
}

function storeToken(token) {
  try {
    sessionStorage.setItem("token", token);
  } catch { // forbidden: the token is used as long as the page is open
    return;
  }
}
