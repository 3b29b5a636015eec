// The Train tab: files and texts that are dropped or pasted anywhere, and progress in the browser's title.
(() => {
  let pageTitle = null; // Gradio sets it after this script
  let running = null; // the id of the job whose progress the title shows
  const tab = () => [document.getElementById("train")].find((element) => element?.offsetParent);
  const editable = (target) => target.closest?.("input, textarea, [contenteditable]");

  function take({ files, text }) {
    if (files.length) {
      const chosen = new DataTransfer(), input = tab().querySelector("input[type=file]");
      chosen.items.add(files[0]);
      input.files = chosen.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    } else if (text.trim()) {
      const field = tab().querySelector("#train-paste textarea");
      lm.fill(field, text).then(() => { field.focus(); field.blur(); });
    }
  }

  const taken = (data) => ({ files: data?.files ?? [], text: data?.getData("text/plain") ?? "" });

  document.addEventListener("dragover", (event) => {
    if (!tab() || (editable(event.target) && !event.dataTransfer.types.includes("Files"))) return;
    event.preventDefault();
    tab().classList.add("dropping");
  });
  for (const end of ["dragleave", "drop"])
    document.addEventListener(end, () => tab()?.classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    const data = taken(event.dataTransfer);
    if (!tab() || (editable(event.target) && !data.files.length)) return;
    event.preventDefault();
    take(data);
  });
  document.addEventListener("paste", (event) => {
    if (!tab() || editable(event.target)) return;
    event.preventDefault();
    take(taken(event.clipboardData));
  });

  // The title says how a training ended until the user returns to the page.
  for (const event of ["pointerdown", "keydown"])
    document.addEventListener(event, () => {
      if (!running && pageTitle !== null) document.title = pageTitle;
    });

  window.lmTrain = {
    showInTitle({ job, active, title } = {}) {
      if (active) pageTitle ??= document.title;
      if (active || (job && job === running)) document.title = title;
      else if (running) document.title = pageTitle;
      running = active ? job : null;
    },
    // Press the button whose question has been answered.
    pressAgain() {
      document.getElementById(document.querySelector("#train-question [data-button]").dataset.button).click();
    },
  };
})();
