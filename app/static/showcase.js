// The showcase below the title, which is open on a first visit until the visitor closes it or turns to something else.
(() => {
  const STORED = "lm.showcase", root = document.documentElement;
  const isOpen = () => root.classList.contains("showcase-open");
  let ask = () => {}; // asks the server for an exhibit by its number
  let heading = null, text = "", number = 0;

  function stored() {
    try {
      return localStorage.getItem(STORED);
    } catch {
      return null; // the browser refuses storage
    }
  }
  function open(value) {
    root.classList.toggle("showcase-open", value);
    try {
      localStorage.setItem(STORED, value ? "open" : "closed");
    } catch {}
  }
  function request(index) {
    number = index;
    ask(number);
  }

  window.lmShowcase = {
    setUp(element, trigger) {
      heading = element;
      ask = trigger;
    },
    show(value) {
      if (!value) return; // not asked yet
      root.classList.toggle("showcase-open", isOpen() && Boolean(value.heading));
      heading.querySelector("h2").textContent = value.heading;
      heading.querySelector("p").textContent = value.note;
      text = value.text;
      document.querySelector("#showcase-another").disabled = !value.more;
    },
    refresh() {
      if (isOpen()) request(0);
    },
    another: () => request(number + 1),
    open() {
      open(true);
      request(0);
      document.querySelector("#showcase-close").focus();
    },
    close() {
      open(false);
      document.querySelector("#showcase-link").focus();
    },
    // Continue the text in the Write tab, in a document of its own.
    async write() {
      open(false);
      document.querySelector("#tabs [role=tab]").click();
      const editor = document.querySelector("#text textarea");
      if (editor.value) await lm.documentActions.create();
      if (editor.value) return; // the model is still writing there
      await lm.fill(editor, text);
      document.querySelector("#generate").click();
    },
  };

  // It makes room for whatever the visitor turns to.
  const elsewhere = "#generate, #tour button, #tabs [role=tab], #tabs .overflow-dropdown button";
  document.addEventListener("click", ({ target }) => isOpen() && target.closest?.(elsewhere) && open(false), true);
  if (stored() !== "closed") root.classList.add("showcase-open");
})();
