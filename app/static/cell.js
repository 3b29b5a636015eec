// The drawn cell. Gradio defines `element`, `props`, `trigger` and `watch`.
// Every number comes from the server as it is displayed; here it only gets a place, a color and a width.
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 640, LINE = 62, MIDDLE = 118, LOW = 152, GATE = 209, H_BUS = 264, X_BUS = 288, SOURCES = 324, STRIPS = 384;
const MARGIN = 2; // columns kept between the current token and the ends of the strips
const PREFETCH = 12; // steps before the end of the window at which the next ones are requested
const PATIENCE = 5000; // milliseconds after which an answer is taken for lost
const place = () => element.querySelector(".diagram");
let current = lmInside.position, selected = null, firstColumn = 0, requested = -Infinity, columns = null;

function make(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
const label = (x, y, text, attributes = {}) => make("text", { x, y, ...attributes }, text);
const pretty = (name) => name.replaceAll("'", "′");

// A value as a color and a width: `largest` is a large value of its kind.
function look(value, largest = 1) {
  const share = Math.min(1, Math.abs(Number(value)) / largest);
  return {
    class: `wire ${Number(value) < 0 ? "cold" : "warm"}`,
    "stroke-width": (1.25 + 5.5 * share).toFixed(2),
    "stroke-opacity": (0.3 + 0.7 * share).toFixed(2),
  };
}

// A wire through the points [x, y], ..., with an arrow at its end and its value next to `at`.
function wire(svg, points, value, { largest = 1, at = null, name = "", short = name, anchor = "middle", strong = false } = {}) {
  const path = points.map(([x, y], index) => `${index ? "L" : "M"}${x} ${y}`).join("");
  svg.append(make("path", { d: path, ...look(value, largest) }));
  const [[x0, y0], [x, y]] = points.slice(-2);
  const [dx, dy] = [Math.sign(x - x0), Math.sign(y - y0)];
  const arrow = `M${x + 2 * dx} ${y + 2 * dy}L${x - 6 * dx - 4.5 * dy} ${y - 6 * dy - 4.5 * dx}L${x - 6 * dx + 4.5 * dy} ${y - 6 * dy + 4.5 * dx}Z`;
  svg.append(make("path", { d: arrow, class: Number(value) < 0 ? "cold-fill" : "warm-fill" }));
  if (at) {
    const text = label(...at, "", { "text-anchor": anchor, class: strong ? "strong" : "" });
    if (short) text.append(make("tspan", { class: "quiet" }, `${pretty(short)} `));
    text.append(make("tspan", { "data-name": name || "sum" }, value));
    svg.append(text);
  }
}

function operation(svg, x, y, symbol) {
  svg.append(make("circle", { cx: x, cy: y, r: 12, class: "node" }));
  svg.append(label(x, y + 5, symbol, { "text-anchor": "middle", class: "symbol" }));
}

function squash(svg, x, y, name) {
  svg.append(make("rect", { x: x - 24, y: y - 11, width: 48, height: 22, rx: 11, class: "node" }));
  svg.append(label(x, y + 4, name, { "text-anchor": "middle" }));
}

// A gate: a click shows its largest contributions.
function gate(svg, step, name, x) {
  const { function: squashing, total, value, b } = step.gates[name];
  const group = make("g", { class: name === selected ? "gate selected" : "gate", "data-gate": name });
  group.append(make("rect", { x: x - 46, y: GATE - 25, width: 92, height: 50, rx: 8, class: "box" }));
  const first = label(x, GATE - 9, "", { "text-anchor": "middle", class: "strong" });
  first.append(`${name} = `, make("tspan", { "data-gate-value": name }, value));
  group.append(first);
  group.append(label(x, GATE + 6, `${squashing}(${total})`, { "text-anchor": "middle" }));
  group.append(label(x, GATE + 19, `b ${b}`, { "text-anchor": "middle", class: "quiet" }));
  group.addEventListener("click", () => {
    selected = name;
    draw();
  });
  svg.append(group);
}

// The sums of a gate: wires from the buses of x and h.
function sums(svg, step, name, x) {
  const { x: fromX, h: fromH } = step.gates[name];
  wire(svg, [[x - 18, X_BUS], [x - 18, GATE + 28]], fromX, { largest: 4, at: [x - 22, X_BUS - 7], anchor: "end" });
  wire(svg, [[x + 18, H_BUS], [x + 18, GATE + 28]], fromH, { largest: 4, at: [x + 24, H_BUS - 9], anchor: "start" });
}

function buses(svg, token, lastX, lastH) {
  for (const [y, end, name] of [[H_BUS, lastH, "h"], [X_BUS, lastX, `x “${token}”`]]) {
    svg.append(make("path", { d: `M8 ${y}H${end}`, class: "bus" }));
    svg.append(label(8, y === H_BUS ? y - 7 : y + 15, name, { class: "strong" }));
  }
}

// The x of each gate.
const PLACES = { rnn: { h: 320 }, gru: { z: 90, r: 240, n: 490 }, lstm: { f: 90, i: 220, g: 350, o: 480 } };
const CELLS = {
  rnn(svg, step) {
    const { values } = step;
    sums(svg, step, "h", 320);
    wire(svg, [[320, GATE - 25], [320, LINE], [WIDTH - 10, LINE]], values["h'"], { at: [WIDTH - 8, LINE - 9], name: "h'", anchor: "end", strong: true });
    gate(svg, step, "h", 320);
    return [302, 338];
  },
  gru(svg, step) {
    const { values } = step;
    sums(svg, step, "z", 90);
    sums(svg, step, "r", 240);
    wire(svg, [[490, X_BUS], [490, GATE + 28]], step.gates.n.x, { largest: 4, at: [497, X_BUS - 7], anchor: "start" });
    wire(svg, [[375, H_BUS], [375, GATE + 14]], values["W_hn·h + b_hn"], { largest: 4, at: [382, H_BUS - 9], name: "W_hn·h + b_hn", short: "", anchor: "start" });
    wire(svg, [[286, GATE], [361, GATE]], values.r);
    wire(svg, [[387, GATE], [442, GATE]], values["r·(W_hn·h + b_hn)"], { largest: 4, at: [413, GATE - 9], name: "r·(W_hn·h + b_hn)", short: "" });
    wire(svg, [[8, LINE], [76, LINE]], values.h, { at: [10, LINE - 9], name: "h", anchor: "start", strong: true });
    wire(svg, [[90, GATE - 25], [90, LINE + 14]], values.z);
    wire(svg, [[90, MIDDLE], [176, MIDDLE]], values.z);
    wire(svg, [[202, MIDDLE], [476, MIDDLE]], values["1 - z"], { at: [330, MIDDLE - 9], name: "1 - z" });
    wire(svg, [[102, LINE], [476, LINE]], values["z·h"], { at: [290, LINE - 9], name: "z·h" });
    wire(svg, [[490, GATE - 25], [490, MIDDLE + 14]], values.n);
    wire(svg, [[490, MIDDLE - 12], [490, LINE + 14]], values["(1 - z)·n"], { at: [500, (LINE + MIDDLE) / 2 + 4], name: "(1 - z)·n", anchor: "start" });
    wire(svg, [[502, LINE], [WIDTH - 10, LINE]], values["h'"], { at: [WIDTH - 8, LINE - 9], name: "h'", anchor: "end", strong: true });
    for (const [x, y, symbol] of [[90, LINE, "×"], [490, LINE, "+"], [490, MIDDLE, "×"], [190, MIDDLE, "1−"], [375, GATE, "×"]]) operation(svg, x, y, symbol);
    for (const [name, x] of Object.entries(PLACES.gru)) gate(svg, step, name, x);
    return [490, 375];
  },
  lstm(svg, step, memory) {
    const { values } = step;
    for (const [name, x] of Object.entries(PLACES.lstm)) sums(svg, step, name, x);
    wire(svg, [[8, LINE], [76, LINE]], values.c, { largest: memory, at: [10, LINE - 9], name: "c", anchor: "start", strong: true });
    wire(svg, [[90, GATE - 25], [90, LINE + 14]], values.f);
    wire(svg, [[102, LINE], [271, LINE]], values["f·c"], { largest: memory, at: [180, LINE - 9], name: "f·c" });
    wire(svg, [[220, GATE - 25], [220, MIDDLE], [271, MIDDLE]], values.i);
    wire(svg, [[350, GATE - 25], [350, MIDDLE], [299, MIDDLE]], values.g);
    wire(svg, [[285, MIDDLE - 12], [285, LINE + 14]], values["i·g"], { at: [295, (LINE + MIDDLE) / 2 + 4], name: "i·g", anchor: "start" });
    wire(svg, [[297, LINE], [WIDTH - 10, LINE]], values["c'"], { largest: memory, at: [WIDTH - 8, LINE - 9], name: "c'", anchor: "end", strong: true });
    wire(svg, [[480, LINE], [480, 85]], values["c'"], { largest: memory });
    wire(svg, [[480, 108], [480, LOW - 14]], values["tanh(c')"], { at: [471, 130], name: "tanh(c')", anchor: "end" });
    wire(svg, [[480, GATE - 25], [480, LOW + 14]], values.o);
    wire(svg, [[492, LOW], [WIDTH - 10, LOW]], values["h'"], { at: [WIDTH - 8, LOW - 9], name: "h'", anchor: "end", strong: true });
    for (const [x, y, symbol] of [[90, LINE, "×"], [285, LINE, "+"], [285, MIDDLE, "×"], [480, LOW, "×"]]) operation(svg, x, y, symbol);
    squash(svg, 480, 98, "tanh");
    for (const [name, x] of Object.entries(PLACES.lstm)) gate(svg, step, name, x);
    return [462, 498];
  },
};

// The inputs with the largest contributions to the selected gate, and their wires to it.
function sources(svg, data, step) {
  const { largest } = step.gates[selected], width = WIDTH / Math.max(5, largest.length);
  const most = Math.max(...largest.map(([, , , product]) => Math.abs(product)), 1e-9);
  largest.forEach(([key, value, weight, product], index) => {
    const x = width * (index + 0.5), to = PLACES[data.cell][selected], [name, tracked] = data.sources[key];
    const curve = `M${x} ${SOURCES - 12}C${x} ${X_BUS},${to} ${X_BUS + 8},${to} ${GATE + 26}`;
    svg.append(make("path", { d: curve, ...look(product, most), "stroke-opacity": 0.3 }));
    const centered = { "text-anchor": "middle" };
    svg.append(label(x, SOURCES, name, { ...centered, class: "strong small" }));
    if (tracked) svg.append(label(x, SOURCES + 13, tracked, { ...centered, class: "small" }));
    svg.append(label(x, SOURCES + 26, `${value}·${weight} = ${product}`, { ...centered, class: "quiet tiny", "data-source": key }));
  });
}

// Values along the text, one column for each token.
function strips(svg, data) {
  const lengths = data.tokens.map((token) => [...token].length).sort((a, b) => a - b);
  const left = 26, column = Math.min(48, Math.max(9.4, 6.4 * lengths[Math.floor(lengths.length * 0.8)] + 3));
  const count = Math.floor((WIDTH - left) / column), end = data.first + data.steps.length;
  if (current < firstColumn + MARGIN || current >= firstColumn + count - MARGIN) firstColumn = current - (count >> 1);
  firstColumn = Math.max(data.first, Math.min(firstColumn, end - count));
  const height = 16 * data.strips.length + 16;
  // Moving within the columns changes only which of them is marked.
  if (columns?.data !== data || columns.first !== firstColumn) {
    columns = { data, first: firstColumn, group: make("g") };
    const indices = [...Array(count).keys()].map((n) => firstColumn + n).filter((index) => index < end);
    data.strips.forEach((name, row) => strip(columns.group, data, indices, name, STRIPS + 16 * row, left, column));
    const most = Math.floor(column / 6.4) || 1;
    indices.forEach((index, n) => {
      const token = data.tokens[index - data.first], isSpace = token === " ", characters = [...token];
      const shown = isSpace ? "␣" : characters.length > most ? `${characters.slice(0, most - 1).join("")}…` : token;
      const attributes = { "text-anchor": "middle", class: isSpace ? "token quiet" : "token" };
      columns.group.append(label(left + (n + 0.5) * column, STRIPS + height - 4, shown, attributes));
    });
    const target = make("rect", { x: left, y: STRIPS - 2, width: indices.length * column, height: height + 2, class: "columns" });
    target.addEventListener("click", ({ clientX }) => {
      const { left: begin, width } = target.getBoundingClientRect();
      lmInside.move(indices[Math.floor(((clientX - begin) / width) * indices.length)]);
    });
    columns.group.append(target);
  }
  const here = { x: left + (current - firstColumn) * column, y: STRIPS - 2, width: column, height: height + 2, class: "here" };
  svg.append(columns.group, make("rect", here));
  return STRIPS + height + 2;
}

function strip(group, data, indices, name, y, left, column) {
  group.append(label(0, y + 11, pretty(name), { class: "strong small" }));
  const shown = indices.map((index) => Number(data.steps[index - data.first].values[name]));
  const largest = Math.max(1, ...shown.map(Math.abs));
  shown.forEach((value, n) => {
    const cell = { x: (left + n * column).toFixed(1), y, width: (column - 0.6).toFixed(1), height: 14 };
    const color = { class: value < 0 ? "cold-fill" : "warm-fill", "fill-opacity": (Math.abs(value) / largest).toFixed(2) };
    group.append(make("rect", { ...cell, ...color }));
  });
}

function formulas(data, step) {
  const rows = data.equations.map(([name, formula], index) => {
    const row = document.createElement("div");
    const [numbers, ...rest] = step.numbers[index].split(" = ");
    const value = step.values[name] ?? step.gates[name]?.value;
    for (const text of [`${pretty(name)} = ${pretty(formula)}`, `= ${pretty(numbers)}`, ...rest.map((part) => `= ${part}`)])
      row.append(Object.assign(document.createElement("code"), { textContent: text }));
    row.append(Object.assign(document.createElement("code"), { className: "value", textContent: `= ${value}` }));
    return row;
  });
  element.querySelector(".equations").replaceChildren(...rows);
}

// The buttons stay when the cell is drawn again: one of them may have the focus.
const actions = element.querySelector(".actions"), [fullScreen, save] = actions.children;
fullScreen.addEventListener("click", () => element.requestFullscreen?.());
save.addEventListener("click", download);

// The drawing as a file of its own: every color and font that it has on the page becomes an attribute.
function download() {
  const shown = place().querySelector("svg"), copy = shown.cloneNode(true);
  const styles = ["fill", "fill-opacity", "stroke", "stroke-opacity", "stroke-width", "font-family", "font-size", "font-weight", "text-anchor"];
  const copies = copy.querySelectorAll("*");
  shown.querySelectorAll("*").forEach((node, index) => {
    const style = getComputedStyle(node);
    for (const name of styles) copies[index].setAttribute(name, style.getPropertyValue(name));
  });
  const [, , width, height] = shown.getAttribute("viewBox").split(" ");
  copy.prepend(make("rect", { width, height, fill: getComputedStyle(document.body).backgroundColor }));
  copy.setAttribute("xmlns", SVG);
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  const name = `${props.value.title.replace(/[^\p{L}\p{N}]+/gu, "-")}.svg`.toLowerCase();
  lm.save(new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" }), name);
}

function draw() {
  const data = props.value;
  const step = data?.steps?.[current - data.first];
  element.classList.toggle("waiting", !step);
  if (!step) return request();
  const gates = PLACES[data.cell];
  if (!(selected in gates)) selected = Object.keys(gates)[0];
  const svg = make("svg", { role: "img", class: "lm-cell" }), token = data.tokens[current - data.first];
  svg.append(label(8, 18, data.title, { class: "title" }));
  svg.append(label(8, 34, data.legend, { class: "quiet small" }));
  svg.append(label(WIDTH - 8, 18, `${data.backward ? "← " : ""}${data.caption} “${token}”`, { "text-anchor": "end", class: "title" }));
  svg.append(label(WIDTH - 8, 34, `${data.predicted} ${step.predicted}`, { "text-anchor": "end", class: "quiet small" }));
  sources(svg, data, step);
  const memory = Math.max(1, ...data.steps.map(({ values }) => Math.abs(values["c'"] ?? 0)));
  const scene = make("g"), [lastX, lastH] = CELLS[data.cell](scene, step, memory);
  buses(svg, token, lastX, lastH);
  svg.append(scene, label(8, SOURCES + 44, data.largest.replace("{gate}", selected), { class: "quiet small" }));
  const height = strips(svg, data);
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${height}`);
  svg.setAttribute("aria-label", `${data.title}: ${data.caption} “${token}”, h′ = ${step.values["h'"]}`);
  place().replaceChildren(svg);
  place().setAttribute("aria-label", data.keys);
  formulas(data, step);
  actions.hidden = false;
  fullScreen.textContent = data.fullScreen;
  save.textContent = data.download;
  const [before, after] = [current - data.first, data.first + data.steps.length - 1 - current];
  if ((before < PREFETCH && data.first > 0) || (after < PREFETCH && data.first + data.steps.length < data.count)) request();
}

// Ask for the steps around the current token. While an answer is on its way, the tokens passed meanwhile wait.
function request() {
  if (performance.now() - requested < PATIENCE) return;
  requested = performance.now();
  trigger("expand", { index: current });
}

element.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], turn = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!props.value?.steps || !(step || turn)) return;
  event.preventDefault();
  if (step) return lmInside.move(current + step);
  const gates = Object.keys(PLACES[props.value.cell]);
  selected = gates[(gates.indexOf(selected) + turn + gates.length) % gates.length];
  draw();
});
function follow(event) {
  if (!element.isConnected) return document.removeEventListener("lm:token", follow);
  if (!event.target.closest("#inside-view")) return;
  current = event.detail;
  draw();
}
document.addEventListener("lm:token", follow);
watch("value", () => {
  requested = -Infinity;
  draw();
});
draw();
