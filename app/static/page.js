// What the page does in the browser: keys, the colours behind the text, and what survives a reload.
(() => {
  const STORED_TEXT = "lm.text", STORED_OWN = "lm.own";
  // Whatever decides where a line is broken.
  const LIKE_THE_TEXT = [
    "font", "letterSpacing", "wordSpacing", "tabSize", "textIndent", "whiteSpace", "wordBreak", "overflowWrap",
    "lineBreak", "direction", "textAlign", "padding", "borderWidth",
  ];
  const editor = () => document.querySelector("#text textarea");
  const visible = (selector) => [...document.querySelectorAll(selector)].find((e) => e.offsetParent && !e.disabled);
  let levels = "", last = "", typed = false, undone = 0, backdrop = null, followed = 0;

  // The colours: a copy of the text behind the textarea, of which only the backgrounds are seen.
  // Each line is an element of its own, so that only lines that have changed are painted anew.
  function paint() {
    const text = editor();
    if (!text || !backdrop) return;
    const lines = text.value.split("\n");
    let at = 0;
    lines.forEach((line, number) => {
      const marks = levels.slice(at, at + line.length);
      at += line.length + 1;
      const key = `${line}\n${marks}`;
      let node = backdrop.children[number];
      if (!node) node = backdrop.appendChild(document.createElement("div"));
      if (node.key === key) return;
      node.key = key;
      node.replaceChildren(...runs(line, marks));
    });
    while (backdrop.children.length > lines.length) backdrop.lastChild.remove();
    const style = getComputedStyle(text);
    for (const name of LIKE_THE_TEXT) backdrop.style[name] = style[name];
    // The text ends where its scroll bar begins.
    const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
    backdrop.style.width = `${text.clientWidth - padding}px`;
    backdrop.style.height = `${text.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom)}px`;
    backdrop.scrollTop = text.scrollTop;
  }

  function runs(line, marks) {
    const parts = [];
    for (let start = 0; start < line.length; ) {
      let end = start + 1;
      while (end < line.length && marks[end] === marks[start]) end++;
      const run = document.createElement("span");
      run.textContent = line.slice(start, end);
      const level = marks[start] && marks[start] !== " " ? marks.charCodeAt(start) : 0;
      // Letters are the digits of what is copied from the training text.
      if (level) run.dataset.level = level >= 97 ? level - 97 : level - 48;
      if (level >= 97) run.classList.add("copied");
      parts.push(run);
      start = end;
    }
    return parts;
  }

  function commonPrefix(a, b) {
    const most = Math.min(a.length, b.length);
    let at = 0;
    while (at < most && a[at] === b[at]) at++;
    return at;
  }

  function onInput(event) {
    const value = editor().value;
    levels = levels.slice(0, commonPrefix(value, last));
    last = value;
    typed = true;
    if (event.inputType === "historyUndo") undone++;
    else if (event.inputType === "historyRedo") undone--;
    else undone = 0;
    if (value === lm.told) typed = false;
    localStorage.setItem(STORED_TEXT, value);
    paint();
  }

  function setUp() {
    const text = editor();
    if (!text) return setTimeout(setUp, 50);
    backdrop = document.createElement("div");
    backdrop.id = "backdrop";
    backdrop.setAttribute("aria-hidden", "true");
    text.before(backdrop);
    text.addEventListener("input", onInput);
    text.addEventListener("scroll", () => (backdrop.scrollTop = text.scrollTop));
    text.addEventListener("click", () => {
      if (text.selectionStart === text.selectionEnd && text.value) lm.askAtCaret();
    });
    new ResizeObserver(paint).observe(text);
    paint();
  }

  document.addEventListener("keydown", (event) => {
    const command = event.ctrlKey || event.metaKey, key = event.key.toLowerCase();
    const press = (selector) => {
      const button = visible(selector);
      if (button) event.preventDefault();
      button?.click();
    };
    if (command && key === "enter") press(".lm-go");
    else if (key === "escape") press(".lm-stop");
    else if (event.target !== editor()) return;
    else if (command && key === " ") { event.preventDefault(); lm.askAtCaret(); }
    // The browser takes back what was typed; before that, the page takes back what was written.
    else if (command && key === "z" && !event.shiftKey && !typed) press("#undo");
    else if (command && (key === "y" || (key === "z" && event.shiftKey)) && !undone) press("#redo");
  });

  window.lm = {
    told: "", // the text as the server last told it
    ask: () => {}, // set by the component that knows how to ask the server
    askAtCaret() {
      const text = editor();
      if (!text.readOnly) lm.ask(text.selectionStart);
    },
    // Called with every part of the text: its colours have arrived.
    levels(value) {
      levels = value || "";
      // The text itself arrives in the same moment, before or after.
      requestAnimationFrame(() => setTimeout(lm.changed));
    },
    changed() {
      const text = editor();
      if (!text) return;
      if (text.value !== last) {
        last = lm.told = text.value;
        typed = false;
        undone = 0;
        localStorage.setItem(STORED_TEXT, last);
      }
      // Show the end, unless the person has scrolled back to read.
      if (text.readOnly && text.scrollTop >= followed - 4)
        text.scrollTop = followed = text.scrollHeight - text.clientHeight;
      paint();
    },
    // Before the server answers: what a person typed while the model writes would be lost with its
    // next words, so the text can only be read until it has ended.
    begin() {
      const text = editor();
      text.readOnly = true;
      text.scrollTop = followed = text.scrollHeight - text.clientHeight;
    },
    end() {
      editor().readOnly = false;
    },
    storedText: () => localStorage.getItem(STORED_TEXT) || "",
    keepOwn: (values) => localStorage.setItem(STORED_OWN, JSON.stringify(values)),
    own(usual) {
      try {
        const kept = JSON.parse(localStorage.getItem(STORED_OWN));
        return kept.length === usual.length ? kept : usual;
      } catch {
        return usual; // nothing was kept, or nothing of ours
      }
    },
  };
  // The language in which Gradio shows our texts.
  document.documentElement.lang = navigator.language.startsWith("zh") ? "zh" : "en";
  setUp();
})();
