// Buttons that save the colored text of a unit as SVG or PNG. Gradio defines `element`, `props`, `trigger`, `watch`.
const SCALE = 2; // pixels of the PNG per unit of the SVG

async function download({ svg, name }) {
  const blob = new Blob([svg], { type: "image/svg+xml" });
  if (name.endsWith(".svg")) return lm.save(blob, name);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth * SCALE;
  canvas.height = image.naturalHeight * SCALE;
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((png) => lm.save(png, name), "image/png");
}

element.querySelector(".note").textContent = props.label;
for (const button of element.querySelectorAll("button")) {
  button.addEventListener("click", () => trigger("click", { kind: button.textContent }));
}
watch("value", () => {
  if (props.value) download(props.value);
});
