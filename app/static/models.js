// The table of models. Gradio defines `element`, `props`, `trigger` and `watch`.
// Text is inserted as text, never as HTML.
let order = null; // { column, descending }; null: as the server sent the rows
let selected = null; // the name of the model that is selected on the page
let writing = false; // whether the server writes a file

const { make } = lm;
const button = (label, onclick, className = "") => make("button", { type: "button", onclick, className }, label);

function compare({ cells: one }, { cells: other }) {
  const [a, b] = [one, other].map((cells) => cells[order.column].value);
  if (a === null || b === null) return (a === null) - (b === null); // what is unknown is always last
  return (a < b ? -1 : a > b ? 1 : 0) * (order.descending ? -1 : 1);
}

function sort(column) {
  order = { column, descending: order?.column === column && !order.descending };
  draw();
  element.querySelectorAll("thead button")[column].focus();
}

function head(label, column) {
  const cell = make("th", { scope: "col" }, button(label, () => sort(column)));
  if (order?.column === column) cell.ariaSort = order.descending ? "descending" : "ascending";
  return cell;
}

function actions(name) {
  const { tabs, formats, label } = props.value;
  const files = formats.map(([suffix, text]) => {
    const save = button(text, () => {
      setWriting(true);
      trigger("download", { name, suffix });
    });
    save.disabled = writing;
    return save;
  });
  return make("td", { className: "actions" },
    ...tabs.map(([tab, text]) => button(text, () => trigger("click", { name, tab }))),
    make("details", {}, make("summary", {}, label), make("div", { className: "files" }, ...files)));
}

function row({ name, cells }) {
  const select = button(cells[0].text, () => trigger("select", { name }), "name");
  select.ariaPressed = name === selected;
  const others = cells.slice(1).map(({ text }) => make("td", {}, text));
  return make("tr", {}, make("th", { scope: "row" }, select), ...others, actions(name));
}

function draw() {
  const { headers = [], rows = [] } = props.value ?? {};
  element.querySelector(".scrolls").setAttribute("aria-label", props.label);
  element.querySelector("thead tr").replaceChildren(...headers.map(head), make("td", { className: "actions" }));
  const ordered = order ? rows.toSorted(compare) : rows;
  element.querySelector("tbody").replaceChildren(...ordered.map(row));
}

function setWriting(value) {
  writing = value;
  for (const save of element.querySelectorAll(".files button")) save.disabled = value;
}

window.lmModels = {
  mark(name) {
    selected = name;
    for (const select of element.querySelectorAll(".name")) select.ariaPressed = select.textContent === name;
  },
  written: () => setWriting(false),
};
watch("value", draw);
draw();
