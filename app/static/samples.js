// The samples of a training run, with a slider from the first to the latest, and its progress in the browser's title.
// Gradio defines `element`, `props` and `watch`.
const [head, text] = [element.querySelector(".head"), element.querySelector("pre")];
const [name, slider, step] = ["span", "input", "output"].map((tag) => head.querySelector(tag));
let job = null;
let chosen = null; // the sample that the user has moved the slider to; null: the latest

function draw() {
  const { samples = [], label = "", ...value } = props.value ?? {};
  if (value.job !== job) chosen = null;
  job = value.job;
  head.hidden = text.hidden = !samples.length;
  const index = Math.min(chosen ?? samples.length, samples.length - 1);
  slider.max = Math.max(samples.length - 1, 0);
  slider.value = index;
  name.textContent = label;
  slider.setAttribute("aria-label", label);
  const [when, sample] = samples[index] ?? ["", ""];
  step.textContent = when;
  slider.setAttribute("aria-valuetext", when);
  if (text.textContent !== sample) text.textContent = sample; // what the user has selected stays selected
  text.setAttribute("aria-label", `${label}: ${when}`);
  lmTrain.showInTitle(value);
}

slider.addEventListener("input", () => {
  chosen = slider.value === slider.max ? null : Number(slider.value);
  draw();
});
watch("value", draw);
draw();
