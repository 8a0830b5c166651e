// Draws the report from the JSON in this page. Names and texts in it are foreign: they reach the page as text nodes only.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");

function make(parent, tag, text, className) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (className) e.className = className;
  parent.append(e);
  return e;
}

function list(dl, pairs) {
  for (const [word, text] of pairs) make(dl, "dt", word), make(dl, "dd", text);
}

// Scores from 0.01 to 1,000,000 are 0 to 1.
const LOW = -2, HIGH = 6;
const place = (score) => score === "inf" || score === "nan" ? 1
  : Math.min(1, Math.max(0, (Math.log10(Math.max(score, 1e-9)) - LOW) / (HIGH - LOW)));

// Monotone in lightness, from yellow over red to violet; on a dark ground the light end is the large one.
function lightness(t) { return dark.matches ? 0.26 + 0.66 * t : 0.955 - 0.655 * t; }
function colour(t) {
  const bright = dark.matches ? t : 1 - t;
  const hue = 300 + 160 * bright, chroma = 0.035 + 0.15 * Math.sin(Math.PI * Math.min(1, 0.1 + 0.8 * t));
  return `oklch(${lightness(t).toFixed(3)} ${chroma.toFixed(3)} ${(hue % 360).toFixed(0)})`;
}
function paint(e, score) {
  const t = place(score);
  e.style.backgroundColor = colour(t);
  e.style.setProperty("--dot", lightness(t) > 0.6 ? "#000" : "#fff");
}
const number = (x) => typeof x === "number" ? (x === 0 ? "0" : Math.abs(x) >= 0.001 && Math.abs(x) < 1e5
  ? String(Number(x.toPrecision(3))) : x.toExponential(2)) : String(x);
const over = (c) => typeof c.score !== "number" || c.score > 1;

const maps = data.maps.map((m) => ({...m, element: null}));
const cells = [];  // every cell in the order of the computation, map by map
let selected = null;

function layer_of(name) {
  const m = /^blk\.(\d{1,9})\.(.+)$/.exec(name);
  return m ? [Number(m[1]), m[2]] : null;
}

function add_cell(parent, map, c, named) {
  const b = make(parent, "button", undefined, "cell");
  b.type = "button";
  b.tabIndex = -1;
  b.setAttribute("aria-pressed", "false");
  b.setAttribute("aria-label", `${c.name}: ${c.lead}`);
  b.title = `${c.name}\n${c.lead}`;
  const swatch = named ? make(b, "span", undefined, "swatch") : b;
  if (named) b.append(c.name);
  paint(swatch, c.score);
  b.classList.toggle("over", over(c) && !c.excused);
  b.classList.toggle("first", Boolean(c.first));
  b.classList.toggle("excused", Boolean(c.excused));
  b.addEventListener("click", () => select(cell));
  b.addEventListener("focus", () => select(cell));
  const cell = {map, c, button: b, swatch, row: -1, column: -1};
  c.cell = cell;
  cells.push(cell);
  return cell;
}

function draw_map(map) {
  const section = make(at("maps"), "section", undefined, "map");
  make(section, "h2", map.title);
  make(section, "p", map.note, "note");
  const columns = [], layers = [];
  for (const c of map.cells) {
    c.where = layer_of(c.name);
    if (!c.where) continue;
    if (!columns.includes(c.where[1])) columns.push(c.where[1]);
    if (!layers.includes(c.where[0])) layers.push(c.where[0]);
  }
  layers.sort((a, b) => a - b);
  const head = map.cells.findIndex((c) => c.where);
  const before = map.cells.filter((c, i) => !c.where && (head < 0 || i < head));
  const after = map.cells.filter((c, i) => !c.where && head >= 0 && i > head);
  map.rows = [];
  const outside = (list) => {
    if (list.length === 0) return;
    const e = make(section, "div", undefined, "outside");
    map.rows.push(list.map((c) => add_cell(e, map, c, true)));
  };
  outside(before);
  if (columns.length > 0) draw_grid(section, map, columns, layers);
  outside(after);
  map.rows.forEach((row, r) => row.forEach((cell, i) => { if (cell) cell.row = r, cell.column = i; }));
}

