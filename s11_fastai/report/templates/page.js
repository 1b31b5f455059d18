"use strict";
const root = document.documentElement;

// Times by the reader's clock.
for (const time of document.querySelectorAll("time")) {
  time.textContent = new Date(time.dateTime).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

// Escape closes a picture that is open large.
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.querySelector("figure:target .close")?.click();
});

// While the run goes on: load the page again, at the same place, and say when the updates have ended.
if (root.dataset.state === "running") {
  const silent = Date.now() / 1000 - root.dataset.written;
  // The page is written after each epoch: how long the first one takes is not known yet.
  const patience = Number(root.dataset.pace) ? 120 + 2.5 * root.dataset.pace : 3600;
  if (silent > patience) {
    const minutes = Math.round(silent / 60);
    const since = minutes < 90 ? minutes + " minutes" : Math.round(minutes / 60) + " hours";
    const status = document.getElementById("status");
    status.append(" There has been no update for " + since + ": the run has probably ended. To resume it: " + root.dataset.resume);
    status.parentElement.classList.add("stale");
  }
  try {
    document.getElementById(sessionStorage.getItem("s11 focus"))?.focus({ preventScroll: true });
    sessionStorage.removeItem("s11 focus");
  } catch { /* no storage for files */ }
  let typing = false;
  document.addEventListener("input", (event) => { typing = event.target.type === "number"; });
  document.addEventListener("change", () => { typing = false; });
  const again = () => {
    if (typing || document.querySelector(".plot:active, input:active")) return setTimeout(again, 5000);
    try { sessionStorage.setItem("s11 focus", document.activeElement.id); } catch { /* likewise */ }
    location.reload();
  };
  setTimeout(again, 20000);
}
