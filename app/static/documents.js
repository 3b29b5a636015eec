// The document of this tab: it is stored as it changes, and other tabs cannot write it.
(() => {
  const CURRENT = "lm.document", LAST = "lm.last"; // of this tab, of the browser
  const ANSWER_MS = 150; // in which other tabs say which documents they have
  const START_MS = 10_000; // after which the page continues without the browser's database
  const { editor, storage, Versions } = lm;
  const newId = () => [Date.now(), ...crypto.getRandomValues(new Uint32Array(2))].map((n) => n.toString(36)).join("-");

  let facts = { id: newId(), name: "", model: null, settings: {} };
  let versions = new Versions();
  let stored = new Map(); // the text of each stored version
  let untitled; // the placeholder of the name
  let tour = null; // what the tab shows again after the tour, whose own document is not stored
  let timer = 0, isStored = false, isLoaded = false, hasFailed = false;

  // Other tabs. A frozen tab does not answer; its next change is stored as a copy.
  let channel = { postMessage() {} };
  try {
    channel = new BroadcastChannel("lm");
  } catch {} // Firefox refuses it along with storage
  const others = new Set(); // the documents of tabs that have answered
  channel.onmessage = ({ data }) => {
    if (data === "which") channel.postMessage({ has: facts.id });
    else if (data?.has) others.add(data.has);
  };
  async function openElsewhere() {
    others.clear();
    channel.postMessage("which");
    await new Promise((done) => setTimeout(done, ANSWER_MS));
    return new Set(others);
  }

  // Storage that the browser refuses is not an error: the page works without it.
  function remember(name, id) {
    try {
      (name === LAST ? localStorage : sessionStorage).setItem(name, id);
    } catch {}
  }
  function remembered() {
    try {
      return [sessionStorage.getItem(CURRENT), localStorage.getItem(LAST)];
    } catch {
      return [];
    }
  }

  function changed() {
    timer ||= setTimeout(save, Math.max(300, editor.text.length / 250));
  }

  async function save() {
    clearTimeout(timer);
    timer = 0;
    const document = lm.documents.whole, { text, versions: list } = document;
    showTitle();
    if (tour || (!text && list.length === 1 && !isStored)) return;
    const dirty = list.filter(({ id, text }) => stored.get(id) !== text);
    const ids = new Set(list.map(({ id }) => id)), dropped = [...stored.keys()].filter((id) => !ids.has(id));
    try {
      const isMine = await storage.save(document, dirty, dropped);
      if (facts.id !== document.id) return; // the tab shows another document by now
      if (isMine) {
        for (const { id, text } of dirty) stored.set(id, text);
        for (const id of dropped) stored.delete(id);
        if (!isStored) remember(LAST, document.id);
        isStored = true;
      } else {
        becomeCopy();
        lm.say(lm.translate("This document was opened in another tab. Your text continues here as a copy."));
        await save();
      }
    } catch (error) {
      if (!hasFailed) sayThatStorageFails(error);
      hasFailed = true;
    }
  }

  function sayThatStorageFails(error) {
    lm.say(
      error?.name === "QuotaExceededError"
        ? lm.translate("The browser has no space for this document: delete others, or save it as a file.")
        : lm.translate("This browser does not store documents: save the text as a file before you close the page."),
    );
  }

  function becomeCopy() {
    const name = lm.translate("{name} (copy)", { name: lm.documentTitle({ ...facts, text: editor.text }) });
    facts = { ...facts, id: newId(), name };
    stored = new Map();
    isStored = false;
    remember(CURRENT, facts.id);
  }

  // Make a document the one of this tab.
  function adopt({ id, name, model, settings, versions: list, current }, isNew) {
    facts = { id: isNew ? newId() : id, name, model, settings: { ...settings } };
    versions = new Versions(list, current);
    stored = new Map(isNew ? [] : list.map(({ id, text }) => [id, text]));
    isStored = !isNew;
    tour = null;
    lm.writing.forget();
    remember(CURRENT, facts.id);
    if (!isNew) remember(LAST, id);
  }

  const nameField = () => window.document.querySelector("#document-name :is(input, textarea)");
  const empty = () => ({ ...facts, name: "", versions: [new Versions().current], current: 0, text: "", bits: "" });

  function show(document, isNew) {
    lm.say("");
    lm.offer();
    adopt(document, isNew);
    editor.set(document.text, document.bits);
    showTitle();
    lm.documentOpened();
  }

  // The first line of the text is the name of a document that has no other.
  function showTitle() {
    const field = nameField();
    if (!field) return;
    untitled ??= field.placeholder;
    field.placeholder = lm.documentTitle({ text: editor.text.slice(0, 2000) }) || untitled;
  }

  // The document that this tab had before it was reloaded, otherwise the last one that no other tab has.
  async function start([own, last]) {
    const id = own ?? last;
    if (!id) return null;
    const isCopy = (await openElsewhere()).has(id);
    if (isCopy && !own) return null;
    const found = await storage.take(id, !isCopy);
    return found ? { found, isCopy } : null;
  }

  const failed = (error) => {
    if (error instanceof TypeError) lm.say(lm.translate("The stored document is damaged, so this is a new one."));
    else sayThatStorageFails(error);
    return null;
  };
  const timeout = new Promise((_, reject) => setTimeout(() => reject(new Error("timeout")), START_MS));
  const before = remembered();
  let started = new Promise((done) => setTimeout(done)).then(() => Promise.race([start(before), timeout])).catch(failed);

  if (!before[0]) remember(CURRENT, facts.id);
  for (const [target, event] of [[window, "pagehide"], [document, "visibilitychange"]])
    target.addEventListener(event, () => {
      if (!timer || tour) return;
      storage.keep(lm.documents.whole);
      remember(LAST, facts.id);
      save();
    });
  window.document.addEventListener("input", ({ target }) => {
    if (target !== nameField()) return;
    facts.name = target.value.trim();
    changed();
  });
  lm.onEdit = ({ isTrusted }) => {
    // What the user types in the document of the tour is worth keeping.
    if (isTrusted && tour) {
      tour = null;
      remember(CURRENT, facts.id);
      lm.offer();
    }
    changed();
  };

  lm.documents = {
    changed,
    get versions() {
      return versions;
    },
    get facts() {
      return facts;
    },
    // Show the document, when the page opens, and return the name of its model.
    async load() {
      const { found, isCopy } = (await started) ?? {};
      started = null;
      await editor.isSetUp;
      if (found && !editor.text) {
        adopt(found, isCopy);
        editor.set(found.text, found.bits);
        showTitle();
        if (isCopy) {
          facts.name = lm.translate("{name} (copy)", { name: lm.documentTitle(found) });
          lm.say(lm.translate("This document is open in another tab, so this tab has a copy of it."));
          changed();
        }
      }
      if (!tour) remember(CURRENT, facts.id);
      return facts.model;
    },
    // Store what has changed, and go on with an empty document.
    async create() {
      await save();
      show(empty(), true);
    },
    // Show a document: a stored one, or one that is new to the browser.
    async open(document, isNew) {
      await save();
      show(document, isNew);
      if (isNew) changed();
    },
    // Go on with a document of the tour, which has a model of its own, until `endTour`.
    async startTour(model) {
      if (tour) return [];
      await save();
      const before = { document: lm.documents.whole, isNew: !isStored };
      show({ ...empty(), model }, true);
      remember(CURRENT, before.document.id);
      tour = before;
      lm.offer(lm.translate("The tour has a document of its own."), lm.translate("Back to my text"), lm.documents.endTour);
      return [];
    },
    endTour: () => tour && show(tour.document, tour.isNew),
    // The stored document was deleted: go on with an empty one.
    discard: () => show(empty(), true),
    saveNow: save,
    openElsewhere,
    // All of it, as it is stored and exported.
    get whole() {
      const list = versions.list.map((version) => ({ ...version }));
      const { text, bits } = editor;
      return { ...facts, modified: Date.now(), text, bits, versions: list, current: versions.current.id };
    },
    // Updates for the name and for the components with these names and values: what the document has of its own.
    // Any other component is left alone, since the user may be typing into it while the page loads.
    updates(names, values) {
      isLoaded = true;
      const update = (value, shown) => ({ __type__: "update", ...(value !== shown && { value }) });
      const has = (name, n) => typeof facts.settings[name] === typeof values[n];
      return [
        update(facts.name, nameField()?.value),
        ...names.map((name, n) => update(has(name, n) ? facts.settings[name] : values[n], values[n])),
      ];
    },
    storeSettings(names, model, values) {
      if (!isLoaded) return;
      facts.model = model;
      names.forEach((name, n) => (facts.settings[name] = values[n]));
      if (isStored) changed();
    },
  };
})();
