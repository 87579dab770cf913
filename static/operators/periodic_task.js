// The form of a periodic task: says in words what the chosen crontab means. In a file, as the pages' policy wants it.
(() => {
  const translations = JSON.parse(document.getElementById("readable-crontabs").textContent);
  const select = document.getElementById("id_crontab");
  const help = document.querySelector(".field-crontab .help");
  const row = document.querySelector(".field-crontab_translation");
  if (!select || !help) {
    return;
  }
  if (row) {
    row.hidden = true;
  }
  const original = help.textContent.trim();
  const show = () => {
    const words = translations[select.value];
    help.textContent = words ? `${original} ${words}` : original;
  };
  select.addEventListener("change", show);
  show();
})();