function draw_grid(section, map, columns, layers) {
  const grid = make(section, "div", undefined, "grid");
  grid.style.gridTemplateColumns = `2.4em repeat(${columns.length}, minmax(0, 1fr))`;
  make(grid, "span");
  for (const c of columns) make(grid, "span", c, "column").title = c;
  const table = new Map(layers.map((l) => [l, new Array(columns.length).fill(null)]));
  for (const c of map.cells) if (c.where) table.get(c.where[0])[columns.indexOf(c.where[1])] = c;
  for (const l of layers) {
    make(grid, "span", String(l), "row");
    map.rows.push(table.get(l).map((c) => c ? add_cell(grid, map, c, false) : (make(grid, "span", undefined, "hole"), null)));
  }
}

// A bar per token or head: its height and colour are the logarithm of the error over the floor.
function draw_strip(panel, title, bars, floor, word) {
  if (!bars || bars.length < 2) return;
  make(panel, "h3", title);
  const strip = make(panel, "div", undefined, "strip"), ends = make(panel, "div", undefined, "ends");
  const label = (bar) => bar[0] === bar[1] ? `${word} ${bar[0]}` : `${word}s ${bar[0]}-${bar[1]}`;
  make(ends, "span", label(bars[0])), make(ends, "span", label(bars[bars.length - 1]));
  const said = make(panel, "p", "", "said");
  let pressed = null;
  const show = (bar, button) => {
    if (pressed) pressed.setAttribute("aria-pressed", "false");
    (pressed = button).setAttribute("aria-pressed", "true");
    const piece = word === "token" && data.tokens && data.tokens[bar[0]];
    said.textContent = `${label(bar)}${piece ? ` (${JSON.stringify(piece)})` : ""}: error ${number(bar[2])}` +
      (floor > 0 && typeof bar[2] === "number" ? ` = ${number(bar[2] / floor)} x floor` : "");
  };
  let worst = 0;
  bars.forEach((bar, i) => {
    const b = make(strip, "button");
    b.type = "button";
    b.tabIndex = i === 0 ? 0 : -1;
    const score = typeof bar[2] === "number" ? (floor > 0 ? bar[2] / floor : bar[2] > 0 ? 1e9 : 0) : "inf";
    b.title = label(bar);
    b.setAttribute("aria-label", `${label(bar)}: error ${number(bar[2])}`);
    const fill = make(b, "i");
    fill.style.height = `${Math.max(3, 100 * place(score))}%`;
    fill.style.backgroundColor = colour(place(score));
    for (const event of ["click", "mouseenter", "focus"]) b.addEventListener(event, () => show(bar, b));
    if (typeof bar[2] !== "number" || bar[2] > bars[worst][2]) worst = i;
  });
  strip.addEventListener("keydown", (e) => {
    const all = [...strip.children], i = all.indexOf(document.activeElement);
    const to = {ArrowLeft: i - 1, ArrowRight: i + 1, Home: 0, End: all.length - 1}[e.key];
    if (to === undefined || !all[to]) return;
    e.preventDefault(), e.stopPropagation();
    all.forEach((b) => b.tabIndex = -1), all[to].tabIndex = 0, all[to].focus();
  });
  show(bars[worst], strip.children[worst]);
}

function draw_panel(cell) {
  const panel = at("panel"), c = cell.c;
  panel.replaceChildren();
  make(panel, "p", cell.map.title, "map-name");
  make(panel, "h2", c.name);
  make(panel, "p", c.lead, "lead");
  list(make(panel, "dl"), c.facts);
  draw_strip(panel, "Error per token", c.tokens, c.floor, "token");
  draw_strip(panel, "Error per head", c.heads && c.heads.map((e, i) => [i, i, e]), c.floor, "head");
  for (const twin of twins(cell)) {
    const b = make(panel, "h3", `${twin.map.title}: `);
    make(b, "span", twin.c.lead).style.fontWeight = "400";
  }
}

