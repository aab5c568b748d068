// The elements of Adapters: where files are dropped or chosen, the progress of an upload, and the list.

import { button, element } from "../dom.js";

export function adaptersParts() {
  const files = element("input", { type: "file", multiple: true, hidden: true, "aria-label": "Files of an adapter" });
  const folder = element("input", { type: "file", webkitdirectory: true, hidden: true, "aria-label": "Folder of an adapter" });
  const bar = element("progress", { max: 1, value: 0, "aria-label": "Upload" });
  const progress = element("div", { hidden: true }, bar);
  const status = element("p", { class: "hint", role: "status" });
  const error = element("p", { class: "error", role: "alert", hidden: true });
  const drop = element("section", { class: "card drop", "aria-labelledby": "drop-title" },
    element("h2", { id: "drop-title" }, "Add an adapter"),
    element("p", {}, "Drop adapter_config.json and adapter_model.safetensors, their folder, or one GGUF adapter anywhere on this page. It is checked and verified, then stands beside the base."),
    element("div", { class: "actions" }, button("Choose files", () => files.click()), button("Choose a folder", () => folder.click())),
    files, folder, progress, status, error);
  const list = element("ul", { class: "adapters" });
  const none = element("p", { class: "hint" }, "No adapters yet.");
  const listed = element("section", { class: "card", "aria-labelledby": "listed-title" },
    element("h2", { id: "listed-title" }, "Adapters of this server"), none, list);
  return { files, folder, bar, progress, status, error, list, none, all: [drop, listed] };
}
