// The editor: the text, and behind it the colors of what the model wrote.
(() => {
  // Every style that affects where lines break.
  const MIRRORED_STYLES = [
    "font", "letterSpacing", "wordSpacing", "tabSize", "textIndent", "whiteSpace", "wordBreak", "overflowWrap",
    "lineBreak", "direction", "textAlign", "padding", "borderWidth",
  ];
  const MAX_PIECE = 1000; // characters
  const area = () => document.querySelector("#text textarea");
  // bits: the surprisal of what a model wrote; see surprisal.js.
  // copied: "c" for each code unit copied from the training text, else a space.
  let text = "", bits = "", copied = "";
  let painted = { text: "", bits: "", copied: "" };
  let shown = ""; // the text as it was last shown by `set`
  let undone = 0; // edits that the user has undone in the browser since then
  let backdrop = null, followedTo = 0;
  const pieces = []; // of the text in the backdrop: elements of a few words up to a line

  // The colors are a copy of the text behind the textarea, of which only the backgrounds are visible. It ends with
  // the last line that has a color. Each line is an element of its own, and has one or more pieces. Only pieces that
  // have changed are made again.
  function paint() {
    if (!backdrop) return;
    const colored = Math.max(bits.trimEnd().length, copied.length);
    const lineEnd = text.indexOf("\n", colored);
    const next = { text: colored ? text.slice(0, lineEnd < 0 ? text.length : lineEnd) : "", bits, copied };
    const same = Math.min(
      commonPrefix(painted.text, next.text),
      ...["bits", "copied"].map((name) => commonMarks(painted[name], next[name])),
    );
    painted = next;
    while (pieces.length && pieces.at(-1).end >= same) pieces.pop().remove();
    let line = pieces.at(-1)?.parentElement ?? null, start = pieces.at(-1)?.end ?? 0;
    while (backdrop.lastChild !== line) backdrop.lastChild.remove();
    if (colored)
      for (const [n, rest] of next.text.slice(start).split("\n").entries()) {
        // The first part completes the line of the last piece.
        if (n || !line) line = backdrop.appendChild(document.createElement("div"));
        const end = start + rest.length;
        while (start < end) start = addPiece(line, start, end);
        start = end + 1;
      }
    follow();
  }

  // Add the next piece of a line that ends at `limit`; returns the end of the piece.
  function addPiece(line, start, limit) {
    let end = Math.min(start + MAX_PIECE, limit);
    if (text.codePointAt(end - 1) > 0xffff) end++; // both halves of a surrogate pair
    const node = line.appendChild(document.createElement("span"));
    node.textContent = text.slice(start, end);
    pieces.push(Object.assign(node, { start, end, isColored: false }));
    return end;
  }

  // Scroll the colors with the text, and color the pieces in view.
  function follow() {
    if (!pieces.length) return;
    const { scrollTop: top, clientHeight: height } = area();
    backdrop.scrollTop = top;
    let first = 0, last = pieces.length;
    while (first < last) {
      const middle = (first + last) >> 1;
      if (pieces[middle].offsetTop + pieces[middle].offsetHeight < top - height) first = middle + 1;
      else last = middle;
    }
    const inView = [];
    for (; first < pieces.length && pieces[first].offsetTop < top + 2 * height; first++) inView.push(pieces[first]);
    for (const piece of inView) if (!piece.isColored) color(piece);
  }

  // A span for each run of characters with the same level that are all copied or all not copied.
  function color(node) {
    const { start: begin, end: limit } = node, spans = [];
    for (let start = begin; start < limit; ) {
      const level = lm.bits.level(bits, start);
      let end = start + 1;
      while (end < limit && lm.bits.level(bits, end) === level && copied[end] === copied[start]) end++;
      const span = document.createElement("span");
      span.textContent = text.slice(start, end);
      if (level !== null) span.dataset.level = level;
      if (copied[start] === "c") span.classList.add("copied");
      spans.push(span);
      start = end;
    }
    node.replaceChildren(...spans);
    node.isColored = true;
  }

  function commonPrefix(a, b) {
    const limit = Math.min(a.length, b.length), STEP = 4096; // comparing slices is faster than comparing characters
    let length = 0;
    while (length < limit && a.slice(length, length + STEP) === b.slice(length, length + STEP)) length += STEP;
    while (length < limit && a[length] === b[length]) length++;
    return Math.min(length, limit);
  }

  // Up to where two strings of marks, of which the shorter one continues with spaces, are the same.
  function commonMarks(a, b) {
    const length = commonPrefix(a, b);
    if (length < Math.min(a.length, b.length)) return length;
    const rest = (a.length > b.length ? a : b).slice(length).search(/\S/);
    return rest < 0 ? Infinity : length + rest;
  }

  function onInput(event) {
    const { value } = area();
    if (value === text) return; // `set` has told Gradio
    const unchanged = commonPrefix(value, text);
    bits = lm.bits.cut(bits, unchanged);
    copied = copied.slice(0, unchanged);
    text = value;
    if (event.inputType === "historyUndo") undone++;
    else if (event.inputType === "historyRedo") undone--;
    else undone = 0;
    paint();
    lm.onEdit(event);
  }

  // The size of the copy, without the scroll bar.
  function resize() {
    const style = getComputedStyle(area());
    for (const name of MIRRORED_STYLES) backdrop.style[name] = style[name];
    const { clientWidth, clientHeight } = area();
    backdrop.style.width = `${clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)}px`;
    backdrop.style.height = `${clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom)}px`;
    follow();
  }

  const isSetUp = new Promise((resolve) => {
    (function setUp() {
      if (!area()) return setTimeout(setUp, 50);
      backdrop = document.createElement("div");
      backdrop.id = "backdrop";
      backdrop.setAttribute("aria-hidden", "true");
      area().before(backdrop);
      area().addEventListener("input", onInput);
      area().addEventListener("scroll", follow);
      new ResizeObserver(resize).observe(area());
      resolve();
    })();
  });

  const editor = {
    isSetUp,
    area,
    get text() {
      return text;
    },
    get bits() {
      return bits;
    },
    // Whether the user has edited the text since `set`, and has undone edits in the browser.
    get isEdited() {
      return text !== shown;
    },
    get hasUndone() {
      return undone > 0;
    },
    // Show a text. While the model writes, the end stays in view, unless the user has scrolled back.
    set(newText, newBits) {
      const field = area(), follows = field.readOnly && field.scrollTop >= followedTo - 4;
      [text, bits, copied, shown, undone] = [newText, newBits, "", newText, 0];
      if (field.value !== text) field.value = text;
      if (follows) field.scrollTop = followedTo = field.scrollHeight - field.clientHeight;
      paint();
      if (!field.readOnly) editor.notifyGradio();
    },
    // Gradio keeps a copy of the text.
    notifyGradio() {
      area().dispatchEvent(new Event("input", { bubbles: true }));
    },
    // Gradio has changed the text.
    sync() {
      if (backdrop && !area().readOnly) onInput({});
    },
    // The spans of the text that are copied from the training text.
    underline(spans) {
      copied = "";
      for (const [start, end] of spans) copied = copied.padEnd(start) + "c".repeat(end - start);
      paint();
    },
    // The text is read-only while the model writes: the next update would overwrite what the user types.
    lock() {
      const field = area();
      field.readOnly = true;
      field.scrollTop = followedTo = field.scrollHeight - field.clientHeight;
    },
    unlock() {
      area().readOnly = false;
      editor.notifyGradio();
    },
  };
  window.lm = Object.assign(window.lm ?? {}, { editor, onEdit: () => {} });
})();
