"use strict";
// Draws the curves of the page from their data: axes, zoom, and the values under a cursor.

// What a person has chosen, kept while the page is loaded again and again during a run.
const MEMORY = "s11 " + location.pathname;
const chosen = { windows: {}, log: {}, off: {}, smoothing: null, overlay: false };
try { Object.assign(chosen, JSON.parse(sessionStorage.getItem(MEMORY))); } catch { /* no storage, or not ours */ }
const remember = () => {
  try { sessionStorage.setItem(MEMORY, JSON.stringify(chosen)); } catch { /* likewise */ }
};

const write = (value, { before, digits, after, significant }) =>
  before + (significant ? Number(value.toPrecision(digits)) : value.toFixed(digits)) + after;

const make = (parent, name, attributes, text) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
};

// From a value to its place and back.
function scale([low, high], start, end, log) {
  const f = log ? Math.log : Number, g = log ? Math.exp : Number;
  const span = f(high) - f(low) || 1;
  const to = (value) => start + ((f(value) - f(low)) / span) * (end - start);
  to.back = (place) => g(f(low) + ((place - start) / (end - start)) * span);
  return to;
}

function ticks([low, high], log, most, whole) {
  if (log) {
    const decades = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++) decades.push(e);
    for (const steps of [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 5], [1, 3], [1]]) {
      const found = decades
        .flatMap((e) => steps.map((s) => Number(`${s}e${e}`)))
        .filter((v) => v >= low && v <= high);
      if (found.length >= 3 && found.length <= most) return found;
    }
    if (high / low > 100) return decades.filter((_, i) => i % Math.ceil(decades.length / most) === 0).map((e) => 10 ** e).filter((v) => v >= low && v <= high);
  }
  const raw = (high - low) / most || 1, power = 10 ** Math.floor(Math.log10(raw));
  let step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  if (whole) step = Math.max(1, step);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

