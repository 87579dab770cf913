// The live tail: makes the page ask for news, unless it is paused, hidden, or nobody has touched it for a while.
"use strict";

const LOOK_EVERY_MS = 2000;
const IDLE_AFTER_MS = 15 * 60 * 1000;
const MOST_ROWS = 400;

const button = document.getElementById("live-pause");
const state = document.getElementById("live-state");
let touchedAt = Date.now();
let isWaiting = false;

function isPaused() {
  return button.getAttribute("aria-pressed") === "true";
}

function pause(paused, words) {
  button.setAttribute("aria-pressed", String(paused));
  button.textContent = paused ? button.dataset.goOn : button.dataset.pause;
  state.textContent = words;
  state.classList.toggle("on", !paused);
}

button.addEventListener("click", () => {
  touchedAt = Date.now();
  const paused = !isPaused();
  pause(paused, paused ? state.dataset.off : state.dataset.on);
});

for (const name of ["pointermove", "keydown", "scroll"]) {
  document.addEventListener(
    name,
    () => {
      touchedAt = Date.now();
    },
    { passive: true },
  );
}

setInterval(() => {
  if (isPaused() || document.hidden || isWaiting) return;
  if (Date.now() - touchedAt > IDLE_AFTER_MS) {
    pause(true, state.dataset.idle);
    return;
  }
  htmx.trigger("#live-poll", "look");
}, LOOK_EVERY_MS);

document.addEventListener("htmx:beforeRequest", () => {
  isWaiting = true;
});

document.addEventListener("htmx:afterRequest", () => {
  isWaiting = false;
  const rows = document.getElementById("live-rows");
  while (rows.children.length > MOST_ROWS) rows.lastElementChild.remove();
});

button.hidden = false;
pause(false, state.dataset.on);
