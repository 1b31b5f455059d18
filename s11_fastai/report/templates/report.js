"use strict";
const root = document.documentElement;

// The values under the pointer, or under a cursor that the arrow keys move.
for (const figure of document.querySelectorAll(".chart")) {
  const svg = figure.querySelector("svg");
  const cursor = svg.querySelector(".cursor");
  const output = figure.querySelector("output");
  const lines = JSON.parse(figure.querySelector("script").textContent);
  let index = -1;
  const nearest = (line, x) =>
    line.at.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
  const show = (x) => {
    const shown = lines.filter((line) => !line.kind.startsWith("reference") || root.classList.contains("overlay"));
    const point = nearest(shown[0], x);
    index = shown[0].at.indexOf(point);
    cursor.setAttribute("x1", point[0]);
    cursor.setAttribute("x2", point[0]);
    cursor.removeAttribute("hidden");
    output.textContent = point[2] + ": " + shown.map((line) => line.name + " " + nearest(line, point[0])[3]).join(", ");
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    show(((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width);
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = lines[0].at;
    show(at[Math.min(Math.max(index + step, 0), at.length - 1)][0]);
  });
}

// The reference's log, remembered over reloads.
const overlay = document.getElementById("overlay");
if (overlay) {
  const key = "s11-overlay";
  const apply = () => root.classList.toggle("overlay", overlay.checked);
  try { overlay.checked = sessionStorage.getItem(key) === "1"; } catch { /* no storage for files */ }
  overlay.addEventListener("change", () => {
    apply();
    try { sessionStorage.setItem(key, overlay.checked ? "1" : "0"); } catch { /* likewise */ }
  });
  apply();
}

// Times by the reader's clock; while the run goes on, reload, and say when the updates have ended.
for (const time of document.querySelectorAll("time")) {
  time.textContent = new Date(time.dateTime * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}
if (root.dataset.state === "running") {
  const silent = Date.now() / 1000 - root.dataset.written;
  if (silent > 120 + 2.5 * root.dataset.pace) {
    const minutes = Math.round(silent / 60);
    const since = minutes < 90 ? minutes + " minutes" : Math.round(minutes / 60) + " hours";
    const status = document.getElementById("status");
    status.append(" There has been no update for " + since + ": the run has probably ended. To resume it: " + root.dataset.resume);
    status.parentElement.classList.add("stale");
  }
  setTimeout(() => location.reload(), 20000);
}
