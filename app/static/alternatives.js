// The alternatives panel: a button for each token. Gradio defines `element`, `props`, `trigger` and `watch`.
const bar = (share) => {
  const meter = document.createElement("span");
  meter.className = "bar";
  meter.style.setProperty("--share", share);
  return meter;
};
function draw() {
  const { title = "", hint = "", start = "", options = [] } = props.value || {};
  const heading = element.querySelector(".title");
  heading.textContent = title;
  const buttons = options.map(({ name, percent, share, token }) => {
    const button = document.createElement("button");
    const text = document.createElement("code");
    text.textContent = name;
    button.append(text, ` ${percent}`, bar(share));
    button.title = hint;
    button.addEventListener("click", () => trigger("click", { start, token }));
    return button;
  });
  element.querySelector(".options").replaceChildren(...buttons);
  element.dataset.start = start;
}
watch("value", draw);
draw();
