// Adapters: files are dropped, sent, checked and verified, then compared with the base; the list below keeps what there is.

import { adapterOf, bytesText, chosenFiles } from "../adapter_files.js";
import { verificationText } from "../choices.js";
import { showAlert } from "../dom.js";
import { createFinetune, deleteFinetune, uploadFile } from "../finetunes.js";
import { errorText } from "../measured_run.js";
import { readFinetune } from "../wire.js";
import { AdapterItem } from "./adapter_item.js";
import { adaptersParts } from "./adapters_parts.js";

const POLL_MS = 700;

export class AdaptersView {
  #app;
  #catalogue;
  #parts;
  #busy = false;

  constructor(root, app) {
    this.#app = app;
    this.#catalogue = app.catalogue;
    this.#parts = adaptersParts();
    root.append(...this.#parts.all);
    for (const input of [this.#parts.files, this.#parts.folder]) {
      input.addEventListener("change", () => {
        this.take(chosenFiles(input.files));
        input.value = ""; // the same files can be chosen again
      });
    }
  }

  restore() {
    this.refresh();
  }

  fields() {
    return {};
  }

  refresh() {
    const listed = this.#catalogue.finetunes;
    this.#parts.list.replaceChildren(...listed.map((finetune) => new AdapterItem(finetune, this.#app).root));
    this.#parts.none.hidden = listed.length > 0;
  }

  /** Uploads what was dropped or chosen: [{file, folder}]. One adapter at a time. */
  async take(entries) {
    showAlert(this.#parts.error, "");
    const adapter = adapterOf(entries);
    const problem = this.#busy ? "Another adapter is being uploaded: wait until it is checked." : adapter.problem;
    if (problem) return showAlert(this.#parts.error, problem);
    this.#busy = true;
    this.#parts.progress.hidden = false;
    try {
      await this.#upload(adapter.files, adapter.name || this.#freeName());
    } catch (error) {
      showAlert(this.#parts.error, errorText(error));
      this.#app.onRefusal(error);
    } finally {
      this.#busy = false;
      this.#parts.progress.hidden = true;
    }
  }

  async #upload(files, name) {
    const own = this.#catalogue.finetunes.find((item) => item.name === name && item.account_id === this.#catalogue.account);
    const model = own?.model ?? this.#catalogue.chosenModel("");
    if (!own) await createFinetune(this.#catalogue, model, name);
    let uploaded;
    try {
      for (const file of files) uploaded = await this.#send(name, file, file === files.at(-1));
    } catch (error) {
      if (!own) await this.#removeRefused(name); // nothing is left behind that the reader did not have before
      throw error;
    }
    await this.#catalogue.load();
    this.#say(`${name}: version ${uploaded.version}. ${verificationText(uploaded.verification)}`);
    this.#app.goTo("compare", { model, with: `*,${name}`, run: "1" });
  }

  async #send(name, file, isLast) {
    const size = bytesText(file.size);
    this.#say(`${name}: sending ${file.name} (${size})`);
    let poll = null;
    const onProgress = (share) => {
      this.#parts.bar.value = share;
      if (share === 1 && isLast) poll ??= setInterval(() => this.#sayStep(name), POLL_MS);
    };
    try {
      return await uploadFile(this.#catalogue, name, file, onProgress);
    } finally {
      clearInterval(poll);
    }
  }

  /** What the server's check is doing: the upload's response comes at its end. */
  async #sayStep(name) {
    try {
      const found = await readFinetune(this.#catalogue, name);
      const check = found.check ?? found.pending?.check;
      if (check && this.#busy) this.#say(`${name}: checking ${check.file_name}: ${check.step}`);
    } catch (error) {
      this.#say(`${name}: ${errorText(error)}`);
    }
  }

  async #removeRefused(name) {
    try {
      await deleteFinetune(this.#catalogue, name);
    } catch (error) {
      this.#say(`${name} is still listed, without a version: ${errorText(error)}`);
    }
  }

  /** A name for files that came without a folder. */
  #freeName() {
    const taken = new Set(this.#catalogue.finetunes.map((item) => item.name));
    let number = 1;
    while (taken.has(`dropped-${number}`)) number += 1;
    return `dropped-${number}`;
  }

  #say(text) {
    this.#parts.status.textContent = text;
  }
}
