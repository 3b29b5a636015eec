// The alternatives popover at the cursor. Gradio defines `element`, `props`, `trigger` and `watch`.
const editor = () => document.querySelector("#text textarea");
const find = (selector) => element.querySelector(selector);
const box = find(".popover"), list = find(".options");
const GAP = 6; // pixels between the popover, the cursor's line and the edges of the window
// What the popover shows or will show: { text, position } of the cursor, both in UTF-16 code units. `text` is
// missing while the user waits for a token to be appended.
let asked = null;
let copy = null; // of the text, behind it, with a mark around the token
let active = -1; // the option that Enter chooses

const isOpen = () => box.matches(":popover-open");
const isSheet = () => matchMedia("(max-width: 640px)").matches;

function ask(position, takesFocus) {
  const { value, readOnly } = editor();
  if (readOnly) return;
  asked = { text: value, position, takesFocus };
  trigger("select", { position });
}

function close() {
  asked = null;
  copy?.remove();
  copy = null;
  if (!isOpen()) return;
  const hadFocus = box.contains(document.activeElement);
  box.hidePopover();
  if (hadFocus) editor().focus({ preventScroll: true });
}

// Show a new value, unless the user has moved on.
function update() {
  const { value } = props, text = editor();
  if (!value) return close();
  if (!asked || (asked.text ?? text.value) !== text.value) return;
  const units = (offset) => Array.from(text.value).slice(0, offset).join("").length; // of characters
  const [start, end] = [units(value.start), units(value.end)];
  if (asked.text === undefined) {
    asked = { text: text.value, position: start, takesFocus: box.contains(document.activeElement) };
    text.setSelectionRange(start, start);
  }
  list.removeAttribute("aria-busy");
  find("#alternatives-title").textContent = value.title;
  find(".close").setAttribute("aria-label", value.close);
  find(".reroll").textContent = value.reroll ?? "";
  find(".reroll").hidden = !value.reroll;
  draw(value);
  const isNew = !isOpen() || box.dataset.start !== String(value.start);
  box.dataset.start = value.start;
  if (!isOpen()) box.showPopover();
  mark(start, end);
  if (isNew) {
    point(asked.takesFocus ? 0 : -1);
    if (asked.takesFocus) list.focus({ preventScroll: true });
    reveal();
  }
  follow();
}

// The options. Those that are there stay the same elements when their continuations arrive.
function draw({ options, hint }) {
  options.forEach(({ name, spoken, percent, share, token, ahead, isCurrent }, index) => {
    const option = list.children[index] ?? list.appendChild(document.createElement("div"));
    option.id = `alternative-${index}`;
    option.dataset.token = token;
    option.title = hint;
    option.setAttribute("role", "option");
    option.setAttribute("aria-label", [spoken, percent, ahead].filter(Boolean).join(", "));
    option.classList.toggle("current", isCurrent);
    option.style.setProperty("--share", share);
    const parts = [["code", name], ["span", percent], ["code", ahead ?? "…"]].map(([tag, text]) => {
      const part = document.createElement(tag);
      part.textContent = text;
      return part;
    });
    option.replaceChildren(...parts);
  });
  while (list.children.length > options.length) list.lastChild.remove();
}

function point(index) {
  active = index;
  [...list.children].forEach((option, at) => option.setAttribute("aria-selected", at === index));
  const option = list.children[index];
  if (!option) return list.removeAttribute("aria-activedescendant");
  list.setAttribute("aria-activedescendant", option.id);
  option.scrollIntoView({ block: "nearest" });
}

function choose(option) {
  if (!option || list.ariaBusy === "true") return;
  const start = props.value.start, token = Number(option.dataset.token);
  if (props.value.reroll) close();
  else {
    list.ariaBusy = "true"; // until the token has been appended
    asked = {};
  }
  trigger("click", { start, token });
}

// A copy of the text, which is laid out as the text is, with a mark around a token.
function mark(start, end) {
  const text = editor(), { value } = text;
  copy?.remove();
  copy = document.querySelector("#backdrop").cloneNode(false);
  copy.id = "marked";
  const token = document.createElement("mark");
  token.textContent = value.slice(start, end);
  copy.append(value.slice(0, start), token, `${value.slice(end)}\u200b`);
  text.before(copy);
  copy.scrollTop = text.scrollTop;
}

// The cursor in the window: { left, top, bottom }.
function cursor() {
  let left = Math.min(asked.position, copy.textContent.length - 1); // the text may have become shorter
  for (const part of copy.childNodes) {
    const node = part.firstChild ?? part, length = node.textContent.length;
    if (left < length) {
      const range = new Range();
      range.setStart(node, left);
      range.setEnd(node, left + 1);
      return range.getClientRects()[0] ?? range.getBoundingClientRect();
    }
    left -= length;
  }
}

// Below the messages.
const windowTop = () => visualViewport.offsetTop + (document.querySelector(".toast-wrap")?.offsetHeight ?? 0);
const windowBottom = () => visualViewport.offsetTop + visualViewport.height;

