
"use strict";
// Shows, filters and sorts the answers. Whatever comes from data is set as text, never as HTML.
const KEY = 0, TASK = 1, PROMPTS = 2, ANSWERS = 3, EXPECTED = 4, SCORE = 5, PARTS = 6, TARGETS = 7, WRITTEN = 8;
const VALUE = 0, CLASS = 1, SIZE = 2, QUALITY = 3;
const PER_PAGE = 50;
const data = JSON.parse(document.getElementById("data").textContent);
const rows = data.rows;
const form = document.getElementById("filter");
const fields = form.elements;
const body = document.querySelector("#samples tbody");
const figures = new Map(Array.from(document.querySelectorAll("figure[data-row]"), (figure) => [Number(figure.dataset.row), figure]));
const last = (texts) => texts[texts.length - 1];
const digits = (value) => (value === null ? "–" : value.toFixed(3));
const WORDS = { right: ["wrong", "right"], refused: ["drawn", "refused"] };
const named = (names, index) => (index < 0 ? "" : names[index]);
const distinct = (row, names, place) => [...new Set(row[PARTS].map((part) => named(names, part[place])))].filter(Boolean).join(", ");

const columns = [
  ["Key", (row) => row[KEY], (row, index) => index],
  ["Task", (row) => data.tasks[row[TASK]], (row) => data.tasks[row[TASK]]],
  ["Asked", (row) => last(row[PROMPTS]), (row) => last(row[PROMPTS])],
  ["Answered", (row) => last(row[ANSWERS]) ?? "", (row) => last(row[ANSWERS]) ?? ""],
  ["Expected", (row) => last(row[EXPECTED]), (row) => last(row[EXPECTED])],
  ["Class", (row) => distinct(row, data.classes, CLASS), (row) => distinct(row, data.classes, CLASS)],
  ["Size", (row) => distinct(row, data.sizes, SIZE), (row) => Math.max(-1, ...row[PARTS].map((part) => part[SIZE]))],
  ["Score", (row) => digits(row[SCORE]), (row) => row[SCORE] ?? -1],
];
let sorted = 0, falling = false, page = 0, shown = [];
let texts = null;

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function choose() {
  const task = fields.task.value, name = fields.class.value, size = fields.size.value, text = fields.text.value.trim().toLowerCase();
  const low = fields.low.value === "" ? -Infinity : Number(fields.low.value), high = fields.high.value === "" ? Infinity : Number(fields.high.value);
  const narrowed = name !== "" || size !== "" || low !== -Infinity || high !== Infinity;
  const meets = (part) => (name === "" || part[CLASS] === Number(name)) && (size === "" || part[SIZE] === Number(size)) && part[VALUE] >= low && part[VALUE] <= high;
  if (text && texts === null) texts = rows.map((row) => [row[KEY], ...row[PROMPTS], ...row[ANSWERS], ...row[EXPECTED]].join("\n").toLowerCase());
  let masks = 0, sum = 0;
  shown = [];
  rows.forEach((row, index) => {
    if (task !== "" && row[TASK] !== Number(task)) return;
    if (text && !texts[index].includes(text)) return;
    const parts = row[PARTS].filter(meets);
    if (narrowed && !parts.length) return;
    shown.push(index);
    if (data.measures[row[TASK]] === "IoU of masks") for (const part of parts) { masks += 1; sum += part[VALUE]; }
  });
  const key = columns[sorted][2], keys = new Map(shown.map((index) => [index, key(rows[index], index)]));
  const sign = falling ? -1 : 1;
  shown.sort((one, other) => (keys.get(one) < keys.get(other) ? -sign : keys.get(one) > keys.get(other) ? sign : one - other));
  page = 0;
  const count = `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} answers`;
  document.getElementById("found").textContent = masks ? `${count}; mean IoU of their ${masks.toLocaleString("en")} masks that meet this: ${(sum / masks).toFixed(3)}` : count;
  const kept = new Set(shown);
  for (const [index, figure] of figures) figure.hidden = !kept.has(index);
  for (const strip of document.querySelectorAll(".strip")) strip.hidden = !strip.querySelector("figure:not([hidden])");
  draw();
}

