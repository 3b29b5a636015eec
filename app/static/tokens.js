// The token view. Gradio defines `element`, `props`, `trigger` and `watch`.
let current = -1, anchor = -1;
const box = () => element.querySelector(".tokens");
const indexOf = (node) => {
  const token = (node && node.nodeType === 3 ? node.parentElement : node)?.closest?.("[data-index]");
  return token && element.contains(token) ? Number(token.dataset.index) : -1;
};

function draw() {
  const { tokens = [], levels = [], tooltips = [], selected = null } = props.value || {};
  const parts = tokens.map((text, index) => {
    const token = document.createElement("span");
    token.id = `${element.id || "view"}-token-${index}`;
    token.dataset.index = index;
    token.setAttribute("role", "option");
    token.setAttribute("aria-selected", index === selected);
    token.textContent = text;
    if (levels[index]) token.dataset.level = levels[index];
    if (text.includes("\n")) token.classList.add("ends-line");
    if (tooltips[index]) token.title = tooltips[index];
    return token;
  });
  current = selected ?? -1;
  anchor = -1;
  box().replaceChildren(...parts);
  box().setAttribute("aria-label", props.label || "");
  box().removeAttribute("aria-activedescendant");
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
  tokens[index].scrollIntoView({ block: "nearest" });
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
watch("value", draw);
draw();
