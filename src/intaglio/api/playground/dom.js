// Makes DOM nodes. Text from the model or the server becomes a text node, never markup.

export const byId = (id) => document.getElementById(id);

/**
 * An element. Properties are set as such; `class`, `for`, `role` and names with a dash are attributes; `on…` are listeners.
 * Children are nodes or texts; null and false are left out.
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (/-|^(class|for|role)$/.test(name)) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== false));
  return made;
}

/** A button that does not submit a form. */
export function button(text, onclick, properties = {}) {
  return element("button", { type: "button", onclick, ...properties }, text);
}

/** A labelled field: the input gets `id`, so that its label points to it. */
export function field(id, label, input, properties = {}) {
  input.id = id;
  return element("div", { class: "field", ...properties }, element("label", { for: id }, label), input);
}

/** Copies a text, and says so on the button for a moment. Without the permission, `shown` is selected, so that Ctrl+C copies. */
export async function copyText(text, pressed, shown = null) {
  const label = pressed.dataset.label ??= pressed.textContent;
  try {
    await navigator.clipboard.writeText(text);
    pressed.textContent = "Copied";
  } catch { // no permission, or a plain-http page of another machine
    if (shown) getSelection().selectAllChildren(shown);
    pressed.textContent = shown ? "Selected" : "Not allowed";
  }
  setTimeout(() => { pressed.textContent = label; }, 1500);
}

/** Sets the text of an alert; an empty one is hidden. */
export function showAlert(alert, text) {
  alert.textContent = text;
  alert.hidden = !text;
}
