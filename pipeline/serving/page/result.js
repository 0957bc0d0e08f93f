// An answer as a table, as CSV, and as a chart where it looks like one.

import { h } from "./dom.js";

const NUMBER = /^(U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\b.*)$/;
const TIME = /^(DATE|TIMESTAMP)/;

/** A cell with more than so many characters is wide, and none shows more than so many. */
const WIDE = 40, LONGEST = 300;

/** What is less than this share of the largest would be a flat line beside it. */
const SEEN = 1 / 50;

const isNumber = ({ type }) => NUMBER.test(type);
const isTime = ({ type }) => TIME.test(type);

function textOf(value, column) {
  if (typeof value === "object") return JSON.stringify(value);
  if (isTime(column)) return String(value).replace("T", " ").replace(/\.?0+(?=Z?$)(?<=\.\d*)/, "");
  return String(value);
}

function cell(value, column) {
  if (value === null) return h("td", { class: isNumber(column) ? "number" : null }, h("span", { class: "null" }, "NULL"));
  const text = textOf(value, column), long = text.length > LONGEST;
  const kind = isNumber(column) ? "number" : typeof value === "object" ? "nested" : "";
  const attributes = { class: `${kind} ${text.length > WIDE ? "long" : ""}`.trim() || null, title: long ? text.slice(0, 5000) : null };
  return h("td", attributes, long ? `${text.slice(0, LONGEST)}…` : text);
}

/** A table that scrolls inside its own frame. `fresh` tells which rows are new, `types` whether its head names types. */
export function tableOf({ columns, rows }, label, { fresh = () => false, types = false } = {}) {
  const head = columns.map((column) => h("th", { scope: "col", class: isNumber(column) ? "number" : null, title: column.type },
    column.name, types ? h("span", { class: "type" }, ` ${column.type.toLowerCase()}`) : null));
  const body = rows.map((row) => h("tr", { class: fresh(row) ? "fresh" : null }, row.map((value, i) => cell(value, columns[i]))));
  return h("div", { class: "frame", tabindex: 0, role: "region", "aria-label": label },
    h("table", { class: "rows" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}

export function csvOf({ columns, rows }) {
  const field = (value) => {
    if (value === null) return "";
    const text = typeof value === "object" ? JSON.stringify(value) : String(value);
    return typeof value === "number" || (text && !/[",\r\n]/.test(text)) ? text : `"${text.replaceAll('"', '""')}"`;
  };
  return [columns.map((column) => field(column.name)), ...rows.map((row) => row.map(field))].map((line) => line.join(",")).join("\r\n") + "\r\n";
}

/** What Chart.show takes; null if the answer is not of a kind that a chart helps with. */
export function chartOf({ columns, rows }) {
  const numbers = columns.slice(1).flatMap((column, i) => (isNumber(column) && !column.name.startsWith("_") ? [i + 1] : [])).slice(0, 6);
  if (!numbers.length || rows.length < 2) return null;
  const first = columns[0];
  let ordered = rows, x = rows.map((row) => place(row[0], first));
  if (x.every((value, i) => i === 0 || value <= x[i - 1])) {
    ordered = rows.toReversed();
    x = x.toReversed();
  }
  const line = x.every((value, i) => Number.isFinite(value) && (i === 0 || value >= x[i - 1]));
  if (!line && rows.length > 60) return null;
  if (!line) ordered = rows;
  const series = numbers.map((at, colour) => ({ name: columns[at].name, colour, values: ordered.map((row) => number(row[at])) }));
  const top = (one) => Math.max(0, ...one.values.map((value) => Math.abs(value ?? 0)));
  const most = Math.max(...series.map(top));
  const names = ordered.map((row) => (row[0] === null ? "NULL" : textOf(row[0], first)));
  const shown = series.filter((one) => top(one) >= most * SEEN), left = series.filter((one) => !shown.includes(one)).map((one) => one.name);
  return { kind: line ? "lines" : "bars", x: line ? x : names, series: shown, left, xText: (_, i) => names[i] };
}

const place = (value, column) => (value === null ? NaN : isTime(column) ? Date.parse(value) : isNumber(column) ? Number(value) : NaN);

function number(value) {
  const found = value === null ? NaN : Number(value);
  return Number.isFinite(found) ? found : null;
}
