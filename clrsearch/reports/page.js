"use strict";

const said = document.getElementById("said");

function selectAndCopy(element) {
  const selection = window.getSelection();
  selection.selectAllChildren(element);
  const copied = document.execCommand("copy");
  selection.removeAllRanges();
  return copied ? Promise.resolve() : Promise.reject();
}

function copy(element) {
  // a page that was opened over plain HTTP has no clipboard
  if (!navigator.clipboard) return selectAndCopy(element);
  return navigator.clipboard.writeText(element.textContent).catch(() => selectAndCopy(element));
}

for (const button of document.querySelectorAll("button.copy")) {
  const label = button.textContent;
  button.addEventListener("click", () => {
    const show = (text) => {
      button.textContent = text;
      said.textContent = text;
      setTimeout(() => { button.textContent = label; }, 2000);
    };
    copy(document.getElementById(button.dataset.of)).then(
      () => show("Copied"), () => show("Select the text and copy it"));
  });
}

function valueOf(row, column, numeric) {
  const cell = row.cells[column];
  const text = cell.dataset.v ?? cell.textContent;
  if (!numeric) return text;
  return text === "" ? NaN : Number(text);
}

function sortBy(table, header) {
  const headers = [...header.parentNode.cells];
  const column = headers.indexOf(header);
  const numeric = header.classList.contains("n");
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of headers) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const sign = descending ? -1 : 1;
  const keyed = [...table.tBodies[0].rows].map((row) => [valueOf(row, column, numeric), row]);
  keyed.sort(([a], [b]) => {
    if (!numeric) return sign * a.localeCompare(b);
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return sign * (a - b);
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
  said.textContent = `sorted by ${header.textContent}, ${header.getAttribute("aria-sort")}`;
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const button of table.querySelectorAll("thead button")) {
    button.addEventListener("click", () => sortBy(table, button.closest("th")));
  }
}
