// The SQL box: ask, see the rows, the plan or a chart. Everything by keyboard.

import { Chart } from "./chart.js";
import { byId, count, duration, h } from "./dom.js";
import { get, query, quoted } from "./door.js";
import { chartOf, csvOf, tableOf } from "./result.js";

const KEPT = 30, STORE = "merganser.queries", WORDS = 6;

export class SqlBox {
  constructor() {
    this.text = byId("text");
    this.names = [];
    this.running = null;
    byId("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.running) this.running.abort();
      else this.run("");
    });
    byId("explain").addEventListener("click", () => this.run("EXPLAIN "));
    byId("level").addEventListener("change", () => (byId("staleness-label").hidden = byId("level").value !== "bounded"));
    byId("history").addEventListener("change", (event) => this.recall(event.target));
    this.text.addEventListener("input", () => this.suggest());
    document.addEventListener("selectionchange", () => document.activeElement === this.text && this.suggest());
    this.text.addEventListener("keydown", (event) => this.key(event));
    byId("ask").addEventListener("keydown", (event) => event.key === "Escape" && this.running?.abort());
    if (matchMedia("(max-width: 50rem)").matches) byId("schema").open = false;
    this.showHistory();
  }

  // -- names -----------------------------------------------------------------------------------

  /** Ask which tables and columns there are. */
  async learn() {
    try {
      this.tables = (await get("/tables")).tables;
    } catch {
      return; // the state of the node tells that it does not answer
    }
    this.names = [...new Set(this.tables.flatMap(({ table, columns }) => [spelled(table), ...columns.map((c) => quoted(c.name))]))];
    byId("names").replaceChildren(...this.tables.map((table) => this.listed(table)));
    // Not while somebody is about to type there: their first word would come behind it.
    if (!this.text.value && document.activeElement !== this.text && this.tables.length)
      this.text.value = `select * from ${spelled(this.tables[0].table)} limit 100`;
  }

  listed({ table, columns, key }) {
    const insert = (name, label, type = "") => h("button", { type: "button", class: "name", onclick: () => this.insert(name), title: `Insert ${name}` },
      label, type ? h("span", { class: "type" }, ` ${type.toLowerCase()}`) : null);
    const parts = columns.map(({ name, type }) => h("li", { class: key.includes(name) ? "keyed" : null }, insert(quoted(name), name, type)));
    return h("li", {}, h("details", { open: !table.startsWith(SYSTEM) && this.tables.filter((t) => !t.table.startsWith(SYSTEM)).length < 4 },
      h("summary", {}, table), insert(spelled(table), "insert its name"), h("ul", {}, parts)));
  }

  insert(name) {
    const { selectionStart: start, selectionEnd: end, value } = this.text;
    const space = start > 0 && !/[\s(."]/.test(value[start - 1]) ? " " : "";
    this.text.setRangeText(`${space}${name}`, start, end, "end");
    this.text.focus();
    this.suggest();
  }

  /** The word before the caret. */
  word() {
    const before = this.text.value.slice(0, this.text.selectionStart);
    return /[\p{L}_"][\p{L}\p{N}_.]*$/u.exec(before)?.[0] ?? "";
  }

  suggest() {
    const word = this.word().toLowerCase();
    const fit = word.length < 2 ? [] : this.names.filter((name) => name.toLowerCase().startsWith(word) && name.toLowerCase() !== word).slice(0, WORDS);
    this.fit = fit;
    byId("words").replaceChildren(...fit.map((name) => h("button", { type: "button", class: "chip", onclick: () => this.complete(name) }, name)));
  }

  complete(name) {
    const end = this.text.selectionStart;
    this.text.setRangeText(name, end - this.word().length, end, "end");
    this.text.focus();
    this.suggest();
  }

  key(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (!this.running) this.run("");
    } else if (event.key === " " && event.ctrlKey && this.fit?.length) {
      event.preventDefault();
      this.complete(this.fit[0]);
    }
  }

  // -- asking ----------------------------------------------------------------------------------

  async run(prefix) {
    const sql = this.text.value.trim();
    if (!sql || this.running) return;
    this.remember(sql);
    const level = byId("level").value;
    const question = { sql: prefix + sql, level, timeout: 30 };
    if (level === "bounded") question.max_staleness = Number(byId("staleness").value);
    this.running = new AbortController();
    byId("run").textContent = "Cancel";
    byId("answer").classList.add("old");
    try {
      const answer = await query(question, Number(byId("limit").value), this.running.signal);
      this.show(answer);
    } catch (error) {
      this.failed(error);
    } finally {
      this.running = null;
      byId("run").textContent = "Run";
      byId("answer").classList.remove("old");
    }
  }

  show(answer) {
    const plan = answer.columns.map(({ name }) => name).join() === "explain_key,explain_value";
    if (plan) {
      const text = answer.rows.map((row) => row[1]).join("\n");
      byId("answer").replaceChildren(about(answer, "The plan"), h("pre", { class: "plan frame", tabindex: 0, role: "region", "aria-label": "Plan of the query" }, text));
      return;
    }
    const rows = answer.more ? `The first ${count(answer.rows.length)} rows; the rest was not fetched` : answer.rows.length === 1 ? "1 row" : `${count(answer.rows.length)} rows`;
    const table = tableOf(answer, "Rows of the answer", { types: true }), shape = chartOf(answer);
    const copy = h("button", { type: "button", onclick: () => copied(copy, csvOf(answer)) }, "Copy as CSV");
    const parts = [about(answer, rows, copy)];
    if (shape) {
      const host = h("div", { class: "chart tall" });
      parts.push(h("div", { class: "legend" }, shape.series.map((s) => h("span", {}, h("i", { class: `key c${s.colour}` }), s.name)),
        shape.left.length ? h("span", {}, `on another scale: ${shape.left.join(", ")}`) : null), host);
      byId("answer").replaceChildren(...parts, table);
      new Chart(host, `Chart of the answer by ${answer.columns[0].name}`).show(shape);
    } else byId("answer").replaceChildren(...parts, table);
  }

  failed(error) {
    const [what, hint] = error.name === "AbortError" ? ["Cancelled.", ""] : [error.message, error.hint];
    byId("answer").replaceChildren(h("p", { class: "error" }, h("strong", {}, what), hint ? h("span", { class: "hint" }, ` ${hint}`) : null));
  }

  // -- what was asked before -------------------------------------------------------------------

  remember(sql) {
    const kept = [sql, ...earlier().filter((other) => other !== sql)].slice(0, KEPT);
    try {
      sessionStorage.setItem(STORE, JSON.stringify(kept));
    } catch {
      return; // a browser that keeps nothing: there is no history then
    }
    this.showHistory();
  }

  showHistory() {
    const options = earlier().map((sql) => h("option", { value: sql }, sql.replace(/\s+/g, " ").slice(0, 80)));
    byId("history").replaceChildren(h("option", { value: "" }, options.length ? "Earlier queries" : "None yet"), ...options);
  }

  recall(select) {
    if (select.value) this.text.value = select.value;
    select.selectedIndex = 0;
    this.text.focus();
  }
}

function earlier() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(STORE) ?? "[]");
    return Array.isArray(kept) ? kept.filter((sql) => typeof sql === "string") : [];
  } catch {
    return [];
  }
}

const SYSTEM = "_merganser.";

/** A topic's name may have dots; only ours of the system have a schema. */
const spelled = (table) => (table.startsWith(SYSTEM) ? SYSTEM + quoted(table.slice(SYSTEM.length)) : quoted(table));

function about(answer, what, ...buttons) {
  const place = answer.position ? h("details", { class: "place" }, h("summary", {}, "read at"), h("code", {}, answer.position.replaceAll(",", ", "))) : null;
  return h("div", { class: "about" }, h("strong", {}, what), h("span", {}, duration(answer.ms / 1000)), place, buttons);
}

async function copied(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without TLS, and not on this machine, there is no clipboard but this way.
    const area = h("textarea", { class: "hidden", "aria-hidden": "true" }, text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy as CSV"), 1500);
}
