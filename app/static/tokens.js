// The token view. Gradio defines `element`, `props`, `trigger` and `watch`.
// It dispatches "lm:token" with the position of the current token, which the arrow keys move.
let current = -1, anchor = -1, drawn = null;
const box = () => element.querySelector(".tokens");
const indexOf = (node) => {
  const token = (node && node.nodeType === 3 ? node.parentElement : node)?.closest?.("[data-index]");
  return token && element.contains(token) ? Number(token.dataset.index) : -1;
};

function draw() {
  const { tokens = [], levels = [], tooltips = [], selected = null, legend = null, unknown = [] } = props.value || {};
  const isSame = drawn?.length === tokens.length && drawn.every((text, index) => text === tokens[index]);
  if (!isSame) {
    box().replaceChildren(...tokens.map(node));
    current = anchor = -1;
    box().removeAttribute("aria-activedescendant");
    drawn = tokens;
  }
  [...box().children].forEach((token, index) => {
    token.setAttribute("aria-selected", index === selected);
    if (levels[index]) token.dataset.level = levels[index];
    else delete token.dataset.level;
    token.title = tooltips[index] ?? "";
    token.classList.remove("unknown");
  });
  for (const index of unknown) box().children[index].classList.add("unknown");
  box().setAttribute("aria-label", props.label || "");
  drawLegend(legend);
  if (selected !== null) current = selected;
  else if (current < 0 && tokens.length && legend) point(0, false);
  readOut();
}

function node(text, index) {
  const token = document.createElement("span");
  token.id = `${element.id || "view"}-token-${index}`;
  token.dataset.index = index;
  token.setAttribute("role", "option");
  token.textContent = text;
  if (text.includes("\n")) token.classList.add("ends-line");
  return token;
}

// The color levels, between the texts at both ends, and what the hatching means.
function drawLegend(legend) {
  const place = element.querySelector(".legend");
  place.replaceChildren();
  if (!legend) return;
  const text = (content) => Object.assign(document.createElement("span"), { textContent: content });
  const scale = document.createElement("span");
  scale.className = "scale";
  for (let level = legend.first; level <= 9; level++) {
    const swatch = document.createElement("span");
    if (level) swatch.dataset.level = level;
    scale.append(swatch);
  }
  place.append(text(legend.low), scale, text(legend.high));
  if (!legend.unknown) return;
  const hatched = text(legend.unknown);
  hatched.prepend(Object.assign(document.createElement("span"), { className: "unknown" }));
  place.append(hatched);
}

// The values of the current token, for fingers and keyboards, which see no tooltips.
function readOut() {
  const token = box().children[current];
  const shown = token?.textContent.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ +$/, (s) => "␣".repeat(s.length));
  // Isolated: after right-to-left letters, the number would be part of their order.
  const values = token?.title.replaceAll("\n", " · ");
  element.querySelector(".readout").textContent = values ? `“\u2068${shown}\u2069”  ${values}` : "";
}

function point(index, extend) {
  const tokens = box().children;
  if (!tokens.length) return;
  index = Math.max(0, Math.min(tokens.length - 1, index));
  anchor = extend ? (anchor < 0 ? current : anchor) : -1;
  current = index;
  const [first, last] = anchor < 0 ? [index, index] : [Math.min(anchor, index), Math.max(anchor, index)];
  for (const token of box().querySelectorAll(".pointed")) token.classList.remove("pointed");
  for (let i = first; i <= last; i++) tokens[i].classList.add("pointed");
  box().setAttribute("aria-activedescendant", tokens[index].id);
  show(tokens[index]);
  readOut();
  element.dispatchEvent(new CustomEvent("lm:token", { bubbles: true, detail: index }));
}

// Scroll the tokens, never the page.
function show(token) {
  const [outer, inner] = [box().getBoundingClientRect(), token.getBoundingClientRect()];
  if (inner.top < outer.top) box().scrollTop += inner.top - outer.top - 8;
  else if (inner.bottom > outer.bottom) box().scrollTop += inner.bottom - outer.bottom + 8;
}

element.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 20, ArrowUp: -20 }[event.key];
  if (step) {
    event.preventDefault();
    point(current + step, event.shiftKey);
  } else if (event.key === "Enter" && !event.ctrlKey && current >= 0) {
    event.preventDefault();
    if (anchor < 0 || anchor === current) trigger("click", { index: current });
    else trigger("select", { start: Math.min(anchor, current), end: Math.max(anchor, current) + 1 });
  }
});
element.addEventListener("click", (event) => {
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed && element.contains(selection.anchorNode)) {
    const ends = [indexOf(selection.anchorNode), indexOf(selection.focusNode)].sort((a, b) => a - b);
    if (ends[0] >= 0 && ends[1] > ends[0]) return trigger("select", { start: ends[0], end: ends[1] + 1 });
  }
  const index = indexOf(event.target);
  if (index < 0) return;
  point(index, false);
  trigger("click", { index });
});
// Other views of the same text, such as the drawn cell, move the current token.
element.addEventListener("lm:move", (event) => point(event.detail, false));
watch("value", draw);
draw();
