// The samples that the node took, as the charts want them.

import { COLOURS } from "./chart.js";

const MOST = 300;

export class Pulse {
  constructor() {
    this.colours = new Map();
    this.forget();
  }

  /** Another node, or the same begun anew. */
  forget() {
    this.at = [];
    this.tables = new Map();
  }

  get since() {
    return this.at.at(-1) ?? 0;
  }

  add({ at_s: at, tables }) {
    at.forEach((moment, i) => {
      if (moment <= this.since) return;
      for (const name of Object.keys(tables)) {
        if (!this.tables.has(name)) {
          this.tables.set(name, { done: this.at.map(() => null), lag: this.at.map(() => null) });
        }
      }
      this.at.push(moment);
      for (const [name, kept] of this.tables) {
        kept.done.push(tables[name]?.done[i] ?? null);
        kept.lag.push(tables[name]?.lag[i] ?? null);
      }
    });
    const over = Math.max(0, this.at.length - MOST);
    this.at.splice(0, over);
    for (const kept of this.tables.values()) {
      kept.done.splice(0, over);
      kept.lag.splice(0, over);
    }
  }

  /** Records a second, one fewer than there are samples. */
  rates(name) {
    const done = this.tables.get(name)?.done ?? [];
    return done.slice(1).map((n, i) => n === null || done[i] === null ? null : (n - done[i]) / (this.at[i + 1] - this.at[i]));
  }

  lags(name) {
    return (this.tables.get(name)?.lag ?? []).slice(1);
  }

  /** The mean of the last few seconds. */
  pace(name) {
    const last = this.rates(name).slice(-4).filter((value) => value !== null);
    return last.length ? last.reduce((sum, value) => sum + value, 0) / last.length : null;
  }

  /** The same colour for a table as long as the page lives; the last one is shared by all that come late. */
  colour(name) {
    if (!this.colours.has(name)) this.colours.set(name, Math.min(this.colours.size, COLOURS - 1));
    return this.colours.get(name);
  }

  /** A series a colour: *values* of each table, those of one colour added up. */
  series(values) {
    const byColour = new Map();
    for (const name of this.tables.keys()) {
      const colour = this.colour(name), own = values(name), there = byColour.get(colour);
      if (there === undefined) byColour.set(colour, { name, colour, values: own });
      else byColour.set(colour, { name: "others", colour, values: there.values.map((value, i) => sum(value, own[i])) });
    }
    return [...byColour.values()].sort((a, b) => a.colour - b.colour);
  }

  get times() {
    return this.at.slice(1);
  }

  /** The clock's time of a sample. */
  clock(moment) {
    const ms = Date.now() - (this.since - moment) * 1000;
    return new Date(ms).toLocaleTimeString("en-GB");
  }
}

const sum = (a, b) => (a === null && b === null ? null : (a ?? 0) + (b ?? 0));
