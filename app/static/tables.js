// Buttons that save the scores of the tokens or words. Gradio defines `element`, `props`, `trigger` and `watch`.
for (const button of element.querySelectorAll("button")) {
  button.addEventListener("click", () => trigger("click", { table: button.dataset.table }));
}
function draw() {
  const { labels = {}, text, name } = props.value || {};
  for (const button of element.querySelectorAll("button")) {
    button.textContent = labels[button.dataset.table] ?? "";
    button.hidden = !button.textContent; // until there is a text, the keyboard would stop at nothing
  }
  if (name) lm.save(new Blob([text], { type: "text/tab-separated-values" }), name);
}
watch("value", draw);
draw();
