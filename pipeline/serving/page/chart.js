// Small charts in SVG: layers over time, lines, bars, and a spark of a line.

import { brief, h, svg } from "./dom.js";

export const COLOURS = 8;

const LEFT = 46, RIGHT = 10, TOP = 10, BOTTOM = 22;

/** Round steps of an axis from 0 (or *low*) up to *high*. */
export function ticks(low, high, most = 4) {
  const span = high - low || 1;
  const raw = span / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= raw * 0.999);
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high + step * 1e-6; n++) found.push(n * step);
  return found;
}

const points = (xs, ys) => xs.map((x, i) => `${x.toFixed(1)},${ys[i].toFixed(1)}`);

/** A line of *values* without axes, for a cell. */
export function spark(values, width = 96, height = 24) {
  const known = values.map((value) => value ?? 0);
  const top = Math.max(...known, 1);
  const xs = known.map((_, i) => (i / Math.max(1, known.length - 1)) * (width - 2) + 1);
  const ys = known.map((value) => height - 2 - (value / top) * (height - 4));
  const line = points(xs, ys).join(" ");
  return svg("svg", { class: "spark", width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    svg("polygon", { points: `1,${height} ${line} ${width - 1},${height}` }), svg("polyline", { points: line }));
}

/**
 * A chart in *host*. `show({kind, x, series, xText, yText})` draws; kind is "layers", "lines" or "bars"; a series has
 * name, values and colour (0 to 7). The pointer, or the arrow keys, read values off it.
 */
export class Chart {
  constructor(host, label) {
    this.host = host;
    this.label = label;
    this.at = null;
    this.tip = h("div", { class: "tip", hidden: true });
    this.said = h("p", { class: "hidden", role: "status" });
    host.tabIndex = 0;
    host.setAttribute("role", "group");
    host.addEventListener("pointermove", (event) => this.point(event));
    host.addEventListener("pointerleave", () => this.mark(null));
    host.addEventListener("blur", () => this.mark(null));
    host.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.shown && this.host.clientWidth !== this.width && this.draw()).observe(host);
  }

  show(shown) {
    this.shown = shown;
    this.draw();
  }

  draw() {
    const { kind, x, series, xText, yText = brief } = this.shown;
    this.width = this.host.clientWidth;
    const width = Math.max(200, this.width), height = this.host.clientHeight || 180;
    const stacked = kind === "layers";
    const sums = x.map((_, i) => series.reduce((sum, s) => sum + (s.values[i] ?? 0), 0));
    const all = stacked ? sums : series.flatMap((s) => s.values.filter((value) => value !== null));
    const low = Math.min(0, ...all), high = Math.max(...all, low + 1e-9, stacked ? 4 : -Infinity);
    const marks = ticks(low, high);
    const top = Math.max(high, marks.at(-1) ?? high);
    const y = (value) => height - BOTTOM - ((value - low) / (top - low)) * (height - BOTTOM - TOP);
    const inner = width - LEFT - RIGHT;
    this.px = kind === "bars" ? x.map((_, i) => LEFT + ((i + 0.5) / x.length) * inner) : this.places(x, inner);
    const parts = marks.map((n) => svg("g", {},
      svg("line", { class: n === 0 ? "base" : "grid", x1: LEFT, x2: width - RIGHT, y1: y(n), y2: y(n) }),
      svg("text", { x: LEFT - 8, y: y(n) + 4, "text-anchor": "end" }, yText(n))));
    parts.push(...this.below(x, xText, width, height));
    const below = x.map(() => 0), layers = [];
    series.forEach((s, order) => {
      if (kind === "bars") parts.push(...this.bars(s, order, series.length, y, inner));
      else if (stacked) {
        const lower = points(this.px, below.map(y)).reverse();
        s.values.forEach((value, i) => (below[i] += value ?? 0));
        const upper = points(this.px, below.map(y));
        layers.unshift(svg("g", { class: `c${s.colour}` },
          svg("polygon", { class: "area", points: [...upper, ...lower].join(" ") }),
          svg("polyline", { class: "line", points: upper.join(" ") })));
      } else parts.push(svg("path", { class: `line c${s.colour}`, d: path(this.px, s.values, y) }));
    });
    parts.push(...layers); // the lowest is drawn last: one without a share of its own hides behind it
    this.cross = svg("line", { class: "cross", y1: TOP, y2: height - BOTTOM, visibility: "hidden" });
    const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, parts, this.cross);
    this.host.setAttribute("aria-label", `${this.label}. Arrow keys read its values.`);
    this.host.replaceChildren(drawing, this.tip, this.said);
    if (this.at !== null) this.mark(Math.min(this.at, x.length - 1), false);
  }

  places(x, inner) {
    const first = x[0] ?? 0, span = (x.at(-1) ?? 1) - first || 1;
    return x.map((value) => LEFT + ((value - first) / span) * inner);
  }

  below(x, xText, width, height) {
    const most = Math.max(2, Math.floor(width / 110)), found = [];
    const step = Math.max(1, Math.ceil(x.length / most));
    for (let i = x.length - 1; i >= 0; i -= step) {
      const text = xText(x[i], i);
      if (this.px[i] - LEFT < 20 && i > 0) continue;
      const anchor = this.px[i] > width - 40 ? "end" : this.px[i] < LEFT + 20 ? "start" : "middle";
      found.push(svg("text", { x: this.px[i], y: height - 5, "text-anchor": anchor }, text.length > 16 ? `${text.slice(0, 15)}…` : text));
    }
    return found;
  }

  bars(series, order, all, y, inner) {
    const room = (inner / series.values.length) * 0.72, one = room / all;
    return series.values.map((value, i) => value === null ? null : svg("rect", {
      class: `bar c${series.colour}`, x: this.px[i] - room / 2 + order * one, width: Math.max(1, one - 1),
      y: Math.min(y(value), y(0)), height: Math.abs(y(value) - y(0)), rx: 2 })).filter(Boolean);
  }

  point(event) {
    const at = event.clientX - this.host.getBoundingClientRect().left;
    let best = 0;
    this.px?.forEach((x, i) => { if (Math.abs(x - at) < Math.abs(this.px[best] - at)) best = i; });
    if (this.px?.length) this.mark(best);
  }

  key(event) {
    const last = (this.px?.length ?? 0) - 1, at = this.at ?? last + 1;
    const to = { ArrowLeft: Math.max(0, at - 1), ArrowRight: Math.min(last, at + 1), Home: 0, End: last }[event.key];
    if (event.key === "Escape") this.mark(null);
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.mark(to);
    this.said.textContent = this.tip.textContent;
  }

  mark(at, moved = true) {
    this.at = at;
    this.tip.hidden = at === null;
    if (!this.cross) return;
    this.cross.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at === null) return;
    const { x, series, xText, yText = brief } = this.shown;
    const place = this.px[at];
    this.cross.setAttribute("x1", place);
    this.cross.setAttribute("x2", place);
    const lines = series.map((s) => h("div", {}, h("i", { class: `key c${s.colour}` }), ` ${s.name} `, h("b", {}, s.values[at] === null ? "–" : yText(s.values[at]))));
    this.tip.replaceChildren(h("div", { class: "when" }, xText(x[at], at)), ...lines.reverse());
    const right = place > this.host.clientWidth / 2;
    this.tip.style.left = right ? "auto" : `${place + 10}px`;
    this.tip.style.right = right ? `${this.host.clientWidth - place + 10}px` : "auto";
  }
}

function path(xs, values, y) {
  let pen = "M";
  return values.map((value, i) => {
    if (value === null) { pen = "M"; return ""; }
    const step = `${pen}${xs[i].toFixed(1)} ${y(value).toFixed(1)}`;
    pen = "L";
    return step;
  }).join("");
}
