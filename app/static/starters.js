// Example texts in the style of the model, for editors in which the user has not written anything.
(() => {
  const OFFERED = "lm.example";
  let latest = "", offered = lm.session(OFFERED) ?? ""; // for the Look inside tab, and what it shows
  let hint = "";

  const isUntouched = (text) => ["", offered].includes(text);

  // Show the latest example, unless it is shown already or the user has written something; returns whether it did.
  async function place() {
    const editor = document.querySelector("#inside-text textarea");
    if (!editor || !isUntouched(editor.value) || editor.value === latest) return false;
    offered = latest;
    lm.session(OFFERED, offered);
    await lm.fill(editor, latest);
    return true;
  }

  window.lmStarters = {
    isUntouched,
    // The text of the Look inside tab, which is being opened.
    text(text) {
      if (!isUntouched(text)) return text;
      setTimeout(place); // the editor may not be there yet
      return latest;
    },
    async offer(value) {
      if (!value) return;
      const placeholder = document.querySelector("#text textarea");
      const general = placeholder.placeholder.replace(`\n\n${hint}`, "");
      hint = value.hint;
      placeholder.placeholder = hint ? `${general}\n\n${hint}` : general;
      latest = value.text;
      const isNew = await place();
      if (isNew && document.querySelector("#inside").offsetParent) document.querySelector("#inside-look").click();
    },
  };
})();