function draw() {
  const pages = Math.max(1, Math.ceil(shown.length / PER_PAGE));
  body.replaceChildren(...shown.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(line));
  document.getElementById("page").textContent = `page ${page + 1} of ${pages}`;
  document.getElementById("back").disabled = page === 0;
  document.getElementById("next").disabled = page >= pages - 1;
  document.querySelectorAll("#samples thead th").forEach((head, index) => {
    head.setAttribute("aria-sort", index !== sorted ? "none" : falling ? "descending" : "ascending");
    head.firstChild.textContent = columns[index][0] + (index !== sorted ? "" : falling ? " ▾" : " ▴");
  });
}

function line(index) {
  const row = rows[index], made = element("tr", undefined, "row");
  made.dataset.index = index;
  columns.forEach(([title, text], place) => {
    const cell = made.appendChild(element("td"));
    if (place === 0) {
      const open = cell.appendChild(element("button", text(row), "open"));
      open.type = "button";
      open.setAttribute("aria-expanded", "false");
    } else if (title === "Score") {
      cell.className = "score";
      const measure = row[SCORE] === null ? "" : data.measures[row[TASK]];
      cell.append(text(row), element("small", ` ${WORDS[measure]?.[row[SCORE]] ?? measure}`));
    } else cell.appendChild(element("div", text(row), "clip"));
  });
  return made;
}

function unfold(line) {
  const open = line.querySelector(".open").getAttribute("aria-expanded") === "true";
  line.querySelector(".open").setAttribute("aria-expanded", String(!open));
  if (open) return void line.nextSibling.remove();
  const index = Number(line.dataset.index), row = rows[index], cell = element("td"), list = element("dl");
  cell.colSpan = columns.length;
  const say = (name, text) => list.append(element("dt", name), element("dd", text));
  row[PROMPTS].forEach((prompt, turn) => { say("asked", prompt); say("answered", row[ANSWERS][turn] ?? "(nothing)"); say("expected", row[EXPECTED][turn]); });
  if (row[TARGETS] || row[WRITTEN]) say("masks", `${row[TARGETS]} asked for` + (row[WRITTEN] === null ? "" : `, ${row[WRITTEN]} [SEG] written`));
  row[PARTS].forEach((part, place) => {
    const about = [named(data.classes, part[CLASS]), named(data.sizes, part[SIZE]), part[QUALITY] == null ? "" : `the decoder expected ${digits(part[QUALITY])}`];
    say(data.measures[row[TASK]] + (row[PARTS].length > 1 ? ` (${place + 1})` : ""), [digits(part[VALUE]), ...about.filter(Boolean)].join(", "));
  });
  cell.append(list);
  if (figures.has(index)) cell.append(figures.get(index).querySelector("img").cloneNode());
  const more = element("tr", undefined, "more");
  more.append(cell);
  line.after(more);
}

function filterBy(source) {
  form.reset();
  const { task, low, high } = source.dataset;
  if (task !== undefined) fields.task.value = data.tasks.indexOf(task);
  if (source.dataset.class !== undefined) fields.class.value = data.classes.indexOf(source.dataset.class);
  if (source.dataset.size !== undefined) fields.size.value = data.sizes.indexOf(source.dataset.size);
  fields.low.value = low ?? "";
  fields.high.value = high ?? "";
  choose();
  document.getElementById("answers").scrollIntoView();
}

for (const [name, values] of [["task", data.tasks], ["class", data.classes], ["size", data.sizes]]) {
  values.forEach((value, index) => { fields[name].append(new Option(value, index)); });
}
columns.forEach(([title], index) => {
  const head = element("th"), button = head.appendChild(element("button", title));
  head.scope = "col";
  button.type = "button";
  button.addEventListener("click", () => { falling = sorted === index && !falling; sorted = index; choose(); });
  document.querySelector("#samples thead tr").append(head);
});
form.addEventListener("input", choose);
form.addEventListener("reset", () => setTimeout(choose));
form.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("back").addEventListener("click", () => { page -= 1; draw(); });
document.getElementById("next").addEventListener("click", () => { page += 1; draw(); });
body.addEventListener("click", (event) => { const found = event.target.closest("tr.row"); if (found) unfold(found); });
document.addEventListener("click", (event) => {
  const filter = event.target.closest("[data-filter]"), picture = event.target.closest(".pictures button");
  if (filter) filterBy(filter);
  if (picture) {
    const large = document.getElementById("large");
    large.querySelector("button").replaceChildren(picture.querySelector("img").cloneNode());
    large.showModal();
  }
});
document.addEventListener("keydown", (event) => {
  const bar = event.target.closest("g[data-filter]");
  if (bar && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); filterBy(bar); }
});
choose();
