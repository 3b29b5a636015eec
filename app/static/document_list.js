// The list of documents, and what the buttons above the text do.
(() => {
  const MAX_FILE = 100_000_000, MAX_TEXT = 1_000_000; // bytes, characters
  const FORMAT = "lm document", VERSION = 2; // version 1 has whole bits
  const { documents, editor, make, storage } = lm;
  let dialog = null;

  const button = (text, onclick, className = "") => make("button", { type: "button", onclick, className }, text);

  // The model would write into another document.
  function isBusy() {
    if (editor.area().readOnly) lm.say(lm.translate("The model is writing: press Stop first."));
    return editor.area().readOnly;
  }

  function download(content, type, extension) {
    const name = lm.documentTitle(documents.whole).replace(/[\\/:*?"<>|\u0000-\u001f]+/g, " ").trim();
    lm.save(new Blob([content], { type }), `${name || lm.translate("Untitled")}.${extension}`);
  }

  async function copy() {
    const area = editor.area();
    try {
      await navigator.clipboard.writeText(editor.text);
    } catch {
      area.select(); // only pages with a secure connection may write to the clipboard
      document.execCommand("copy");
    }
    lm.say(lm.translate("Copied."));
  }

  function exportSession() {
    const { id, ...content } = documents.whole;
    download(JSON.stringify({ format: FORMAT, version: VERSION, ...content }), "application/json", "json");
  }

  async function openFile(file) {
    dialog.close();
    try {
      if (file.size > MAX_FILE) throw new TypeError("too large");
      const content = await lm.decoded(file);
      if (content === null)
        return lm.say(lm.translate("{file} is not in UTF-8: save the text in this encoding first.", { file: file.name }));
      if (!content.trimStart().startsWith("{") || !content.includes(`"${FORMAT}"`)) return await openText(file, content);
      const raw = JSON.parse(content);
      if (raw.format !== FORMAT || !Number.isInteger(raw.version) || raw.version < 1) throw new TypeError("another format");
      if (raw.version > VERSION)
        return lm.say(lm.translate("{file} is from a newer version of this page: update the server.", { file: file.name }));
      await documents.open(lm.checkedDocument(raw), true);
    } catch {
      lm.say(lm.translate("{file} is neither a text nor an exported session.", { file: file.name }));
    }
  }

  async function openText(file, content) {
    const text = content.replace(/\r\n?/g, "\n"), name = file.name.replace(/\.[^.]*$/, "").slice(0, 200);
    if (text.includes("\0")) throw new TypeError("not a text");
    if (text.length > MAX_TEXT) {
      const count = text.length.toLocaleString("en"), most = MAX_TEXT.toLocaleString("en");
      return lm.say(lm.translate("{file} has {count} characters; a document can have {most}.", { file: file.name, count, most }));
    }
    await documents.open(lm.typedDocument({ ...documents.facts, name, text, bits: "" }), true);
  }

  // A row of the list.
  function row(facts, isElsewhere) {
    const isHere = facts.id === documents.facts.id, name = facts.title || lm.translate("Untitled");
    const details = [
      facts.model,
      new Date(facts.modified).toLocaleString(document.documentElement.lang),
      lm.translate(facts.length === 1 ? "{count} character" : "{count} characters", { count: facts.length.toLocaleString("en") }),
      isHere && lm.translate("open here"),
      isElsewhere && lm.translate("open in another tab: opens a copy"),
    ];
    const about = make("small", { textContent: details.filter(Boolean).join(" · ") });
    const open = button("", () => openStored(facts, isElsewhere), "document");
    open.append(make("span", { textContent: name }), about);
    open.disabled = isHere;
    const remove = button(lm.translate("Delete"), () => removeStored(facts, item));
    remove.setAttribute("aria-label", `${lm.translate("Delete")}: ${name}`);
    remove.disabled = isElsewhere;
    const item = make("li", {}, open, remove);
    return item;
  }

  async function openStored({ id, title }, isElsewhere) {
    dialog.close();
    try {
      const found = await storage.take(id, !isElsewhere);
      if (isElsewhere) found.name = lm.translate("{name} (copy)", { name: title });
      await documents.open(found, isElsewhere);
    } catch {
      lm.say(lm.translate("The stored document is damaged, so it cannot be opened."));
    }
  }

  async function removeStored(facts, item) {
    const kept = await storage.take(facts.id, true).catch(() => null);
    await storage.delete(facts.id);
    if (facts.id === documents.facts.id) documents.discard();
    const undo = button(lm.translate("Undo"), async () => {
      await storage.save(kept, kept.versions, []);
      item.replaceWith(row(facts, false));
    });
    item.replaceChildren(
      make("span", { textContent: lm.translate("Deleted: {name}", { name: facts.title || lm.translate("Untitled") }) }),
      ...(kept ? [undo] : []),
    );
    (kept ? undo : dialog.querySelector("button")).focus();
  }

  function makeDialog() {
    const input = make("input", { type: "file", accept: ".txt,.json,text/plain,application/json", hidden: true });
    input.onchange = () => input.files[0] && openFile(input.files[0]);
    const heading = make("h2", { id: "documents-title", textContent: lm.translate("Documents") });
    const buttons = [button(lm.translate("Open a file"), () => input.click()), button(lm.translate("Close"), () => dialog.close())];
    dialog = make("dialog", { id: "documents" }, make("header", {}, heading, ...buttons), input, make("ul"), make("p"));
    dialog.setAttribute("aria-labelledby", heading.id);
    document.querySelector(".gradio-container").append(dialog);
  }

  async function open() {
    if (isBusy()) return;
    if (!dialog) makeDialog();
    await documents.saveNow();
    const [found, elsewhere] = await Promise.all([storage.list().catch(() => []), documents.openElsewhere()]);
    dialog.querySelector("ul").replaceChildren(...found.map((facts) => row(facts, elsewhere.has(facts.id))));
    dialog.querySelector("p").textContent = found.length ? "" : lm.translate("This browser has no documents yet.");
    dialog.querySelector("input").value = "";
    dialog.showModal();
  }

  lm.documentActions = {
    create: () => isBusy() || documents.create().then(() => editor.area().focus()),
    open,
    save: () => download(editor.text, "text/plain", "txt"),
    copy,
    export: exportSession,
  };
})();