const twins = (cell) => cells.filter((o) => o !== cell && o.c.name === cell.c.name);

function select(cell) {
  if (selected === cell) return;
  if (selected) {
    selected.button.setAttribute("aria-pressed", "false");
    for (const twin of twins(selected)) twin.button.classList.remove("twin");
    if (selected.map === cell.map) selected.button.tabIndex = -1;
  }
  for (const o of cells) if (o.map === cell.map) o.button.tabIndex = -1;
  selected = cell;
  cell.button.tabIndex = 0;
  cell.button.setAttribute("aria-pressed", "true");
  for (const twin of twins(cell)) twin.button.classList.add("twin");
  draw_panel(cell);
}

function move(cell, down, right) {
  const rows = cell.map.rows;
  let r = cell.row, i = cell.column;
  do {
    r += down, i += right;
    if (!rows[r] || i < 0 || (right !== 0 && i >= rows[r].length)) return;
  } while (!rows[r][Math.min(i, rows[r].length - 1)]);
  rows[r][Math.min(i, rows[r].length - 1)].button.focus();
}

function step(by) {
  const hot = cells.filter((o) => over(o.c) && !o.c.excused);
  if (hot.length === 0) return;
  const i = hot.indexOf(selected);
  hot[i < 0 ? 0 : (i + by + hot.length) % hot.length].button.focus();
}

function draw_tools() {
  const hot = cells.filter((o) => over(o.c) && !o.c.excused), tools = at("tools");
  if (cells.length === 0) return;
  const button = (text, key, act) => {
    const b = make(tools, "button", `${text} `);
    b.type = "button", b.disabled = hot.length === 0;
    make(b, "kbd", key);
    b.addEventListener("click", act);
  };
  button("First excess", "f", () => hot[0].button.focus());
  button("Previous", "p", () => step(-1));
  button("Next", "n", () => step(1));
  make(tools, "span", `${hot.length} of ${cells.length} cells above 1; arrow keys move`, "hint");
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const arrows = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
    if (arrows[e.key] && selected && document.activeElement === selected.button) e.preventDefault(), move(selected, ...arrows[e.key]);
    if (e.key === "n") step(1);
    if (e.key === "p") step(-1);
    if (e.key === "f" && hot.length > 0) hot[0].button.focus();
  });
}

function draw_legend() {
  const legend = at("legend");
  legend.replaceChildren();
  if (cells.length === 0) return;
  const stops = [];
  for (let i = 0; i <= 32; ++i) stops.push(colour(i / 32));
  make(legend, "div", undefined, "ramp").style.background = `linear-gradient(to right, ${stops.join(",")})`;
  const ticks = make(legend, "div", undefined, "ticks");
  for (const [power, text] of [[-2, "0.01"], [0, data.unit], [2, "100"], [4, "10,000"], [6, "million+"]])
    make(ticks, "span", text).style.left = `${100 * (power - LOW) / (HIGH - LOW)}%`;
}

document.title = `${data.verdict} - ${data.title}`;
document.body.className = data.level;
at("kind").textContent = data.title;
at("verdict").textContent = data.verdict;
list(at("lines"), data.lines);
list(at("facts"), data.facts);
for (const map of maps) draw_map(map);
draw_tools();
draw_legend();
for (const map of maps) if (map.rows.length > 0) map.rows[0].find(Boolean).button.tabIndex = 0;
const start = cells.find((o) => o.c.first) || cells.find((o) => over(o.c)) || cells[0];
if (start) select(start);
else at("panel").remove();
dark.addEventListener("change", () => {
  for (const cell of cells) paint(cell.swatch, cell.c.score);
  draw_legend();
  if (selected) draw_panel(selected);
});
