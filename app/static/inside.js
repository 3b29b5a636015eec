// The Look inside tab: one box shows either the editor or the colored text.
(() => {
  const box = () => document.querySelector("#inside");
  const editor = () => document.querySelector("#inside-text textarea");

  window.lmInside = {
    position: 0, // of the current token in the text
    // Show the editor, with the caret where the current token begins.
    edit() {
      box().classList.add("editing");
      const view = document.querySelector("#inside-view .tokens"), text = editor();
      const before = [...view.children].slice(0, lmInside.position).map((token) => token.textContent).join("");
      const caret = Math.max(0, text.value.indexOf(view.textContent)) + before.length; // the view shows one page
      text.focus();
      text.setSelectionRange(caret, caret);
    },
    // Show the colored text, which has just been computed.
    look() {
      box().classList.remove("editing", "stale");
    },
    // Another model: analyze again if the text is in view, otherwise when it will be.
    refresh() {
      box().classList.add("stale");
      if (box().offsetParent && !box().classList.contains("editing")) document.querySelector("#inside-look").click();
    },
    // Dim a result that another unit, text or model would change, until it is computed again.
    outdate: (result) => document.querySelector(result)?.classList.add("stale"),
    renew(result) {
      document.querySelector(result).classList.remove("stale");
      return lm.bringIntoView(result);
    },
    // Put the text into the editor of the Write tab, as if it had been typed there: Ctrl+Z restores what it replaces.
    async write(text) {
      const target = document.querySelector("#text textarea");
      while (!target.offsetParent) await new Promise(requestAnimationFrame);
      if (target.value === text) return;
      target.focus();
      target.select();
      document.execCommand("insertText", false, text);
    },
    // Scroll to the section that answers a click, where it is below the text.
    async reveal() {
      const top = () => document.querySelector("#inside-sections").getBoundingClientRect().top;
      if (top() < window.innerHeight * 0.6) return;
      // The page is long enough to scroll when the section has its content.
      for (let tries = 0; tries < 20 && top() > 100; tries++) {
        document.querySelector("#inside-sections").scrollIntoView();
        await new Promise((done) => setTimeout(done, 50));
      }
    },
    // Move to another token of the text.
    move: (index) =>
      document.querySelector("#inside-view .tokens").dispatchEvent(new CustomEvent("lm:move", { bubbles: true, detail: index })),
  };

  document.addEventListener("lm:token", (event) => {
    if (event.target.closest("#inside-view")) lmInside.position = event.detail;
  });
  // What was computed from a text is stale as soon as the text changes.
  document.addEventListener("input", (event) => {
    if (event.target === editor()) box().classList.add("stale");
  });
})();
