// What the buttons of the Write tab do to the text: start and end a generation, undo, redo, take a candidate.
(() => {
  const { editor } = lm;
  const STATE = 8; // the number of updates of `state`
  const LATE_MS = 1000; // how long after the end the last tokens may still be on their way through Gradio
  let run = null; // the last generation: what it started from, and what it has written
  let isWriting = false;

  const base = ({ text, bits }, end) => ({ text: text.slice(0, end), bits: lm.bits.cut(bits, end).padEnd(end) });
  const update = (changes) => ({ __type__: "update", ...changes });
  const versions = () => lm.documents.versions;
  const show = ({ text, bits }) => editor.set(text, bits);
  // A class of the body: `#page:has(...)` would make each change of the text restyle the whole page.
  const showCandidates = (areShown) => document.body.classList.toggle("comparing", areShown);

  // Regenerate starts from where the last continuation started, even if the user has edited the text since.
  function regenerationBase() {
    const version = versions().lastWritten();
    if (!version) return null;
    const found = base(version, version.start);
    if (!editor.text.startsWith(found.text))
      lm.say(lm.translate("Continuing from before your edits. Undo restores them."));
    return found;
  }

  // A version for each text that the model writes; the browser may show none yet.
  function written({ run: id, at, picked, texts, model }) {
    if (!run || (run.id ?? id) !== id || run.isOver) return;
    run.id = id;
    const kept = base(run.base, at);
    run.parent ??= versions().beginningOf(kept.text + texts[0].text.slice(0, picked))?.id;
    const fields = texts.map(({ text, bits, seed }) => ({
      text: kept.text + text,
      bits: kept.bits + bits,
      start: at + picked,
      seed,
      model,
      parent: run.parent ?? null,
    }));
    showCandidates(fields.length > 1);
    if (fields.length > 1) {
      run.candidates = fields;
      return;
    }
    if (!run.version) run.version = versions().add(fields[0]);
    else if (editor.text !== run.version.text) return; // the user has gone on since
    else Object.assign(run.version, fields[0]);
    show(run.version);
    lm.documents.changed();
  }

  const writing = {
    // The text that a generation starts from.
    begin(kind) {
      const all = versions();
      all.record(editor.text, editor.bits);
      lm.documents.changed();
      const before = all.current;
      const found = (kind === "regenerate" && regenerationBase()) || base(editor, editor.text.length);
      run = { base: found, before };
      if (found.text !== editor.text) show(found);
      isWriting = true;
      editor.lock();
    },
    get base() {
      return run?.base.text ?? editor.text;
    },
    written,
    async end() {
      await new Promise((done) => setTimeout(done)); // the last tokens may be on their way through Gradio
      isWriting = false;
      editor.unlock();
      const ended = run; // without a connection, the server does not know that the user has stopped it
      setTimeout(() => ended && (ended.isOver = true), LATE_MS);
      // An error before the first token.
      if (run && !run.version && !run.candidates && editor.text !== run.before.text) show(run.before);
      lm.documents.saveNow();
      if (document.querySelector("#copied input")?.checked) lm.requestCopied();
      return writing.state();
    },
    take(number) {
      const chosen = run?.candidates?.[number];
      if (chosen) {
        versions().record(editor.text, editor.bits);
        versions().add(chosen);
        run = null;
      }
      return writing.moved();
    },
    undo: () => writing.moved(versions().undo(editor.text, editor.bits)),
    redo: () => writing.moved(versions().redo(editor.text, editor.bits)),
    goTo: (id) => writing.moved(versions().goTo(id, editor.text, editor.bits)),
    // Show the current version.
    moved() {
      run = null;
      show(versions().current);
      lm.documents.saveNow();
      return writing.opened("");
    },
    // Updates for all components that display a version.
    opened(status = update({})) {
      const rest = [status, update({ visible: false }), null];
      showCandidates(false);
      // The page may have been loaded after the user pressed Generate.
      return isWriting ? [...Array(STATE), ...rest].map(() => update({})) : [...writing.state(), ...rest];
    },
    // Another document is shown.
    forget: () => (run = null),
    seed: () => versions().current.seed,
    // Updates for the buttons and the list of versions.
    state() {
      const all = versions(), { current } = all, branches = all.branches();
      return [
        update({ value: lm.translate(current.start == null ? "Generate" : "Continue"), interactive: true }),
        update({ interactive: false }), // Stop
        update({ interactive: all.hasPrevious }),
        update({ interactive: all.hasNext }),
        update({ interactive: all.lastWritten() !== null }),
        update({ interactive: current.seed != null }),
        update({ visible: branches.length > 1 }),
        update({ choices: branches.map((one) => [label(one), one.id]), value: branches.includes(current) ? current.id : null }),
      ];
    },
  };

  // The number of a version, its length in characters and the end of its text.
  function label({ id, text }) {
    const end = text.slice(-60).trim().replace(/\s+/g, " ");
    return `${id} · ${text.length.toLocaleString("en")} · …${end}`;
  }

  Object.assign(lm, { writing, requestCopied: () => {} });
})();
