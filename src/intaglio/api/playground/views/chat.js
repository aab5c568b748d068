// Chat: turns with a model and at most one adapter. The conversation is one object; every change is drawn from it.

import { hasWeights, isPretrained, isReady } from "../catalogue.js";
import { aboutOf, fillAdapters, fillModels } from "../choices.js";
import { button, showAlert } from "../dom.js";
import { suggestionOf } from "../examples.js";
import { errorText, factsOf, measuredRun } from "../measured_run.js";
import { loraOf, samplingOf } from "../request.js";
import { SamplingFields } from "../sampling_fields.js";
import { codeOf } from "../snippets.js";
import { newId, readChat, saveChat } from "../storage.js";
import { ChatList } from "./chat_list.js";
import { chatParts } from "./chat_parts.js";
import { TurnView } from "./chat_turn.js";

const ASSISTANT = "intaglio-chat"; // the demo adapter that answers; taken visibly, by its name, when nothing else was chosen
const MAX_TITLE = 60; // characters
const PRETRAINED_NOTE = "This base is pre-trained: it continues text and was never trained to answer. Choose an adapter to chat with it, or let it continue a text in Complete.";
const RAW_NOTE = "This adapter's card suggests raw text, not turns of a chat: ask it in Complete or Compare.";

export class ChatView {
  #app;
  #catalogue;
  #parts;
  #sampling;
  #chosen = { model: "", lora: "", scale: "", system: "" };
  #turns = []; // {role, content, by, facts, error}
  #turnViews = [];
  #running = null; // AbortController of the running answer
  #choseAdapter = false; // by a link or by hand
  #typed = new Set(); // sampling fields that the reader filled
  #saved = { id: "", updated: 0 }; // what this tab last read or saved of the conversation; without an id it is new
  #list;

