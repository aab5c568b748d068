// The files of an adapter as the reader drops or chooses them: which ones they are, and whether they can be one adapter.
// Only names and sizes are looked at; no file is read before this has passed.

export const CONFIG = "adapter_config.json";
export const WEIGHTS = ["adapter_model.safetensors", "adapters.safetensors"]; // PEFT's name, MLX-LM's name
const MAX_BYTES = 1e9; // the server's own default; it refuses more, but only while the file is being sent
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/**
 * {files, name, problem} of what was dropped: the files in the order of their upload, and a name for the adapter.
 * `problem` is a sentence that says what to do, empty if the files can be an adapter. entries: [{file, folder}].
 */
export function adapterOf(entries) {
  const named = (name) => entries.find(({ file }) => file.name === name);
  const gguf = entries.filter(({ file }) => file.name.endsWith(".gguf"));
  const config = named(CONFIG);
  const weights = named(WEIGHTS[0]) ?? named(WEIGHTS[1]);
  const chosen = config || weights || !gguf.length ? [config, weights].filter(Boolean) : gguf;
  const files = chosen.map(({ file }) => file);
  const problem = missingText(config, weights, gguf, entries) || sizeText(files);
  return { files, name: suggestedName(chosen), problem };
}

function missingText(config, weights, gguf, entries) {
  if (config && weights) return "";
  if (config) return `${CONFIG} is there, but not the weights: drop ${WEIGHTS[0]} with it, or the whole folder.`;
  if (weights) return `${weights.file.name} is there, but not ${CONFIG}: drop both files, or the whole folder.`;
  if (gguf.length === 1) return "";
  if (gguf.length) return `${gguf.length} GGUF files: drop one, an adapter has one.`;
  const names = entries.slice(0, 3).map(({ file }) => file.name).join(", ");
  const found = names ? `There is no adapter among these files (${names}${entries.length > 3 ? ", …" : ""})` : "The folder is empty";
  return `${found}: an adapter is ${CONFIG} and ${WEIGHTS[0]}, or one GGUF file.`;
}

function sizeText(files) {
  const large = files.find((file) => file.size > MAX_BYTES);
  const empty = files.find((file) => file.size === 0);
  if (empty) return `${empty.name} is empty.`;
  return large ? `${large.name} has ${bytesText(large.size)}, more than an adapter's ${bytesText(MAX_BYTES)}. It was not read.` : "";
}

/** The folder's name, or a GGUF file's, with what a name may not have replaced. */
function suggestedName(chosen) {
  const [{ file, folder } = {}] = chosen;
  const source = folder || (file?.name.endsWith(".gguf") ? file.name.slice(0, -".gguf".length) : "");
  const name = source.replaceAll(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "");
  return NAME.test(name) && !/^(intaglio|cf-public)-/.test(name) ? name : "";
}

/** Every file of a drop, those of folders too: [{file, folder}]. To be called before the event's end. */
export async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return chosenFiles(transfer.files);
  const found = await Promise.all(entries.map((entry) => (entry.isDirectory ? filesOfFolder(entry) : fileOf(entry, ""))));
  return found.flat();
}

/** The same of an `<input type=file>`, which gives a folder's files with their paths. */
export function chosenFiles(list) {
  return [...list].map((file) => ({ file, folder: file.webkitRelativePath?.split("/").at(-2) ?? "" }));
}

async function filesOfFolder(folder) {
  const reader = folder.createReader();
  const entries = [];
  for (;;) { // a reader gives a hundred at a time
    const some = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
    if (!some.length) break;
    entries.push(...some);
  }
  const files = entries.filter((entry) => entry.isFile); // folders inside hold checkpoints, each an adapter of its own
  return (await Promise.all(files.map((entry) => fileOf(entry, folder.name)))).flat();
}

async function fileOf(entry, folder) {
  return [{ file: await new Promise((resolve, reject) => { entry.file(resolve, reject); }), folder }];
}

/** 2000000 is "2.0 MB". */
export function bytesText(bytes) {
  const [unit, size] = bytes >= 1e9 ? ["GB", 1e9] : bytes >= 1e6 ? ["MB", 1e6] : bytes >= 1e3 ? ["kB", 1e3] : ["bytes", 1];
  return `${size === 1 ? bytes : (bytes / size).toFixed(1)} ${unit}`;
}
