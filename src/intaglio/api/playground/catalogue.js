// What the server lists: models, adapters, and the verifications that were asked for. Also the connection: account and token.
// Views read it, and listen to its "change".

import { listFinetunes, listModels, readFinetune } from "./wire.js";

export class Catalogue extends EventTarget {
  account = "local";
  token = "";
  models = [];
  finetunes = [];
  loaded = false;
  #verifications = new Map(); // digest -> promise of the verification, which is null if there is none
  #known = new Map(); // digest -> verification

  /** Asks the server for both lists. Raises WireError or TypeError; the lists are empty then. */
  async load() {
    this.#verifications.clear();
    this.#known.clear();
    try {
      [this.models, this.finetunes] = await Promise.all([listModels(this), listFinetunes(this)]);
      this.loaded = true;
    } catch (error) {
      this.models = this.finetunes = [];
      this.loaded = false;
      throw error;
    } finally {
      this.changed();
    }
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** The model of this id, or null. */
  model(name) {
    return this.models.find((item) => item.name === name) ?? null;
  }

  /** `name` if the server lists it, else the first model that has weights. */
  chosenModel(name) {
    if (!this.models.length || this.model(name)) return name;
    return (this.models.find(hasWeights) ?? this.models[0]).name;
  }

  /** Finetunes that can be used with a model: made for it, or for the one that stands in for it. */
  adaptersOf(modelName) {
    const answering = propertyOf(this.model(modelName), "stand_in");
    return this.finetunes.filter((item) => item.model === modelName || item.model === answering);
  }

  /** The adapter of a model that a request would name so, or null. */
  adapter(modelName, name) {
    if (!name) return null;
    const served = this.adaptersOf(modelName);
    return served.find((item) => this.nameOf(item) === name) ?? served.find((item) => item.id === name) ?? null;
  }

  /** The name of a finetune in a request: another account's is found by its id alone, a demo adapter by its name too. */
  nameOf(finetune) {
    const isDemo = finetune.name.startsWith("intaglio-"); // only demo adapters may have such names
    return isDemo || finetune.account_id === this.account ? finetune.name : finetune.id;
  }

  /** What the verification of an adapter showed, or null as long as that is not known. */
  knownVerification(finetune) {
    return this.#known.get(finetune?.digest) ?? null;
  }

  /** The same, asked for if it is not known. Only read-one tells it, so it is asked for once. */
  async verification(finetune) {
    if (!finetune?.digest) return null;
    const { digest } = finetune;
    if (!this.#verifications.has(digest)) this.#verifications.set(digest, readFinetune(this, this.nameOf(finetune)));
    const { verification } = await this.#verifications.get(digest);
    this.#known.set(digest, verification);
    return verification;
  }
}

/** The value of a model's property, a string, or null. */
export function propertyOf(model, id) {
  return model?.properties?.find((item) => item.property_id === id)?.value ?? null;
}

/** Whether a model can be run here: it has weights, or another one answers for it. */
export function hasWeights(model) {
  return propertyOf(model, "without_weights") === null || propertyOf(model, "stand_in") !== null;
}

/** Whether the base that answers for this model is pre-trained only: it continues text, and was never trained to answer. */
export function isPretrained(model) {
  return propertyOf(model, "pretrained") !== null;
}

/** Whether an adapter serves requests. */
export function isReady(finetune) {
  return (finetune.state ?? "ready") === "ready";
}