  constructor(root, app) {
    this.#app = app;
    this.#catalogue = app.catalogue;
    this.#parts = chatParts();
    root.append(...this.#parts.all);
    this.#sampling = new SamplingFields(this.#parts.sampling, "chat", app.catalogue, (name) => { this.#typed.add(name); this.#showCode(); app.changed(); });
    this.#parts.choices.addEventListener("input", (event) => this.#onChoice(event.target.name));
    this.#parts.settings.addEventListener("submit", (event) => event.preventDefault());
    this.#parts.system.addEventListener("input", () => this.#onChoice("system"));
    this.#parts.composer.addEventListener("submit", (event) => { event.preventDefault(); this.#onSend(); });
    this.#parts.message.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return; // an input method ends a word with Enter
      event.preventDefault();
      this.#onSend();
    });
    this.#parts.message.addEventListener("input", () => this.#showCode());
    this.#parts.language.addEventListener("input", (event) => { event.stopPropagation(); this.#showCode(); });
    this.#parts.asCode.addEventListener("toggle", () => this.#showCode());
    this.#parts.stop.addEventListener("click", () => this.stop());
    this.#parts.fresh.addEventListener("click", () => this.#begin());
    this.#list = new ChatList({
      open: (chat) => this.#open(chat),
      deleted: (id) => { if (id === this.#saved.id) this.#saved = { id: "", updated: 0 }; },
      changed: (id) => this.#onOtherTab(id),
    });
    this.#parts.settings.append(this.#list.root);
  }

  restore({ model = "", lora = "", scale = "", system = "", chat = "", ...sampling }) {
    delete sampling.account;
    const saved = chat && chat !== this.#saved.id ? readChat(chat) : null;
    if (saved) this.#begin(saved);
    this.#chosen = { model, lora, scale, system };
    this.#choseAdapter = lora !== "" || model !== "";
    this.#sampling.values = sampling;
    this.#typed = new Set(Object.keys(sampling));
    this.refresh();
  }

  fields() {
    return { ...this.#chosen, ...this.#sampling.values, chat: this.#saved.id };
  }

  refresh() {
    const chosen = this.#chosen;
    chosen.model = this.#catalogue.chosenModel(chosen.model);
    const assistant = this.#catalogue.adapter(chosen.model, ASSISTANT);
    if (!this.#choseAdapter && assistant && isReady(assistant)) chosen.lora = ASSISTANT;
    this.#takeSuggestion();
    this.#show();
  }

  stop() {
    this.#running?.abort();
  }

  #onChoice(name) {
    const { model, lora, scale, system } = this.#parts;
    Object.assign(this.#chosen, { model: model.value, lora: lora.value, scale: scale.value, system: system.value });
    if (name === "model") this.#chosen.lora = this.#chosen.scale = "";
    if (name === "lora") this.#choseAdapter = true;
    if (name === "lora" && !this.#chosen.lora) this.#chosen.scale = "";
    if (name === "model" || name === "lora") this.#takeSuggestion();
    this.#show();
  }

  /** What the adapter's card suggests, where the reader has typed nothing. */
  #takeSuggestion() {
    const { max_tokens, temperature } = this.#adapter() ? suggestionOf(this.#adapter()) : { max_tokens: "", temperature: "" };
    for (const [name, value] of Object.entries({ max_tokens, temperature })) if (!this.#typed.has(name)) this.#sampling.values[name] = value;
  }

  #adapter() {
    return this.#catalogue.adapter(this.#chosen.model, this.#chosen.lora);
  }

  #show() {
    const { model, lora, scale, system } = this.#chosen;
    const parts = this.#parts;
    const described = this.#catalogue.model(model);
    fillModels(parts.model, this.#catalogue, model);
    fillAdapters(parts.lora, this.#catalogue, { none: "base model (no adapter)", listed: this.#catalogue.adaptersOf(model), chosen: lora });
    for (const [input, value] of [[parts.scale, scale], [parts.system, system]]) if (input.value !== value) input.value = value;
    parts.scaleField.hidden = !lora;
    const note = described && !hasWeights(described) ? described.description : isPretrained(described) && !lora ? PRETRAINED_NOTE : this.#adapter()?.suggested?.form === "raw" ? RAW_NOTE : "";
    parts.about.textContent = this.#adapter() ? aboutOf(this.#adapter()) : "";
    parts.note.textContent = note;
    parts.note.hidden = !note;
    this.#showStarter();
    this.#sampling.showFor(model).then(() => this.#showCode(), (error) => this.#showError(error));
    this.#app.changed();
  }

  /** The adapter's example, as long as the conversation is empty. */
  #showStarter() {
    const example = this.#turns.length ? "" : this.#adapter()?.example_prompt;
    this.#parts.empty.hidden = this.#turns.length > 0;
    this.#parts.fresh.disabled = !this.#turns.length;
    this.#parts.starters.replaceChildren(...(example ? [button(example, () => this.#ask(example), { title: example })] : []));
    this.#showCode();
  }

  /** The request that Send would make, with what is typed or an example; after an answer, without either, the one that made it. */
  #showCode() {
    const { asCode, code, language, message } = this.#parts;
    if (!asCode.open) return;
    const example = this.#turns.length ? "" : this.#adapter()?.example_prompt || "Hello!";
    const question = message.value.trim() ? message.value : example;
    const body = this.#body(question);
    if (!question && body.messages.at(-1)?.role === "assistant") body.messages.pop();
    const catalogue = this.#catalogue;
    code.textContent = codeOf(language.value, { origin: location.origin, account: catalogue.account, model: this.#chosen.model, body, logprobs: "", withToken: catalogue.token !== "", defaults: this.#sampling.defaults });
  }

  #onSend() {
    const text = this.#parts.message.value;
    if (this.#running) return;
    if (!text.trim()) {
      this.#showError(new Error("Type a message first."));
      this.#parts.message.focus();
      return;
    }
    this.#parts.message.value = "";
    this.#ask(text);
  }

  #ask(text) {
    if (this.#running) return;
    this.#add({ role: "user", content: text });
    this.#save(); // before the answer: a page that is closed now has the question
    this.#answer();
  }

  /** An empty conversation, or a saved one. */
  #begin({ id = "", updated = 0, turns = [] } = {}) {
    if (this.#running) return;
    this.#turns = [];
    this.#turnViews = [];
    this.#parts.log.replaceChildren();
    for (const turn of turns) this.#add(turn);
    this.#saved = { id, updated };
    this.#list.draw(id);
    showAlert(this.#parts.error, "");
    this.#showStarter();
    this.#app.changed();
  }

  /** A saved chat with the model, adapter, system text and sampling that it was held with. */
  #open(chat) {
    if (this.#running) return;
    this.#begin(chat);
    this.restore({ ...chat.fields, chat: chat.id });
    this.#parts.message.focus();
  }

  /** Another tab has changed the conversation that is open here: it is shown, unless an answer is running. */
  #onOtherTab(id) {
    const chat = readChat(id);
    if (id === this.#saved.id && chat && !this.#running) this.#begin(chat);
  }

  #save() {
    if (!this.#turns.length) return;
    const { chat, ...fields } = this.fields();
    const { id, updated } = this.#saved;
    const [title] = this.#turns[0].content.trim().split("\n", 1);
    const saved = { id: id || newId(), updated, title: title.slice(0, MAX_TITLE) || "Chat", fields, turns: this.#turns };
    this.#list.say(saveChat(saved));
    this.#saved = { id: saved.id, updated: saved.updated };
    this.#list.draw(saved.id);
    this.#app.changed();
  }

  #add(turn) {
    const view = new TurnView(turn, {
      edit: (text) => this.#edit(turn, text),
      again: () => this.#again(turn),
      remove: () => this.#cut(this.#turns.indexOf(turn), 1),
    });
    this.#turns.push(turn);
    this.#turnViews.push(view);
    this.#parts.log.append(view.root);
    this.#showStarter();
    this.#scroll(true);
    return view;
  }

  /** Removes turns from the conversation and from the page. */
  #cut(at, count = Infinity) {
    if (this.#running) return;
    this.#turns.splice(at, count);
    for (const view of this.#turnViews.splice(at, count)) view.root.remove();
    this.#showStarter();
    this.#save();
  }

  /** A changed question is asked again, and what came after it is dropped; a changed answer stays in its place. */
  #edit(turn, text) {
    if (this.#running) return;
    turn.content = text;
    const at = this.#turns.indexOf(turn);
    this.#turnViews[at].draw();
    if (turn.role !== "user") return this.#save();
    this.#cut(at + 1);
    this.#answer();
  }

  /** Asks for this answer once more; what came after it is dropped. */
  #again(turn) {
    if (this.#running) return;
    this.#cut(this.#turns.indexOf(turn));
    this.#answer();
  }

  /** The request for the next answer, to a question that is not among the turns if there is one. */
  #body(question = "") {
    const asked = this.#turns.filter((turn) => turn.content).map(({ role, content }) => ({ role, content }));
    if (question) asked.push({ role: "user", content: question });
    const system = this.#chosen.system.trim() ? [{ role: "system", content: this.#chosen.system }] : [];
    const lora = this.#chosen.lora ? { lora: loraOf(this.#chosen) } : {};
    return { messages: [...system, ...asked], ...lora, ...samplingOf(this.#sampling.values, Object.keys(this.#sampling.values)), stream: true };
  }

  async #answer() {
    const body = this.#body();
    const turn = { role: "assistant", content: "", by: this.#chosen.lora || this.#chosen.model, facts: null, error: "" };
    const view = this.#add(turn);
    this.#running = new AbortController();
    this.#setBusy(view, true);
    const onText = (piece) => { turn.content += piece; view.drawSoon(); this.#scroll(); };
    try {
      const measured = await measuredRun(this.#catalogue, this.#chosen.model, body, this.#running.signal, onText);
      turn.facts = factsOf(measured);
      this.#parts.status.textContent = measured.finishReason === "stopped" ? "Stopped." : "Done.";
    } catch (error) {
      turn.error = errorText(error);
      this.#app.onRefusal(error);
      this.#parts.status.textContent = "Failed.";
    } finally {
      this.#running = null;
      this.#save();
      this.#setBusy(view, false);
      this.#scroll();
    }
  }

  #setBusy(view, busy) {
    this.#parts.send.disabled = busy;
    this.#parts.stop.disabled = !busy;
    this.#parts.log.classList.toggle("running", busy); // the actions of the turns are hidden meanwhile
    view.setBusy(busy);
    showAlert(this.#parts.error, "");
    if (busy) this.#parts.status.textContent = "Answering…";
  }

  /** Stays at the end of the log, unless the reader has scrolled up. */
  #scroll(always = false) {
    const { log } = this.#parts;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 120;
    if (always || atEnd) requestAnimationFrame(() => { log.scrollTop = log.scrollHeight; });
  }

  #showError(error) {
    showAlert(this.#parts.error, errorText(error));
    this.#app.onRefusal(error);
  }
}
