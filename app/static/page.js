// The page in the browser: keyboard shortcuts, colors behind the text, and what survives a reload.
(() => {
  const STORED_TEXT = "lm.text", STORED_SETTINGS = "lm.own";
  // Every style that affects where lines break.
  const MIRRORED_STYLES = [
    "font", "letterSpacing", "wordSpacing", "tabSize", "textIndent", "whiteSpace", "wordBreak", "overflowWrap",
    "lineBreak", "direction", "textAlign", "padding", "borderWidth",
  ];
  const editor = () => document.querySelector("#text textarea");
  const visible = (selector) => [...document.querySelectorAll(selector)].find((e) => e.offsetParent && !e.disabled);
  // levels: one digit per UTF-16 code unit, or a space for text that the model did not write.
  // copied: "c" for each code unit copied from the training text, else a space.
  let levels = "", copied = "";
  let lastText = "";
  let serverText = ""; // the text as the server last sent it
  let typed = false; // whether the user has edited that text
  let undone = 0; // edits that the user has undone in the browser
  let backdrop = null, followedTo = 0;

  // The colors are a copy of the text behind the textarea, of which only the backgrounds are visible.
  // Each line is an element of its own, so that only changed lines are painted again.
  function paint() {
    const text = editor();
    if (!text || !backdrop) return;
    const lines = text.value.split("\n");
    let start = 0;
    lines.forEach((line, number) => {
      const end = start + line.length;
      const marks = [levels.slice(start, end), copied.slice(start, end)];
      start = end + 1;
      const key = [line, ...marks].join("\n");
      const node = backdrop.children[number] ?? backdrop.appendChild(document.createElement("div"));
      if (node.key === key) return;
      node.key = key;
      node.replaceChildren(...runs(line, ...marks));
    });
    while (backdrop.children.length > lines.length) backdrop.lastChild.remove();
    const style = getComputedStyle(text);
    for (const name of MIRRORED_STYLES) backdrop.style[name] = style[name];
    // clientWidth excludes the scroll bar.
    const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
    backdrop.style.width = `${text.clientWidth - padding}px`;
    backdrop.style.height = `${text.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom)}px`;
    backdrop.scrollTop = text.scrollTop;
  }

  // A span for each run of characters with the same level that are all copied or all not copied.
  function runs(line, levels, copied) {
    const spans = [];
    for (let start = 0; start < line.length; ) {
      let end = start + 1;
      while (end < line.length && levels[end] === levels[start] && copied[end] === copied[start]) end++;
      const span = document.createElement("span");
      span.textContent = line.slice(start, end);
      if (levels[start]?.trim()) span.dataset.level = levels[start];
      if (copied[start] === "c") span.classList.add("copied");
      spans.push(span);
      start = end;
    }
    return spans;
  }

  function commonPrefix(a, b) {
    const limit = Math.min(a.length, b.length);
    let length = 0;
    while (length < limit && a[length] === b[length]) length++;
    return length;
  }

  function onInput(event) {
    const value = editor().value, unchanged = commonPrefix(value, lastText);
    levels = levels.slice(0, unchanged);
    copied = copied.slice(0, unchanged);
    lastText = value;
    typed = value !== serverText;
    if (event.inputType === "historyUndo") undone++;
    else if (event.inputType === "historyRedo") undone--;
    else undone = 0;
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
    // The browser undoes what was typed since the last generation; beyond that, the page undoes generations.
    else if (command && key === "z" && !event.shiftKey && !typed) press("#undo");
    else if (command && (key === "y" || (key === "z" && event.shiftKey)) && !undone) press("#redo");
  });

  window.lm = {
    setHighlights(value) {
      levels = value?.levels ?? "";
      copied = "";
      for (const [start, end] of value?.copied ?? []) copied = copied.padEnd(start) + "c".repeat(end - start);
      // The text arrives in the same update, before or after its colors.
      requestAnimationFrame(() => setTimeout(lm.textChanged));
    },
    textChanged() {
      const text = editor();
      if (!text) return;
      if (text.value !== lastText) {
        lastText = serverText = text.value;
        typed = false;
        undone = 0;
        localStorage.setItem(STORED_TEXT, lastText);
      }
      // Keep the end in view, unless the user has scrolled back.
      if (text.readOnly && text.scrollTop >= followedTo - 4)
        text.scrollTop = followedTo = text.scrollHeight - text.clientHeight;
      paint();
    },
    // The text is read-only while the model writes: the next update would overwrite what the user types.
    lock() {
      const text = editor();
      text.readOnly = true;
      text.scrollTop = followedTo = text.scrollHeight - text.clientHeight;
    },
    unlock() {
      editor().readOnly = false;
    },
    storedText: () => localStorage.getItem(STORED_TEXT) || "",
    storeCustomSettings: (values) => localStorage.setItem(STORED_SETTINGS, JSON.stringify(values)),
    customSettings(defaults) {
      try {
        const stored = JSON.parse(localStorage.getItem(STORED_SETTINGS));
        return stored.length === defaults.length ? stored : defaults;
      } catch {
        return defaults; // nothing stored, or nothing valid
      }
    },
  };
  // The language in which Gradio shows our texts.
  document.documentElement.lang = navigator.language.startsWith("zh") ? "zh" : "en";
  setUp();
})();