// Place the popover, which is open, below or above the cursor's line, inside the window; on a phone, at the bottom.
function place() {
  const { style } = box, line = cursor(), top = windowTop() + GAP, bottom = windowBottom() - GAP;
  Object.assign(style, { maxHeight: "none", left: 0 });
  if (isSheet()) {
    style.maxHeight = `${visualViewport.height * 0.45}px`;
    style.top = `${windowBottom() - box.offsetHeight}px`;
    return;
  }
  const { offsetHeight: height, offsetWidth: width } = box;
  const below = bottom - line.bottom - GAP, above = line.top - top - GAP;
  const isBelow = height <= below || below >= above;
  style.maxHeight = `${isBelow ? below : above}px`;
  style.top = `${isBelow ? line.bottom + GAP : line.top - GAP - Math.min(height, above)}px`;
  style.left = `${Math.max(GAP, Math.min(line.left, innerWidth - GAP - width))}px`;
}

// Scroll the text and the page so that the cursor's line is in view, above the sheet of a phone.
function reveal() {
  const text = editor(), frame = text.getBoundingClientRect();
  let line = cursor();
  if (line.bottom > frame.bottom) text.scrollTop += line.bottom - frame.bottom + GAP;
  if (line.top < frame.top) text.scrollTop -= frame.top - line.top + GAP;
  copy.scrollTop = text.scrollTop;
  place();
  line = cursor();
  const bottom = isSheet() ? box.getBoundingClientRect().top : windowBottom();
  const hidden = Math.max(0, line.bottom + GAP - bottom) || Math.min(0, line.top - GAP - windowTop());
  if (hidden) window.scrollBy({ top: hidden, behavior: "instant" });
}

// Keep the popover next to the cursor's line while that is in view.
function follow() {
  if (!isOpen()) return;
  const text = editor(), frame = text.getBoundingClientRect();
  copy.scrollTop = text.scrollTop;
  const line = cursor();
  const top = Math.max(frame.top, windowTop()), bottom = Math.min(frame.bottom, windowBottom());
  if (line.bottom > bottom + 1 || line.top < top - 1) close();
  else place();
}

list.addEventListener("keydown", (event) => {
  const last = list.children.length - 1, { key } = event;
  const next = { ArrowDown: active < last ? active + 1 : 0, ArrowUp: active > 0 ? active - 1 : last, Home: 0, End: last }[key];
  if (next !== undefined) point(next);
  else if ((key === "Enter" || key === " ") && !event.ctrlKey && !event.metaKey) choose(list.children[active]);
  else return;
  event.preventDefault();
});
list.addEventListener("click", (event) => choose(event.target.closest("[role='option']")));
find(".close").addEventListener("click", close);
find(".reroll").addEventListener("click", () => {
  close();
  trigger("retry", { start: props.value.start });
});
// The text keeps the focus, and a phone its keyboard, when something in the popover is pressed.
box.addEventListener("mousedown", (event) => event.preventDefault());

// Before the shortcuts of the page.
document.addEventListener("keydown", (event) => {
  const { key } = event, inText = event.target === editor(), command = event.ctrlKey || event.metaKey;
  if (event.isComposing) return;
  if (inText && command && key === " ") {
    event.preventDefault();
    ask(editor().selectionStart, true);
  } else if (!isOpen()) return;
  else if (key === "Escape") {
    event.preventDefault();
    event.stopPropagation();
    close();
  } else if (inText && key === "ArrowDown" && !event.shiftKey && !command) {
    event.preventDefault();
    list.focus({ preventScroll: true });
    point(0);
  } else if (event.target === list && !command && key !== " " && (key.length === 1 || key === "Backspace")) {
    close(); // and type in the text
  }
}, true);
document.addEventListener("click", (event) => {
  const text = editor();
  if (event.target === text && text.selectionStart === text.selectionEnd && text.value) ask(text.selectionStart, false);
});
const isElsewhere = (target) => !element.contains(target);
document.addEventListener("pointerdown", (event) => isElsewhere(event.target) && close());
document.addEventListener("focusin", ({ target }) => isElsewhere(target) && target !== editor() && close());
document.addEventListener("input", ({ target }) => {
  if (target === editor() && (asked?.text ?? target.value) !== target.value) close();
});
document.addEventListener("selectionchange", () => {
  const text = editor();
  if (isOpen() && document.activeElement === text && (asked.position ?? text.selectionStart) !== text.selectionStart) close();
});
document.addEventListener("scroll", ({ target }) => isElsewhere(target) && follow(), { capture: true, passive: true });
new ResizeObserver(follow).observe(document.body); // messages push the page down
for (const event of ["resize", "scroll"]) visualViewport.addEventListener(event, follow);

lm.requestAlternatives = (position) => ask(position, false);
// The text arrives in the same update, before or after the value.
watch("value", () => requestAnimationFrame(() => setTimeout(update)));
