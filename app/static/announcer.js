// Tells screen readers when the model starts and ends writing. Gradio defines `element` and `props`.
const [started, ended] = props.label.split("\n");
const said = element.querySelector("p");
(function setUp() {
  const stop = document.querySelector("#stop");
  if (!stop) return setTimeout(setUp, 50);
  const figures = () => document.querySelector("#status .prose")?.innerText ?? "";
  new MutationObserver(() => {
    said.textContent = stop.disabled ? `${ended} ${figures()}`.trim() : started;
  }).observe(stop, { attributeFilter: ["disabled"] });
})();
