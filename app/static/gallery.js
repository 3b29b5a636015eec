// The gallery of units. Gradio defines `element`, `props`, `trigger` and `watch`.
// Its rows are computed when it comes into view, and again for another text. Text is inserted as text, never as HTML.
const { make } = lm;
const span = (className, ...children) => make("span", { className }, ...children);
let visible = false, asked = false;

function row({ property, title, unit, share, tokens, levels }) {
  const strip = span("strip", ...tokens.map((text, index) => {
    const token = span("", text);
    if (levels[index]) token.dataset.level = levels[index];
    return token;
  }));
  const bar = span("bar");
  bar.style.setProperty("--share", share);
  const parts = [span("title", title), bar, span("unit", unit), strip];
  const button = make("button", { type: "button", className: "row" }, ...parts);
  button.addEventListener("click", () => {
    for (const other of element.querySelectorAll(".row")) other.setAttribute("aria-pressed", other === button);
    trigger("click", { property });
  });
  return make("li", {}, button);
}

function ask() {
  if (!visible || asked || props.value?.rows) return;
  asked = true;
  trigger("load");
}

function draw() {
  const { rows = [], note = "" } = props.value || {};
  element.querySelector(".rows").replaceChildren(...rows.map(row));
  element.querySelector(".note").textContent = note;
  asked = false;
  ask();
}

new IntersectionObserver((entries) => {
  visible = entries.at(-1).isIntersecting;
  ask();
}).observe(element);
watch("value", draw);
draw();
