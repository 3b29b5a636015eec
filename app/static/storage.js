// Documents in the browser's database. A document belongs to the tab that opened it last: no other tab writes it.
(() => {
  const DATABASE = "lm", STORES = ["list", "contents", "texts", "unsaved"];
  const MAX_NAME = 200, MAX_TEXT = 100_000_000, MAX_VERSIONS = 1000; // MAX_TEXT: of a file, so of any document
  const tab = crypto.getRandomValues(new Uint32Array(4)).join("-"); // of this visit to the page
  const done = (request) =>
    new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  const allOf = (id) => IDBKeyRange.bound([id], [id, []]);

  let database = null, connection = null; // a promise, and its result
  function open() {
    database ??= new Promise((resolve, reject) => {
      const request = indexedDB.open(DATABASE, 1);
      request.onupgradeneeded = () => STORES.forEach((name) => request.result.createObjectStore(name));
      request.onsuccess = () => {
        connection = request.result;
        connection.onclose = () => (database = connection = null);
        connection.onversionchange = () => {
          connection?.close(); // which does not call onclose
          database = connection = null;
        };
        resolve(connection);
      };
      request.onerror = request.onblocked = () => reject(request.error ?? new Error("blocked"));
    });
    database.catch(() => (database = null));
    return database;
  }

  open().catch(() => {}); // before it is needed: `keep` cannot wait

  // Run steps in one transaction: all of them take effect, or none.
  async function transact(mode, steps) {
    const transaction = (await open()).transaction(STORES, mode);
    const ended = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = transaction.onerror = () => reject(transaction.error ?? new Error("aborted"));
    });
    ended.catch(() => {});
    const [list, contents, texts, unsaved] = STORES.map((name) => transaction.objectStore(name));
    const result = await steps({ list, contents, texts, unsaved });
    await ended;
    return result;
  }

  const storage = {
    // What the list of documents shows: id, name, model, length and time of the last change, the newest first.
    list: () =>
      transact("readonly", async ({ list, unsaved }) => {
        const found = (await done(list.getAll())).filter((facts) => typeof facts?.id === "string").map(readable);
        const known = new Set(found.map(({ id }) => id));
        const others = (await done(unsaved.getAll())).filter(({ id }) => !known.has(id));
        return [...found, ...others.map(factsOf)].sort((a, b) => b.modified - a.modified);
      }),

    // Store a document; `changed` has the versions whose texts changed, `dropped` the ids of those that are gone.
    // Returns false, and stores nothing, if the document belongs to another tab by now. If it is not stored any more,
    // since another tab deleted it or the user cleared the browser's data, all versions are.
    save: (document, changed, dropped) =>
      transact("readwrite", async (stores) => {
        const { id } = document, stored = await done(stores.list.get(id));
        if (stored && stored.owner !== tab) return false;
        put(stores, document, stored ? changed : document.versions);
        for (const number of dropped) stores.texts.delete([id, number]);
        stores.unsaved.delete([id, tab]);
        return true;
      }),

    // Keep what the user has typed when the page is being closed: there is no time to look whether the document
    // still belongs to this tab.
    keep: (document) => {
      const transaction = connection?.transaction("unsaved", "readwrite");
      transaction?.objectStore("unsaved").put({ ...document, versions: null, owner: tab }, [document.id, tab]);
      transaction?.commit?.();
    },

    // A document, which belongs to this tab from now on if `claim`. Undefined if there is none; raises TypeError if
    // it is damaged.
    take: (id, claim) =>
      transact("readwrite", async (stores) => {
        const { list, contents, texts, unsaved } = stores;
        const facts = await done(list.get(id));
        const content = await done(contents.get(id));
        const kept = await done(unsaved.getAll(allOf(id)));
        const last = kept.find(({ owner }) => !facts || owner === facts.owner);
        if (claim) {
          unsaved.delete(allOf(id));
          // Typed in a tab that did not know that the document belonged to another one.
          for (const [n, other] of kept.entries())
            if (other !== last) {
              const copy = typed({ ...other, id: `${id}-${Date.now()}-${n}` });
              put(stores, copy, copy.versions);
            }
        }
        if (!facts && last) {
          const document = checked(typed(last));
          if (claim) put(stores, document, document.versions);
          return document;
        }
        if (!facts && !content) return undefined;
        const keys = await done(texts.getAllKeys(allOf(id))), values = await done(texts.getAll(allOf(id)));
        const byId = new Map(keys.map(([, number], n) => [number, values[n]]));
        const versions = content.links.map((link) => {
          const [text, bits] = byId.get(link.id);
          return { ...link, text, bits };
        });
        // What was typed just before the page was closed; its versions were not stored, so one may be unknown.
        const isKnown = versions.some(({ id }) => id === last?.current);
        const newest = last && { ...last, bits: bitsOf(last), current: isKnown ? last.current : content.current };
        const document = checked({ ...facts, ...content, ...newest, versions, id });
        if (claim) put(stores, document, []);
        return document;
      }),

    delete: (id) =>
      transact("readwrite", async ({ list, contents, texts, unsaved }) => {
        list.delete(id);
        contents.delete(id);
        texts.delete(allOf(id));
        unsaved.delete(allOf(id));
      }),
  };

  // The list shows damaged entries, too, so that they can be deleted.
  const readable = ({ id, title, model, modified, length }) => ({
    id,
    title: typeof title === "string" ? title : "",
    model: typeof model === "string" ? model : "",
    modified: Number(modified) || 0,
    length: Number(length) || 0,
  });

  // What the list shows of a document.
  function factsOf(document) {
    const { id, name, model, modified, text } = document;
    return { id, name, model, modified, length: text.length, title: title(document), owner: tab };
  }

  function put({ list, contents, texts }, document, changed) {
    const { id, settings, text, bits, versions, current } = document;
    list.put(factsOf(document), id);
    contents.put({ settings, text, bits, links: versions.map(({ text, bits, ...link }) => link), current }, id);
    for (const version of changed) texts.put([version.text, version.bits], [id, version.id]);
  }

  // A document whose text was typed.
  function typed(document) {
    const version = { id: 0, text: document.text, bits: bitsOf(document), start: null, seed: null, model: null, parent: null, previous: null, next: null };
    return { ...document, versions: [version], current: 0 };
  }

  // Documents stored before have `levels`: whole bits.
  const bitsOf = ({ bits, levels }) => bits ?? levels ?? "";

  // The name of a document: the one that the user gave it, or the first line of its text.
  function title({ name, text }) {
    return name || (text.match(/\S[^\n]*/)?.[0] ?? "").trim().slice(0, 60);
  }

  // A copy of a document from the database or from a file, without anything that does not belong there. Raises
  // TypeError if it is not a document.
  function checked(raw) {
    const check = (condition) => {
      if (!condition) throw new TypeError("not a document");
    };
    const string = (value, limit) => {
      check(typeof value === "string" && value.length <= limit);
      return value;
    };
    const orNull = (value, type) => (typeof value === type && (type !== "number" || value >= 0) ? value : null);
    check(raw && Array.isArray(raw.versions) && raw.versions.length && raw.versions.length <= MAX_VERSIONS);
    const versions = raw.versions.map((version) => {
      const text = string(version?.text, MAX_TEXT);
      check(Number.isSafeInteger(version.id) && version.id >= 0);
      const start = orNull(version.start, "number");
      return {
        id: version.id,
        text,
        bits: lm.bits.read(string(bitsOf(version), MAX_TEXT), text),
        start: start === null ? null : Math.min(start, text.length),
        seed: orNull(version.seed, "number"),
        model: orNull(version.model, "string"),
        parent: orNull(version.parent, "number"),
        previous: orNull(version.previous, "number"),
        next: orNull(version.next, "number"),
      };
    });
    const ids = new Set(versions.map(({ id }) => id));
    check(ids.size === versions.length && ids.has(raw.current));
    // Links to later versions as parents could form a circle.
    for (const version of versions) if (version.parent >= version.id) version.parent = null;
    const text = string(raw.text, MAX_TEXT), settings = {};
    for (const [name, value] of Object.entries(raw.settings ?? {}).slice(0, 100))
      if (["string", "number"].includes(typeof value)) settings[name] = value;
    return {
      id: raw.id,
      name: string(raw.name ?? "", MAX_TEXT).slice(0, MAX_NAME),
      model: orNull(raw.model, "string"),
      modified: orNull(raw.modified, "number") ?? 0,
      settings,
      text,
      bits: lm.bits.read(string(bitsOf(raw), MAX_TEXT), text),
      versions,
      current: raw.current,
    };
  }

  window.lm = Object.assign(window.lm ?? {}, { storage, documentTitle: title, checkedDocument: checked, typedDocument: typed });
})();
