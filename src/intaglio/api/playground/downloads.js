// Saves a file that the page has made or fetched.

import { element } from "./dom.js";

const READ_BY_THEN_MS = 60_000; // the browser reads the blob after the click

export function saveBlob(blob, name) {
  const href = URL.createObjectURL(blob);
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), READ_BY_THEN_MS);
}
