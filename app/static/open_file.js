// A file that the browser reads itself: the server gets only its text. Gradio defines `element`, `props`, `trigger`.
const LONGEST = 100_000; // bytes; longer texts are rejected anyway
const input = element.querySelector("input");
element.querySelector("span").textContent = props.label;
input.addEventListener("change", async () => {
  if (!input.files.length) return;
  const text = await lm.decoded(input.files[0].slice(0, LONGEST), true);
  input.value = ""; // so that the same file can be chosen again
  trigger("click", { text });
});
