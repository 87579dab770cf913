// The list of deliveries: tick all of a page at once, and see how many are ticked.
"use strict";

const all = document.getElementById("pick-all");

if (all) {
  const boxes = [...document.querySelectorAll(`input[name="${all.dataset.picks}"]`)];
  const count = document.getElementById("picked-count");
  const words = count.textContent;

  const tell = () => {
    const ticked = boxes.filter((box) => box.checked).length;
    all.checked = ticked === boxes.length;
    all.indeterminate = ticked > 0 && ticked < boxes.length;
    count.textContent = ticked ? `${ticked} ${count.dataset.words}` : words;
    for (const button of document.querySelectorAll(".picked button")) button.disabled = !ticked;
  };

  all.hidden = false;
  all.addEventListener("change", () => {
    for (const box of boxes) box.checked = all.checked;
    tell();
  });
  for (const box of boxes) box.addEventListener("change", tell);
  // A page that one comes back to may have kept its ticks.
  addEventListener("pageshow", tell);
  tell();
}
