import { events } from "./events.js";

const form = document.querySelector("form");
const answer = document.querySelector("output");
const fault = document.querySelector("[role=alert]");
const stop = document.querySelector("#stop");
let running = null; // the AbortController of the answer that is being shown

stop.addEventListener("click", () => running?.abort());

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  running?.abort();
  const mine = (running = new AbortController());
  answer.textContent = fault.textContent = "";
  stop.disabled = false;
  try {
    await show(Object.fromEntries(new FormData(form)), mine.signal);
  } catch (error) {
    if (!mine.signal.aborted) fault.textContent = error.message;
  } finally {
    if (running === mine) stop.disabled = true;
  }
});

async function show(asked, signal) {
  const response = await fetch("run", { method: "POST", body: JSON.stringify(asked), signal });
  if (!response.ok) throw new Error((await response.json()).error);
  for await (const event of events(response.body)) {
    if (event.errors) throw new Error(event.errors[0].message); // it failed after its first words
    answer.append(event.response);
  }
}