// Exponentially weighted means, without the pull of a beginning at zero.
function smoothed(values, weight) {
  let sum = 0, total = 0;
  return values.map((value) => {
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

const NOTHING_CHOSEN = "no value chosen; arrow keys read the curve";
const charts = [];

class Chart {
  constructor(figure) {
    this.figure = figure;
    this.key = figure.id;
    this.data = JSON.parse(figure.querySelector("script").textContent);
    this.group = this.data.x.name === "epoch" ? "epoch" : this.key;
    this.legend = this.data.legend || this.key;
    this.plot = figure.querySelector(".plot");
    this.values = figure.querySelector(".values");
    this.cursor = null;
    const xs = this.data.lines[0].x;
    this.whole = this.data.x.range ?? [xs[0], xs.at(-1)];
    if (this.whole[0] === this.whole[1]) this.whole = [this.whole[0] - 0.5, this.whole[1] + 0.5];
    this.addControls();
    this.addPointer();
    this.plot.addEventListener("keydown", (event) => this.onKey(event));
    this.plot.addEventListener("blur", () => hideCursors());
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  get log() { return chosen.log[this.key] ?? this.data.y.log; }

  // By itself, a mean of about a fiftieth of the points, at most of twenty.
  get smoothing() { return chosen.smoothing ?? Math.min(Math.max(0, 1 - 50 / this.data.lines[0].x.length), 0.95); }

  // The lines that are shown: at least one, whatever was switched off before the reference's went.
  get lines() {
    const off = chosen.off[this.legend] ?? [];
    const there = this.data.lines.filter((line) => chosen.overlay || !line.kind.startsWith("reference"));
    const on = there.filter((line) => !off.includes(line.kind));
    return on.length ? on : there;
  }

  // The part of the x axis that is shown.
  get window() {
    const [low, high] = this.whole, [from, to] = chosen.windows[this.group] ?? this.whole;
    return to > low && from < high ? [Math.max(from, low), Math.min(to, high)] : this.whole;
  }

  get zoomed() { return this.window[0] !== this.whole[0] || this.window[1] !== this.whole[1]; }

  zoom(window) {
    if (!window) delete chosen.windows[this.group];
    else if (window[1] > window[0]) chosen.windows[this.group] = window;
    redraw();
  }

  // Show this many times as much; the cursor stays where it is, or else the middle.
  zoomBy(factor) {
    const f = this.data.x.log ? Math.log : Number, g = this.data.x.log ? Math.exp : Number;
    const [from, to] = this.window.map(f), [low, high] = this.whole.map(f);
    const fixed = this.cursor === null ? (from + to) / 2 : f(this.cursor);
    const width = Math.min((to - from) * factor, high - low);
    const start = fixed - ((fixed - from) / (to - from)) * width;
    const begin = Math.min(Math.max(start, low), high - width);
    this.zoom(width === high - low ? null : [g(begin), g(begin + width)]);
  }

  addControls() {
    const log = this.figure.querySelector(".log");
    if (log) {
      log.checked = this.log;
      log.addEventListener("change", () => { chosen.log[this.key] = log.checked; redraw(); });
    }
    const smoothing = this.figure.querySelector(".smoothing");
    if (smoothing) {
      smoothing.value = this.smoothing;
      smoothing.addEventListener("input", () => { chosen.smoothing = Number(smoothing.value); redraw(); });
    }
    for (const button of this.figure.querySelectorAll(".legend button")) {
      button.addEventListener("click", () => {
        const off = new Set(chosen.off[this.legend] ?? []), kind = button.dataset.kind;
        if (off.has(kind)) off.delete(kind);
        else if (this.lines.length > 1) off.add(kind);
        chosen.off[this.legend] = [...off];
        redraw();
      });
    }
  }

  addPointer() {
    const at = (event) => event.clientX - this.plot.getBoundingClientRect().left;
    let start = null;
    this.plot.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch") this.show(this.toX.back(at(event)));
      else if (event.button === 0) {
        start = at(event);
        this.plot.setPointerCapture(event.pointerId);
      }
    });
    this.plot.addEventListener("pointermove", (event) => {
      this.show(this.toX.back(at(event)));
      this.drawBrush(start, at(event));
    });
    this.plot.addEventListener("pointerup", (event) => {
      const [from, to] = [start ?? at(event), at(event)].sort((a, b) => a - b).map(this.toX.back);
      const wide = start !== null && Math.abs(at(event) - start) > 8;
      start = null;
      this.drawBrush(null);
      const round = this.group === "epoch" && to - from > 3 ? Math.round : Number;
      if (wide) this.zoom([Math.max(round(from), this.window[0]), Math.min(round(to), this.window[1])]);
    });
    this.plot.addEventListener("pointercancel", () => { start = null; this.drawBrush(null); hideCursors(); });
    this.plot.addEventListener("pointerleave", (event) => {
      // A finger that is lifted leaves its values to be read.
      if (event.pointerType !== "touch") hideCursors();
    });
    this.plot.addEventListener("dblclick", () => this.zoom(null));
  }

  onKey(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const xs = this.guide.map((point) => point[0]);
    const index = this.cursor === null ? -1 : xs.reduce((best, x, i) => (Math.abs(x - this.cursor) < Math.abs(xs[best] - this.cursor) ? i : best), 0);
    const step = Math.max(1, Math.round(xs.length / 100));
    const to_index = {
      ArrowLeft: index - step, ArrowDown: index - step, ArrowRight: index < 0 ? 0 : index + step, ArrowUp: index < 0 ? 0 : index + step,
      PageDown: index - 10 * step, PageUp: index + 10 * step, Home: 0, End: xs.length - 1,
    }[event.key];
    if (to_index !== undefined) this.show(xs[Math.min(Math.max(to_index, 0), xs.length - 1)]);
    else if (event.key === "+" || event.key === "=") this.zoomBy(0.5);
    else if (event.key === "-") this.zoomBy(2);
    else if (event.key === "0") this.zoom(null);
    else if (event.key === "Escape") hideCursors();
    else return;
    event.preventDefault();
  }

  // What is drawn: of each line its points within the window and one beyond each end; of a mean the
  // runs as well.
  get shown() {
    const [from, to] = this.window;
    return this.lines.flatMap((line) => {
      const part = (ys) => line.x.map((x, i) => [x, ys[i], line.deviation?.[i]]).filter((_, i) =>
        (line.x[i + 1] ?? Infinity) >= from && (line.x[i - 1] ?? -Infinity) <= to);
      const own = { ...line, points: part(line.y) };
      return this.data.smooth
        ? [{ ...own, faint: true }, { ...line, name: "smoothed", points: part(smoothed(line.y, this.smoothing)) }]
        : [...(line.runs ?? []).map((ys) => ({ ...line, faint: true, run: true, points: part(ys) })), own];
    });
  }

  // Where the curves are read: at the points of the line that goes farthest.
  get guide() {
    const { shown } = this, own = shown.filter((line) => !line.kind.startsWith("reference"));
    const farthest = (best, line) => (line.x.at(-1) > best.x.at(-1) ? line : best);
    return (own.length ? own : shown).reduce(farthest).points;
  }

  // The range of the y axis: of all that is shown, but for outliers, which stand at its edge.
  yRange(shown) {
    const { range } = this.data.y, { cap } = this.data, [from, to] = this.window, log = this.log;
    if (range && !this.zoomed) return range;
    const inside = (line) => line.points.filter(([x, y]) => x >= from && x <= to && (!log || y > 0)).map((p) => p[1]);
    const values = shown.flatMap(inside);
    if (!values.length) values.push(...shown.flatMap((line) => line.points.map((p) => p[1])));
    for (const mark of this.data.marks) if (mark.kind === "target" && !this.zoomed) values.push(mark.at);
    let low = Math.min(...values), high = Math.max(...values);
    const train = shown.filter((line) => cap && line.kind === "train").flatMap(inside);
    if (train.length && !log) high = Math.min(high, 1.5 * Math.max(...train));
    if (log && !(low > 0)) return [0.1, 1];
    if (log) return low === high ? [low / 1.5, high * 1.5] : [low / (high / low) ** 0.05, high * (high / low) ** 0.05];
    if (low === high) return [low - 0.5, high + 0.5];
    const room = (high - low) * 0.05;
    return [low >= 0 && low < 0.3 * high ? 0 : low - room, high + room];
  }

  draw() {
    const width = this.plot.clientWidth;
    if (!width) return;
    const height = Math.round(Math.max(210, Math.min(width * 0.52, 340)));
    const shown = this.shown, range = this.yRange(shown);
    this.dotted = !this.data.smooth && shown.reduce((n, line) => n + line.points.length, 0) <= 120;
    const box = { left: 52, right: width - 12, top: this.data.marks.some((mark) => mark.axis === "x") ? 38 : 22, bottom: height - 38 };
    this.box = box;
    this.toX = scale(this.window, box.left, box.right, this.data.x.log);
    this.toY = scale(range, box.bottom, box.top, this.log);
    const svg = make(document.createDocumentFragment(), "svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    this.drawAxes(svg, range, width, height);
    const clip = `${this.key}-box`;
    const path = make(svg, "clipPath", { id: clip });
    make(path, "rect", { x: box.left - 3, y: box.top - 3, width: box.right - box.left + 6, height: box.bottom - box.top + 6 });
    const inside = make(svg, "g", { "clip-path": `url(#${clip})` });
    for (const faint of [true, false]) for (const line of shown) if (Boolean(line.faint) === faint) this.drawLine(inside, line);
    for (const mark of this.data.marks) this.drawMark(svg, mark, range);
    // Of an axis whose range is given, the words below the picture say where the line goes.
    if (!this.data.y.range) for (const line of shown) if (!line.faint) this.drawOutliers(svg, line, range);
    this.brush = make(svg, "rect", { class: "brush", y: box.top, height: box.bottom - box.top, width: 0, visibility: "hidden" });
    this.overlay = make(svg, "g", { class: "cursor" });
    this.plot.replaceChildren(svg);
    this.drawLegend();
    const { cursor } = this;
    this.hide();
    if (cursor >= this.window[0] && cursor <= this.window[1] && cursor !== null) this.showHere(cursor);
    this.tell();
  }

  place(y) {
    const value = this.log && y <= 0 ? this.box.bottom + 40 : this.toY(y);
    return Math.round(Math.min(Math.max(value, -1e4), 1e4) * 10) / 10;
  }

  drawAxes(svg, range, width, height) {
    const { left, right, top, bottom } = this.box;
    for (const value of ticks(range, this.log, 6)) {
      const y = this.place(value);
      make(svg, "line", { class: "grid", x1: left, x2: right, y1: y, y2: y });
      make(svg, "text", { x: left - 6, y: y + 4, "text-anchor": "end" }, String(value));
    }
    for (const value of ticks(this.window, this.data.x.log, Math.max(4, Math.round(width / 75)), this.group === "epoch" && this.window[1] - this.window[0] > 2)) {
      make(svg, "text", { x: this.toX(value), y: bottom + 17, "text-anchor": "middle" }, String(value));
    }
    make(svg, "text", { x: (left + right) / 2, y: height - 4, "text-anchor": "middle" }, this.data.x.name);
    make(svg, "text", { x: 2, y: 11 }, this.data.y.name);
  }

  drawLine(parent, line) {
    const points = line.points.map(([x, y]) => [Math.round(this.toX(x) * 10) / 10, this.place(y)]);
    const kind = line.kind + (line.faint ? " faint" : "");
    make(parent, "polyline", { class: `line ${kind}`, points: points.join(" ") });
    if (this.dotted || points.length === 1) for (const [cx, cy] of points) make(parent, "circle", { class: kind, cx, cy, r: 2.6 });
  }

  drawMark(svg, { axis, at, y, label, kind }, range) {
    const { left, right, top, bottom } = this.box, [from, to] = this.window;
    const inX = at >= from && at <= to;
    if (axis === "y" && at >= range[0] && at <= range[1]) {
      const place = this.place(at);
      make(svg, "line", { class: `mark ${kind}`, x1: left, x2: right, y1: place, y2: place });
      make(svg, "text", { class: `mark ${kind}`, x: left + 4, y: place - 5 }, label);
    } else if (axis === "x" && inX) {
      // Above the picture; the left one's name stands left of it, the other's right of it.
      const place = this.toX(at), others = this.data.marks.filter((m) => m.axis === "x" && m.at < at).map((m) => this.toX(m.at));
      const room = 7.6 * label.length, right_of = others.length ? right - place > room : place - left < room;
      const crowded = !right_of && others.some((other) => place - room < other + 14);
      make(svg, "line", { class: `mark ${kind}`, x1: place, x2: place, y1: top - (crowded ? 0 : 14), y2: bottom });
      make(svg, "text", { class: `mark ${kind}`, x: place + (right_of ? 5 : -5), y: top + (crowded ? 12 : -4), "text-anchor": right_of ? "start" : "end" }, label);
    } else if (axis === "point" && inX && this.lines.some((line) => line.kind === "valid")) {
      make(svg, "circle", { class: `ring ${kind}`, cx: this.toX(at), cy: Math.min(this.place(y), bottom), r: 6 });
    }
  }

  // Where a line leaves the picture, an arrow at the edge and the farthest value.
  drawOutliers(svg, line, [low, high]) {
    const [from, to] = this.window, side = (y) => (y > high ? 1 : y < low || (this.log && y <= 0) ? -1 : 0);
    let run = null;
    const end = () => {
      if (!run) return;
      const x = this.toX(run.x), up = run.side > 0, edge = up ? this.box.top : this.box.bottom;
      const anchor = this.box.right - x < 60 ? "end" : "start";
      make(svg, "path", { class: line.kind, d: `M${x} ${edge}l-5 ${up ? 9 : -9}h10z` });
      make(svg, "text", { class: `mark ${line.kind}`, x: x + (anchor === "end" ? -8 : 8), y: up ? edge + 9 : edge - 3, "text-anchor": anchor }, write(run.y, this.data.y.text));
      run = null;
    };
    for (const [x, y] of line.points) {
      const own = x >= from && x <= to ? side(y) : 0;
      if (run && own !== run.side) end();
      if (own && (!run || own * y > own * run.y)) run = { x, y, side: own };
    }
    end();
  }

  drawLegend() {
    const off = chosen.off[this.legend] ?? [];
    for (const button of this.figure.querySelectorAll(".legend button")) {
      const line = this.data.lines.find((each) => each.kind === button.dataset.kind);
      button.hidden = line.kind.startsWith("reference") && !chosen.overlay;
      button.setAttribute("aria-pressed", String(!off.includes(line.kind)));
    }
  }

  drawBrush(start, end) {
    const shown = start !== null && Math.abs(end - start) > 8;
    this.brush.setAttribute("visibility", shown ? "visible" : "hidden");
    if (!shown) return;
    this.brush.setAttribute("x", Math.max(Math.min(start, end), this.box.left));
    this.brush.setAttribute("width", Math.abs(end - start));
  }

  // The values at x here, and a cursor in the other pictures that share the axis.
  show(x) {
    for (const chart of charts) if (chart.group === this.group) chart.showHere(x);
    this.tell();
  }

  // What is read aloud: the values at the cursor, and where it is among the points that are shown.
  tell() {
    const { guide } = this, index = guide.findIndex(([x]) => x === this.cursor);
    this.plot.setAttribute("aria-valuemax", Math.max(guide.length - 1, 1));
    this.plot.setAttribute("aria-valuenow", Math.max(index, 0));
    this.plot.setAttribute("aria-valuetext", index < 0 ? NOTHING_CHOSEN : this.values.textContent);
  }

  showHere(x) {
    if (!this.toX) return;
    const nearest = (points, x) => points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
    const [at] = nearest(this.guide, x);
    // A line that begins later or has ended has no value here.
    const there = this.shown.filter((line) => line.x[0] <= at && at <= line.x.at(-1));
    const found = there.map((line) => [line, ...nearest(line.points, at)]);
    const { top, bottom } = this.box;
    const place = this.toX(at);
    this.cursor = at;
    this.overlay.replaceChildren();
    make(this.overlay, "line", { x1: place, x2: place, y1: top, y2: bottom });
    for (const [line, px, py] of found) make(this.overlay, "circle", { class: line.kind, cx: this.toX(px), cy: Math.max(top, Math.min(this.place(py), bottom)), r: line.run ? 2.5 : 4 });
    const words = found.filter(([line]) => !line.run).map(([line, , y, deviation]) =>
      `${line.name}${line.name.length > 1 ? " " : "\u00a0"}${write(y, this.data.y.text)}` + (deviation ? `\u00a0±\u00a0${write(deviation, this.data.y.text)}` : ""));
    this.values.textContent = `${write(at, this.data.x.text)}: ${words.join(", ")}`;
  }

  hide() {
    this.cursor = null;
    this.overlay?.replaceChildren();
    this.values.textContent = "";
  }
}

function hideCursors() {
  for (const chart of charts) {
    chart.hide();
    chart.tell();
  }
}

// Above the curves: which epochs, and whether the reference's log is shown.
const from = document.getElementById("from"), to = document.getElementById("to");
const overlay = document.getElementById("overlay");

function redraw() {
  remember();
  const epochs = charts.find((chart) => chart.group === "epoch");
  if (epochs && from) [from.value, to.value] = epochs.window.map((epoch) => Number(epoch.toFixed(2)));
  for (const chart of charts) chart.draw();
}

for (const figure of document.querySelectorAll(".chart")) charts.push(new Chart(figure));
if (from) {
  const zoom = (window) => charts.find((chart) => chart.group === "epoch").zoom(window);
  for (const input of [from, to]) input.addEventListener("change", () => zoom([from.valueAsNumber, to.valueAsNumber]));
  document.getElementById("last").addEventListener("click", (event) => zoom(event.target.dataset.window.split(" ").map(Number)));
  document.getElementById("all").addEventListener("click", () => zoom(null));
}
if (overlay) {
  overlay.checked = chosen.overlay;
  overlay.addEventListener("change", () => { chosen.overlay = overlay.checked; redraw(); });
}
document.addEventListener("pointerdown", (event) => { if (!event.target.closest(".plot")) hideCursors(); });
redraw();
