// One adapter in the list: its state, and on request its verification, files and versions.

import { bytesText } from "../adapter_files.js";
import { isReady } from "../catalogue.js";
import { aboutOf, verificationText } from "../choices.js";
import { button, element, showAlert } from "../dom.js";
import { saveBlob } from "../downloads.js";
import { deleteFinetune, downloadFile, rollBack } from "../finetunes.js";
import { errorText } from "../measured_run.js";
import { readFinetune } from "../wire.js";

export class AdapterItem {
  #finetune;
  #app;
  #name;

  constructor(finetune, app) {
    this.#finetune = finetune;
    this.#app = app;
    this.#name = app.catalogue.nameOf(finetune);
    this.error = element("p", { class: "error", role: "alert", hidden: true });
    this.details = element("div", { hidden: true });
    this.root = element("li", {},
      element("div", { class: "bar" }, element("h3", {}, finetune.name), element("span", { class: "hint" }, this.#stateText()), ...this.#buttons()),
      element("p", { class: "hint" }, aboutOf(finetune)), this.error, this.details);
  }

  #stateText() {
    const { state = "ready", version, verified, model } = this.#finetune;
    const isOwn = this.#isOwn();
    return [isOwn ? "yours" : "public", state, version ? `version ${version}` : "", verified ? "verified" : "", model].filter(Boolean).join(" · ");
  }

  #isOwn() {
    return this.#finetune.account_id === this.#app.catalogue.account && !this.#finetune.name.startsWith("intaglio-");
  }

  #buttons() {
    const named = (text, act) => button(text, act, { "aria-label": `${text} ${this.#finetune.name}` });
    const compare = named("Compare", () => this.#app.goTo("compare", { model: this.#finetune.model, with: `*,${this.#name}` }));
    compare.disabled = !isReady(this.#finetune);
    const details = named("Details", () => this.#toggle(details));
    details.setAttribute("aria-expanded", "false");
    const made = [compare, details];
    if (this.#isOwn()) made.push(this.#deleteButton());
    return made;
  }

  /** The first press asks, the second one deletes. */
  #deleteButton() {
    const { name } = this.#finetune;
    const pressed = button("Delete", () => {
      if (pressed.textContent === "Delete") {
        pressed.textContent = "Really delete?";
        pressed.setAttribute("aria-label", `Really delete ${name}?`);
        return;
      }
      this.#change(() => deleteFinetune(this.#app.catalogue, this.#name));
    }, { "aria-label": `Delete ${name}` });
    pressed.addEventListener("blur", () => {
      pressed.textContent = "Delete";
      pressed.setAttribute("aria-label", `Delete ${name}`);
    });
    return pressed;
  }

  async #toggle(pressed) {
    this.details.hidden = !this.details.hidden;
    pressed.setAttribute("aria-expanded", String(!this.details.hidden));
    if (this.details.hidden) return;
    try {
      this.#showDetails(await readFinetune(this.#app.catalogue, this.#name));
    } catch (error) {
      this.#showError(error);
    }
  }

  #showDetails({ files, verification, earlier, digest, pending }) {
    const notes = verification?.notes ?? [];
    const pendingText = pending ? `Version ${pending.version} is ${pending.state}${pending.reason ? `: ${pending.reason}` : ""}.` : "";
    this.details.replaceChildren(
      element("p", { class: "hint" }, verificationText(verification) || "Not verified."),
      ...[...notes, pendingText].filter(Boolean).map((note) => element("p", { class: "hint" }, note)),
      element("p", { class: "hint" }, digest ? `Digest ${digest}` : ""),
      element("ul", { class: "files" }, ...files.map((file) => this.#fileItem(file))),
      element("ul", { class: "files" }, ...earlier.map((version) => this.#versionItem(version))),
    );
  }

  #fileItem({ file_name: fileName, size }) {
    const download = button("Download", async () => {
      try {
        saveBlob(await downloadFile(this.#app.catalogue, this.#name, fileName), fileName);
      } catch (error) {
        this.#showError(error);
      }
    }, { "aria-label": `Download ${fileName}` });
    return element("li", {}, `${fileName}, ${bytesText(size)} `, download);
  }

  #versionItem({ version, digest }) {
    const act = () => this.#change(() => rollBack(this.#app.catalogue, this.#name, version));
    const back = this.#isOwn() ? button("Make current", act, { "aria-label": `Make version ${version} current` }) : "";
    return element("li", {}, `version ${version}, digest ${digest.slice(0, 12)}… `, back);
  }

  /** Changes the server's list, and loads it again. */
  async #change(act) {
    try {
      await act();
      await this.#app.catalogue.load();
    } catch (error) {
      this.#showError(error);
    }
  }

  #showError(error) {
    showAlert(this.error, errorText(error));
    this.#app.onRefusal(error);
  }
}
