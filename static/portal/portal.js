// What pages can do better with JavaScript. Each of them works without it.
"use strict";

// Times in the viewer's own zone, UTC on hover.
function localTimes(root) {
  const language = document.documentElement.lang || undefined;
  const parts = { month: "short", day: "numeric", hour: "numeric", minute: "2-digit", second: "2-digit" };
  const thisYear = new Intl.DateTimeFormat(language, parts);
  const otherYear = new Intl.DateTimeFormat(language, { year: "numeric", ...parts });
  const hour = new Intl.DateTimeFormat(language, {
    month: "short",
    day: "numeric",
    hour: "numeric",
    minute: "2-digit",
  });
  for (const time of root.querySelectorAll("time[datetime]:not([title])")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.title = time.textContent;
    const full = at.getFullYear() === new Date().getFullYear() ? thisYear : otherYear;
    time.textContent = (time.dataset.format === "hour" ? hour : full).format(at);
  }
}

// Buttons that copy what another element shows.
function copyButtons(root) {
  if (!navigator.clipboard) return;
  for (const button of root.querySelectorAll("button[data-copy]")) button.hidden = false;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const source = document.querySelector(button.dataset.copy);
  if (!source) return;
  const label = button.textContent;
  await navigator.clipboard.writeText(source.textContent);
  button.textContent = document.body.dataset.copied;
  setTimeout(() => {
    button.textContent = label;
  }, 1500);
});

// A search box that hides what does not match, and never what is ticked.
function searchBoxes(root) {
  for (const box of root.querySelectorAll("[data-filters]")) {
    const list = document.querySelector(box.dataset.filters);
    const input = box.querySelector("input");
    if (!list || !input) continue;
    box.hidden = false;
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      for (const item of list.querySelectorAll("[data-words]")) {
        const isTicked = item.querySelector("input")?.checked;
        item.hidden = !isTicked && !item.dataset.words.toLowerCase().includes(wanted);
      }
    });
    // Enter looks for, it does not send the form.
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") event.preventDefault();
    });
  }
}

function prepare(root) {
  localTimes(root);
  copyButtons(root);
  searchBoxes(root);
}

// On a phone the sections are more than fit: the one that is open is brought into view.
function showOpenSection() {
  const tabs = document.querySelector(".tabs");
  const open = tabs?.querySelector("[aria-current]");
  if (open) tabs.scrollLeft = open.offsetLeft - tabs.offsetLeft - (tabs.clientWidth - open.offsetWidth) / 2;
}

showOpenSection();
prepare(document);
document.addEventListener("htmx:load", (event) => prepare(event.detail.elt));
