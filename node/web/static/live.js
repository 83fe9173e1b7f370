// Every few seconds the page is asked for anew, and its live regions are put in place of those that are shown.
// Nothing is replaced while somebody is asked something or writes, nor while the page is not seen.
"use strict";
const busy = (region) =>
  region.querySelector("details.ask[open]") || (region.contains(document.activeElement) && document.activeElement.matches("input, select, button, summary"));
async function refresh() {
  const stale = document.getElementById("stale");
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href, { headers: { "X-Live": "1" }, redirect: "error", cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const region of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(region.id);
      if (other && !busy(region)) region.replaceWith(document.importNode(other, true));
    }
    if (stale) stale.hidden = true;
  } catch (error) {
    if (stale) stale.hidden = false;
  }
}
const seconds = Number(document.body.dataset.every || 0);
if (seconds > 0) setInterval(refresh, seconds * 1000);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") for (const one of document.querySelectorAll("details.ask[open]")) one.open = false;
});
document.addEventListener("click", (event) => {
  for (const one of document.querySelectorAll("details.ask[open]")) if (!one.contains(event.target)) one.open = false;
});
for (const choice of document.querySelectorAll("form.filter select")) choice.addEventListener("change", () => choice.form.submit());
