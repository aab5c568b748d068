// Runs the functions of an example one after the other and prints what they returned, as one line of JSON.

// Prints {name of the function: {"value": what it returned} or {"error": its stack}}.
export async function report(...functions) {
  const outcomes = {};
  for (const one of functions) {
    try {
      outcomes[one.name] = { value: (await one()) ?? null };
    } catch (error) {
      // The test reports the error, and the next function still runs.
      outcomes[one.name] = { error: `${error?.stack ?? error}` };
    }
  }
  console.log(JSON.stringify(outcomes));
}
