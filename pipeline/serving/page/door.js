// The node's HTTP door, asked from its own page. Invariant: what somebody logs in with is in this module's memory alone.

let authorization = null;

/** What went wrong, in one line, and what to do. `status` is 0 if the node did not answer. */
export class Failed extends Error {
  constructor(status, error, hint = "") {
    super(error);
    this.status = status;
    this.hint = hint;
  }
}

/** Log in with a password, or with a token where there is no name. */
export function logIn(name, secret) {
  const bytes = new TextEncoder().encode(`${name}:${secret}`);
  authorization = name ? `Basic ${btoa(String.fromCharCode(...bytes))}` : `Bearer ${secret}`;
}

export function logOut() {
  authorization = null;
}

export const loggedIn = () => authorization !== null;

export async function get(path) {
  return (await ask(path, { signal: AbortSignal.timeout(10_000) })).json();
}

async function ask(path, init) {
  const headers = { Accept: "application/json", ...init.headers };
  if (authorization) headers.Authorization = authorization;
  let response;
  try {
    // Without credentials a browser shows no dialogue of its own at a 401.
    response = await fetch(path, { ...init, headers, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failed(0, "the node does not answer", "it may be starting, or the way to it is cut");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new Failed(response.status, told.error ?? `the node answered ${response.status}`, told.hint);
}

/**
 * The first `most` rows of a query. The door writes a row a line, so the rest need not be read: hanging up cancels it.
 * `more` says whether there was a rest.
 */
export async function query(question, most, signal) {
  const began = performance.now();
  const body = JSON.stringify(question);
  const headers = { "Content-Type": "application/json" };
  const response = await ask("/query", { method: "POST", body, headers, signal });
  const answer = { columns: [], rows: [], more: false, position: response.headers.get("Merganser-Position") };
  for await (const line of lines(response.body)) {
    if (line.startsWith('{"columns":')) answer.columns = JSON.parse(`${line}]}`).columns;
    else if (line.startsWith("],")) return { ...answer, ...JSON.parse(`{${line.slice(2)}`), ms: performance.now() - began };
    else if (line && answer.rows.length === most) return { ...answer, more: true, ms: performance.now() - began };
    else if (line) answer.rows.push(JSON.parse(line.replace(/,$/, "")));
  }
  throw new Failed(0, "the answer broke off", "the query took too long, or the node stopped: ask again");
}

/** The lines of *stream*. Who takes no more of them hangs up. */
async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      yield* parts;
    }
    if (rest) yield rest;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    // What broke off is told by who reads the lines.
  } finally {
    reader.cancel().catch(() => {});
  }
}

const RESERVED = new Set(`all analyse analyze and any array as asc asymmetric both case cast check collate column constraint
  create default deferrable desc describe distinct do else end except false fetch for foreign from group having in
  initially intersect into lambda lateral leading limit not null offset on only or order pivot pivot_longer pivot_wider
  placing primary qualify references returning select show some summarize symmetric table then to trailing true union
  unique unpivot using variadic when where window with`.split(/\s+/));

/** SQL's spelling of a name. */
export const quoted = (name) =>
  /^[a-z_][a-z0-9_]*$/.test(name) && !RESERVED.has(name) ? name : `"${name.replaceAll('"', '""')}"`;
