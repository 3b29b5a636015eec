// The page in the browser: keyboard shortcuts, messages, and texts in both languages.
(() => {
  const STORED_SETTINGS = "lm.own";
  const MESSAGE_MS = 20_000;
  const { editor } = lm;
  const visible = (selector) => [...document.querySelectorAll(selector)].find((e) => e.checkVisibility() && !e.disabled);

  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog:modal")) return; // the list of documents covers the page
    const command = event.ctrlKey || event.metaKey, key = event.key.toLowerCase();
    const press = (selector) => {
      const button = visible(selector);
      if (button) event.preventDefault();
      button?.click();
    };
    if (command && key === "enter") press(".lm-go");
    else if (key === "escape") press(".lm-stop");
    else if (event.target !== editor.area()) return;
    // The browser undoes what was typed since the last generation; beyond that, the page undoes generations.
    else if (command && key === "z" && !event.shiftKey && !editor.isEdited) press("#undo");
    else if (command && (key === "y" || (key === "z" && event.shiftKey)) && !editor.hasUndone) press("#redo");
  });

  const notes = () => document.querySelectorAll("#document-note p");
  const restored = new Set(); // the forms that have been filled in after the page was loaded
  let forgotten = 0; // a timer

  const isChinese = navigator.language.startsWith("zh");
  // The language in which Gradio shows our texts.
  document.documentElement.lang = isChinese ? "zh" : "en";

  Object.assign(lm, {
    // A text of app/ui/translations/browser.json in the user's language; {names} are replaced with values.
    translate(english, values = {}) {
      const text = (isChinese && lm.chinese[english]) || english;
      return text.replace(/\{(\w+)\}/g, (field, name) => values[name] ?? field);
    },
    // An element with these properties and children, which can be texts.
    make(tag, properties = {}, ...children) {
      const node = Object.assign(document.createElement(tag), properties);
      node.append(...children);
      return node;
    },
    // Let the browser save a file.
    save(blob, name) {
      const link = lm.make("a", { href: URL.createObjectURL(blob), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    },
    // The text of a file in UTF-8, or in UTF-16 with a byte-order mark; null if it is in another encoding.
    // With `isPart`, it may end within a character.
    async decoded(blob, isPart = false) {
      const bytes = new Uint8Array(await blob.arrayBuffer());
      const encoding = { "255 254": "utf-16le", "254 255": "utf-16be" }[bytes.slice(0, 2).join(" ")] ?? "utf-8";
      try {
        return new TextDecoder(encoding, { fatal: true }).decode(bytes, { stream: isPart });
      } catch {
        return null;
      }
    },
    // Fill in a field, and wait until Gradio has processed the event.
    async fill(field, text) {
      field.value = text;
      field.dispatchEvent(new Event("input", { bubbles: true }));
      await new Promise((done) => setTimeout(done, 50));
    },
    // Scroll as little as possible to show an element that Gradio is about to draw.
    async bringIntoView(selector) {
      for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame); // until it is drawn
      document.querySelector(selector).scrollIntoView({ block: "nearest" });
    },
    // Scroll to the first of these elements that is shown, unless it is in view. Gradio may take a moment to show it.
    reveal(...ids) {
      const deadline = Date.now() + 2000;
      const look = () => {
        const element = ids.map((id) => document.getElementById(id)).find((one) => one?.offsetHeight);
        if (!element) return Date.now() < deadline && setTimeout(look, 50);
        const { top } = element.getBoundingClientRect();
        if (top < 0 || top > innerHeight / 2) element.scrollIntoView({ block: "start" });
      };
      setTimeout(look, 50);
    },
    // Show a message about the document for some time.
    say(text) {
      const note = notes()[0];
      if (!note) return setTimeout(lm.say, 100, text);
      note.textContent = text;
      clearTimeout(forgotten);
      forgotten = setTimeout(() => (note.textContent = ""), MESSAGE_MS);
    },
    // Show a message with a button, until it is called without arguments.
    offer(text, label, action) {
      const note = notes()[1];
      note?.replaceChildren();
      if (!text) return;
      note.append(`${text} `, lm.make("button", { type: "button", onclick: action }, label));
    },
    // A value that survives a reload of this tab of the browser: store it, or without one return what was stored.
    session(name, value) {
      try {
        if (value === undefined) return JSON.parse(sessionStorage.getItem(name));
        sessionStorage.setItem(name, JSON.stringify(value));
      } catch {} // the browser refuses storage, or it is full
      return null;
    },
    // Keep the values of a form until this tab of the browser is closed. Those that Gradio sets at first are not kept.
    keep(form, values) {
      if (restored.has(form)) lm.session(`lm.${form}`, values);
    },
    // The values of a form before the page was reloaded; null for each if there are none.
    kept(form, length) {
      restored.add(form);
      const values = lm.session(`lm.${form}`);
      return values?.length === length ? values : Array(length).fill(null);
    },
    // The tab that was open before the page was reloaded, unless the user has opened another one since. Gradio opens
    // the first one.
    tabBefore() {
      const tab = lm.session("lm.tab");
      return tab === "write" ? tabBefore : tab;
    },
    storeCustomSettings(values) {
      try {
        localStorage.setItem(STORED_SETTINGS, JSON.stringify(values));
      } catch {} // the browser refuses storage, or it is full
    },
    customSettings(defaults) {
      try {
        const stored = JSON.parse(localStorage.getItem(STORED_SETTINGS));
        return stored.length === defaults.length ? stored : defaults;
      } catch {
        return defaults; // nothing stored, or nothing valid
      }
    },
  });
  const tabBefore = lm.session("lm.tab");
})();
