import { events } from "./events.js";

const form = document.querySelector("form");
const output = document.querySelector("output");
const errorBox = document.querySelector("[role=alert]");
const stop = document.querySelector("#stop");
let running = null; // the AbortController of the run that is being shown

stop.addEventListener("click", () => running?.abort());

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  running?.abort();
  const controller = (running = new AbortController());
  output.textContent = errorBox.textContent = "";
  stop.disabled = false;
  try {
    await show(Object.fromEntries(new FormData(form)), controller.signal);
  } catch (error) {
    if (!controller.signal.aborted) errorBox.textContent = error.message;
  } finally {
    if (running === controller) stop.disabled = true;
  }
});

async function show(inputs, signal) {
  const response = await fetch("run", { method: "POST", body: JSON.stringify(inputs), signal });
  if (!response.ok) throw new Error((await response.json()).error);
  for await (const event of events(response.body)) {
    if (event.errors) throw new Error(event.errors[0].message); // the run failed after its first tokens
    output.append(event.response);
  }
}
