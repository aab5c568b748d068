// What changes finetunes: create, upload with progress, roll back, delete, download.

import { accountPath } from "./request.js";
import { authorization, changeResult, resultOfText, WireError } from "./wire.js";

const path = (name, rest = "") => `finetunes/${encodeURIComponent(name)}${rest}`;

export async function createFinetune(connection, model, name) {
  return changeResult(connection, "POST", "finetunes", { model, name });
}

export async function deleteFinetune(connection, name) {
  return changeResult(connection, "DELETE", path(name));
}

/** Makes a version current again: the previous one, or `version`. */
export async function rollBack(connection, name, version = null) {
  return changeResult(connection, "POST", path(name, `/rollback${version ? `?version=${version}` : ""}`));
}

/**
 * Uploads one file; `onProgress(share)` is called with 0…1 as it is sent. Resolves to the upload's result once the server has
 * checked it. Raises WireError, or TypeError if the connection breaks.
 */
export function uploadFile(connection, name, file, onProgress) {
  const form = new FormData();
  form.append("file_name", file.name);
  form.append("file", file);
  const request = new XMLHttpRequest(); // fetch does not tell how much is sent
  request.open("POST", accountPath(connection.account, path(name, "/finetune-assets")));
  for (const [header, value] of Object.entries(authorization(connection.token))) request.setRequestHeader(header, value);
  request.upload.addEventListener("progress", (event) => { if (event.lengthComputable) onProgress(event.loaded / event.total); });
  return new Promise((resolve, reject) => {
    request.addEventListener("error", () => reject(new TypeError("the connection broke")));
    request.addEventListener("load", () => {
      try {
        resolve(resultOfText(request.responseText, request.status));
      } catch (error) {
        reject(error);
      }
    });
    request.send(form);
  });
}

/** One file of a finetune, as a Blob: a link could not send the token. */
export async function downloadFile({ account, token }, name, fileName) {
  const response = await fetch(accountPath(account, path(name, `/finetune-assets/${fileName}`)), { headers: authorization(token) });
  if (response.ok) return response.blob();
  resultOfText(await response.text(), response.status); // raises the server's error
  throw new WireError(`HTTP ${response.status}`, null, response.status);
}
