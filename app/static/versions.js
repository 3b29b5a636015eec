// The versions of a text: a tree in which the user can undo, redo and return to any branch.
(() => {
  const MAX_VERSIONS = 100, MAX_CHARACTERS = 20_000_000; // of all versions together; the oldest are dropped

  // A version has these fields:
  //   id         a number
  //   text       the whole text
  //   bits       the surprisal of what a model wrote; see surprisal.js
  //   start      where the model's last continuation begins; null if the user typed the end
  //   seed       of that continuation; null if the user typed or picked the end
  //   model      that wrote it
  //   parent     the id of the version that this one continues
  //   previous   the id of the one displayed before, for Undo
  //   next       the id of the one that was undone, for Redo
  class Versions {
    constructor(list = [{ id: 0, text: "", bits: "", start: null }], current = list.at(-1).id) {
      this.byId = new Map(list.map((version) => [version.id, version]));
      this.current = this.byId.get(current);
    }

    get list() {
      return [...this.byId.values()];
    }

    // Add a version, displayed after the current one, and make it the current one.
    add(fields) {
      const id = Math.max(...this.byId.keys()) + 1;
      const version = { seed: null, start: null, model: null, parent: this.current.id, ...fields };
      Object.assign(version, { id, previous: this.current.id, next: null });
      this.current.next = id;
      this.byId.set(id, version);
      this.current = version;
      this.dropOldest();
      return version;
    }

    dropOldest() {
      let characters = this.list.reduce((sum, { text }) => sum + text.length, 0);
      for (const [id, { text }] of this.byId) {
        if (this.byId.size <= MAX_VERSIONS && characters <= MAX_CHARACTERS) break;
        if (this.byId.size === 1 || id === this.current.id) continue;
        this.byId.delete(id);
        characters -= text.length;
      }
    }

    // Add a version if the user has edited the text.
    record(text, bits) {
      const { current } = this;
      if (text === current.text) return;
      // There is nothing to undo to before the first text that was typed.
      if (this.byId.size === 1 && current.start == null) Object.assign(current, { text, bits });
      else this.add({ text, bits });
    }

    get hasPrevious() {
      return this.byId.has(this.current.previous);
    }

    get hasNext() {
      return this.byId.has(this.current.next);
    }

    undo(text, bits) {
      this.record(text, bits);
      this.current = this.byId.get(this.current.previous) ?? this.current;
    }

    // Move to the next version, unless the user has edited the displayed text.
    redo(text, bits) {
      if (text !== this.current.text) this.record(text, bits);
      else this.current = this.byId.get(this.current.next) ?? this.current;
    }

    goTo(id, text, bits) {
      this.record(text, bits);
      this.current = this.byId.get(id) ?? this.current;
    }

    // The last version of each branch, the newest first.
    branches() {
      const parents = new Set(this.list.map((version) => version.parent));
      return this.list.filter(({ id, text }) => text && !parents.has(id)).reverse();
    }

    // The last version on the way to the current one that `text` continues; null if there is none.
    beginningOf(text) {
      let version = this.current;
      while (version && !text.startsWith(version.text)) version = this.byId.get(version.parent);
      return version ?? null;
    }

    // The version that the model wrote last, on the way to the current one; null if there is none.
    lastWritten() {
      let version = this.current;
      while (version && version.start == null) version = this.byId.get(version.parent);
      return version ?? null;
    }
  }

  window.lm = Object.assign(window.lm ?? {}, { Versions });
})();
