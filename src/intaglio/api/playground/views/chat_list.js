// The saved chats: open, delete, export, import.

import { button, element } from "../dom.js";
import { deleteChat, exported, imported, listChats, onOtherTab } from "../storage.js";
import { saveBlob } from "../downloads.js";

export class ChatList {
  #open;
  #current = "";

  /** open(chat) shows a saved chat; deleted(id) is called after one was deleted, changed(id) when another tab changed one. */
  constructor({ open, deleted, changed }) {
    this.#open = open;
    this.deleted = deleted;
    this.status = element("p", { class: "hint", role: "status" });
    this.list = element("ul", { class: "chats" });
    const file = element("input", { type: "file", accept: ".json,application/json", hidden: true, "aria-label": "File of exported chats" });
    file.addEventListener("change", async () => {
      this.say(await imported(file.files[0]));
      file.value = "";
      this.draw();
    });
    const save = () => saveBlob(new Blob([exported()], { type: "application/json" }), "intaglio-playground.json");
    this.root = element("section", { class: "card", "aria-labelledby": "chats-title" },
      element("h2", { id: "chats-title" }, "Chats in this browser"), this.list,
      element("div", { class: "actions" }, button("Export", save), button("Import", () => file.click())), file, this.status);
    onOtherTab((id) => { this.draw(); changed(id); });
  }

  /** Draws the list; `current` is the id of the open chat. */
  draw(current = this.#current) {
    this.#current = current;
    const chats = listChats();
    this.list.replaceChildren(...chats.map((chat) => this.#item(chat)));
    if (!chats.length) this.list.append(element("li", { class: "hint" }, "None yet."));
  }

  say(text) {
    this.status.textContent = text;
  }

  #item(chat) {
    const open = button(chat.title, () => this.#open(chat), { title: chat.title });
    if (chat.id === this.#current) open.setAttribute("aria-current", "true");
    const remove = button("×", () => {
      this.say(deleteChat(chat.id));
      this.draw();
      this.deleted(chat.id);
    }, { "aria-label": `Delete the chat ${chat.title}` });
    return element("li", {}, open, remove);
  }
}
