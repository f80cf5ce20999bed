"use strict";
// What the page offers beyond reading: sorting, filtering, values under the pointer, finding an item, light and dark.
// Without this script everything is there to be read; controls that would do nothing stay hidden.
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
for (const tools of all(".tools")) tools.hidden = false;

// The number that a cell shows, however it is written: "1,270", "+0.0207", "< 0.001", "1.79 %", "[0.1, 0.2]".
const shown = (cell) => (cell.firstChild ? cell.firstChild.textContent : "").trim();
const number = (text) => {
  const found = text.replace(/,(?=\d{3})/g, "").match(/[-+]?(\d+\.?\d*(e[-+]?\d+)?|inf)/i);
  return found ? Number(found[0].replace(/inf/i, "Infinity")) : NaN;
};

const sort = (table, column, ascending) => {
  const numeric = table.tHead.rows[0].cells[column].classList.contains("n");
  const key = (row) => shown(row.cells[column]);
  const compare = (a, b) => {
    if (!numeric) return key(a).localeCompare(key(b), "en", { numeric: true });
    const [x, y] = [number(key(a)), number(key(b))];
    // Cells without a number come last either way.
    if (Number.isNaN(x) || Number.isNaN(y)) return (Number.isNaN(x) - Number.isNaN(y)) * (ascending ? 1 : -1);
    return x < y ? -1 : x > y ? 1 : 0;
  };
  const rows = [...table.tBodies[0].rows].sort(compare);
  if (!ascending) rows.reverse();
  table.tBodies[0].append(...rows);
};

for (const table of all("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const ascending = header.getAttribute("aria-sort") !== "ascending";
      for (const other of headers) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(table, column, ascending);
    });
  });
}

for (const input of all("input.filter")) {
  const table = document.getElementById(input.getAttribute("aria-controls"));
  const said = input.parentElement.querySelector("output");
  const filter = () => {
    const rows = [...table.tBodies[0].rows];
    const wanted = input.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    const left = rows.filter((row) => !row.hidden).length;
    said.textContent = wanted ? `${left} of ${rows.length} rows` : "";
  };
  input.addEventListener("input", filter);
}

// Browsers show a title after a second; the page shows it at once.
const tip = document.getElementById("tip");
const hide = () => { tip.hidden = true; };
for (const area of all("svg .tip")) {
  const title = area.querySelector("title");
  const text = title.textContent;
  title.remove();
  area.addEventListener("pointermove", (event) => {
    tip.textContent = text;
    tip.hidden = false;
    const x = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
    const below = event.clientY + 18;
    const y = below + tip.offsetHeight > window.innerHeight ? event.clientY - tip.offsetHeight - 10 : below;
    tip.style.left = `${Math.max(8, x)}px`;
    tip.style.top = `${y}px`;
  });
  area.addEventListener("pointerleave", hide);
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
document.addEventListener("scroll", hide, { passive: true });

// Enter goes to the next place that names the item, all of it or a part.
const find = document.getElementById("find");
if (!document.querySelector("[data-item]")) for (const part of [find, find.previousElementSibling]) part.hidden = true;
const foundSaid = document.getElementById("find-said");
let last = { text: "", index: -1 };
find.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !find.value.trim()) return;
  const wanted = find.value.trim().toLowerCase();
  const names = (item) => item.dataset.item.toLowerCase();
  // A figure for another width is there too, and not seen.
  const isSeen = (item) => item.getClientRects().length > 0;
  const named = all("[data-item]").filter((item) => isSeen(item) && names(item).includes(wanted));
  // An id that is meant whole comes before longer ones.
  named.sort((a, b) => (names(b) === wanted) - (names(a) === wanted));
  for (const item of all(".found")) item.classList.remove("found");
  if (!named.length) {
    foundSaid.textContent = "no item of that name on this page";
    return;
  }
  last = { text: wanted, index: last.text === wanted ? (last.index + 1) % named.length : 0 };
  const item = named[last.index];
  item.classList.add("found");
  item.scrollIntoView({ block: "center" });
  foundSaid.textContent = `${last.index + 1} of ${named.length}`;
});

const theme = document.getElementById("theme");
const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (systemDark.matches ? "dark" : "light")) === "dark";
const label = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  label();
});
systemDark.addEventListener("change", label);
label();
