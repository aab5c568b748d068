// Fills the lists of models and adapters, and says in words what is chosen.

import { element } from "./dom.js";
import { hasWeights, isReady, propertyOf } from "./catalogue.js";

const NO_WEIGHTS = "No weights on this server: intaglio serve --model ID=PATH adds them";

/** The served models, then those that another one answers for, then those without weights, which cannot be chosen. */
export function fillModels(select, catalogue, chosen) {
  const options = [];
  const groups = new Map(); // label -> optgroup
  for (const model of catalogue.models) {
    const standIn = propertyOf(model, "stand_in");
    const option = new Option(model.name, model.name);
    option.disabled = !hasWeights(model);
    option.title = model.description;
    if (!standIn && !option.disabled) {
      options.push(option);
      continue;
    }
    const label = standIn ? `Answered by ${standIn}` : NO_WEIGHTS;
    if (!groups.has(label)) groups.set(label, element("optgroup", { label }));
    groups.get(label).append(option);
  }
  if (!catalogue.models.length) options.push(new Option(chosen, chosen)); // before the first response: as in the link
  select.replaceChildren(...options, ...groups.values());
  select.disabled = !catalogue.models.length;
  select.value = chosen;
}

/** Public adapters and the account's own, below an entry for none. One that is not listed is kept, and marked. */
export function fillAdapters(select, catalogue, { none, listed, chosen }) {
  const groups = [["Public", true], ["Yours", false]].map(([label, isPublic]) => {
    const ofGroup = listed.filter((item) => Boolean(item.public) === isPublic);
    return element("optgroup", { label }, ...ofGroup.map((item) => adapterOption(catalogue, item)));
  });
  select.replaceChildren(new Option(none, ""), ...groups.filter((group) => group.childElementCount));
  if (chosen && !listed.some((item) => catalogue.nameOf(item) === chosen)) {
    select.append(new Option(`${chosen} (not listed)`, chosen));
  }
  select.disabled = !catalogue.models.length;
  select.value = chosen;
}

function adapterOption(catalogue, finetune) {
  return new Option(finetune.name + (isReady(finetune) ? "" : ` (${finetune.state})`), catalogue.nameOf(finetune));
}

/** What an adapter is for, and why it does not answer if it does not. */
export function aboutOf(finetune) {
  const state = isReady(finetune) ? "" : `Not ready: ${finetune.reason ?? finetune.state}.`;
  return [finetune.description, state].filter(Boolean).join(" ");
}

/** A verification in one sentence; empty without one. */
export function verificationText(verification) {
  if (!verification) return "";
  const [mean, largest] = [verification.mean_logit_change, verification.largest_logit_change].map((change) => Number(change.toPrecision(3)));
  const changes = `logits change by ${mean} (at most ${largest})`;
  const agreement = `${(100 * verification.agreement).toFixed(2)}% agreement with the reference`;
  const scaled = verification.scalable ? "" : " It cannot be scaled or mixed.";
  return `Verified: ${verification.modules} modules of rank ${verification.rank}, ${changes}, ${agreement}.${scaled}`;
}
