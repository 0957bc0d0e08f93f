// The tables of the node: figures that move, and on demand the newest rows and the place in each partition.

import { spark } from "./chart.js";
import { count, duration, h, rate, tell } from "./dom.js";
import { get, query, quoted } from "./door.js";
import { tableOf } from "./result.js";

const NEWEST = 8;

/** How often what is open is asked for, and the share of the time that may go into it. */
const EVERY_MS = 2000, SHARE = 10;

export class Tables {
  constructor(table, pulse) {
    this.table = table;
    this.pulse = pulse;
    this.rows = new Map();
  }

  show(tables) {
    const names = new Set(tables.map(({ table }) => table));
    for (const [name, row] of this.rows) {
      if (!names.has(name)) {
        row.element.remove();
        this.rows.delete(name);
      }
    }
    for (const facts of tables) {
      if (!this.rows.has(facts.table)) {
        const row = new Row(facts.table, this.pulse, this.rows.size);
        this.rows.set(facts.table, row);
        this.table.append(row.element);
      }
      this.rows.get(facts.table).show(facts);
    }
  }
}

class Row {
  constructor(name, pulse, number) {
    this.name = name;
    this.pulse = pulse;
    const id = `table-${number}-${Math.random().toString(36).slice(2, 8)}`;
    this.button = h("button", { type: "button", class: "fold", "aria-expanded": "false", "aria-controls": id, onclick: () => this.toggle() },
      h("i", { class: `key c${pulse.colour(name)}`, "aria-hidden": "true" }), h("span", {}, name));
    this.cells = Object.fromEntries(["rows", "rate", "lag", "aside", "state"].map((cell) => [cell, h("span")]));
    this.sparks = { rate: h("span"), lag: h("span") };
    const number_ = (label, ...parts) => h("td", { role: "cell", class: "number", "data-label": label }, parts);
    this.detail = h("tr", { role: "row", id, class: "detail", hidden: true }, h("td", { role: "cell", colspan: 6 }));
    this.element = h("tbody", { role: "rowgroup" },
      h("tr", { role: "row" },
        h("th", { scope: "row", role: "rowheader" }, this.button),
        number_("Rows", this.cells.rows),
        number_("Records/s", this.sparks.rate, this.cells.rate),
        number_("Lag", this.sparks.lag, this.cells.lag),
        number_("Set aside", this.cells.aside),
        h("td", { role: "cell", "data-label": "State" }, this.cells.state)),
      this.detail);
  }

  show(facts) {
    this.facts = facts;
    const pace = this.pulse.pace(this.name);
    tell(this.cells.rows, count(facts.rows));
    tell(this.cells.rate, rate(pace));
    tell(this.cells.lag, count(facts.lag));
    tell(this.cells.aside, count((facts.quarantined ?? 0) + (facts.rejected ?? 0) + (facts.pending ?? 0)));
    this.cells.aside.title = `${count(facts.quarantined)} in quarantine, ${count(facts.rejected)} rejected, ${count(facts.pending)} held back`;
    const [kind, text] = facts.stopped !== null ? ["bad", "stopped"] : facts.lag > Math.max(1, 2 * pace) ? ["wait", "behind"] : ["good", "up to date"];
    this.cells.state.className = `pill ${kind}`;
    tell(this.cells.state, text);
    this.sparks.rate.replaceChildren(spark(this.pulse.rates(this.name).slice(-60)));
    this.sparks.lag.replaceChildren(spark(this.pulse.lags(this.name).slice(-60)));
    this.sparks.rate.firstChild.classList.add(`c${this.pulse.colour(this.name)}`);
    this.sparks.lag.firstChild.classList.add(`c${this.pulse.colour(this.name)}`);
  }

  toggle() {
    const open = this.detail.hidden;
    this.detail.hidden = !open;
    this.button.setAttribute("aria-expanded", String(open));
    if (open) {
      this.newest = h("div", {}, h("p", { class: "hint" }, "Asking…"));
      this.places = h("div");
      this.detail.firstElementChild.replaceChildren(h("div", { class: "inside" },
        h("div", {}, h("h3", {}, "Newest rows"), this.newest), h("div", {}, h("h3", {}, "Position by partition"), this.places)));
      this.seen = null;
      this.ask();
    }
  }

  /** Again and again while it is open and looked at. */
  async ask() {
    if (this.detail.hidden || !this.element.isConnected) return;
    const began = performance.now();
    if (!document.hidden) await Promise.all([this.showNewest(), this.showPlaces()]);
    setTimeout(() => this.ask(), Math.max(EVERY_MS, SHARE * (performance.now() - began)));
  }

  async showNewest() {
    const sql = `SELECT * FROM ${quoted(this.name)} ORDER BY _timestamp DESC, _offset DESC LIMIT ${NEWEST}`;
    await into(this.newest, async () => {
      const answer = await query({ sql, timeout: 5 }, NEWEST);
      const at = ["_partition", "_offset"].map((name) => answer.columns.findIndex((column) => column.name === name));
      const id = (row) => at.map((i) => row[i]).join(":");
      const before = this.seen;
      this.seen = new Set(answer.rows.map(id));
      return tableOf(answer, `Newest rows of ${this.name}`, { fresh: (row) => before !== null && !before.has(id(row)) });
    });
  }

  async showPlaces() {
    await into(this.places, async () => {
      const { partitions } = await get(`/live?since=1e15&table=${encodeURIComponent(this.name)}`);
      const columns = ["partition", "read", "applied", "end of the log", "lag"].map((name) => ({ name, type: "BIGINT" }));
      const rows = partitions.map(({ partition, read, applied, end }) => [partition, read, applied, end, end === null ? null : Math.max(0, end - applied)]);
      const { puts, deletes, gaps, rejected, repeated } = this.facts;
      const account = `${count(puts)} puts, ${count(deletes)} deletes, ${count(rejected)} rejected, ${count(repeated)} repeated, ${count(gaps)} gaps`;
      const open = this.facts.open_transactions.map((tx) =>
        h("p", {}, `A transaction has been open in partition ${tx.partition} for ${duration(tx.seconds)}: ${count(tx.records)} records wait.`));
      return h("div", {}, tableOf({ columns, rows }, `Position of ${this.name} by partition`), h("p", { class: "hint" }, account), open);
    });
  }
}

/** Put what *make* gives into *host*, keeping where it was scrolled to and whether it had the focus; or why there is none. */
export async function into(host, make) {
  try {
    const made = await make();
    const old = host.querySelector(".frame"), focused = old !== null && old === document.activeElement;
    const place = old === null ? null : [old.scrollLeft, old.scrollTop];
    host.replaceChildren(made);
    const frame = host.querySelector(".frame");
    if (frame && place) [frame.scrollLeft, frame.scrollTop] = place;
    if (frame && focused) frame.focus({ preventScroll: true });
  } catch (error) {
    host.replaceChildren(h("p", { class: "error" }, error.message, error.hint ? h("span", { class: "hint" }, ` ${error.hint}`) : null));
  }
}
