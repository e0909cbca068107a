"use strict";
const entries = JSON.parse(document.getElementById("entries").textContent);
const form = document.forms[0];
const board = document.getElementById("board");
const columns = [
  ["#", "rank"], ["method", "name"], ["worst case", "value"], ["", "", "wide"],
  ["against", "worst", "wide"], ["met", "met"],
];
let sorted = "rank", falling = false;

function made(tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text; // never as HTML: names are other people's
  element.className = className;
  return element;
}

function choices(name, values) {
  form.elements[name].append(new Option("all", ""));
  for (const value of values) form.elements[name].append(new Option(value, `=${value}`));
}

const text = (radius) => (radius === null ? "none" : String(radius));
const unique = (values) => [...new Set(values)];
const natural = (a, b) => a.localeCompare(b, "en", { numeric: true });
choices("family", unique(entries.map((e) => e.family)).sort(natural));
choices("radius", unique(entries.filter((e) => e.attack).map((e) => text(e.radius))).sort(natural));
choices("subject", unique(entries.flatMap((e) => Object.keys(e.subjects))).sort(natural));

function chosen() {
  const asked = (name) => form.elements[name].value;
  const fits = (name, value) => asked(name) === "" || asked(name) === `=${value}`;
  const subject = asked("subject").slice(1);
  return entries
    .filter((e) => e.attack && fits("family", e.family) && fits("radius", text(e.radius)))
    .filter((e) => asked("adaptive") === "" || (asked("adaptive") === "yes") === e.adaptive)
    .map((e) => ({ ...e, estimate: subject ? one(e.subjects, subject) : e.mean }))
    .filter((e) => e.estimate[0] !== null);
}

function one(subjects, name) {
  return Object.hasOwn(subjects, name) ? [subjects[name], null, null, 1] : [null, null, null, 0];
}

function ranked() {
  const attacks = form.elements.side.value === "attack";
  const groups = new Map();
  for (const e of chosen()) {
    const method = attacks ? [e.attack, e.radius] : [e.defence];
    const key = JSON.stringify([e.source, e.family, ...method]);
    groups.set(key, [...(groups.get(key) ?? []), e]);
  }
  const best = attacks ? -1 : 1; // an attack is better when less was learnt, a defence when more
  const rows = [...groups.values()].map((of) => {
    of.sort((a, b) => best * (a.estimate[0] - b.estimate[0]));
    const name = attacks ? of[0].attack : of[0].defence;
    const worst = attacks ? of[0].defence : attack(of[0]);
    return { of, name, worst, value: of[0].estimate[0], met: of.length, attacks };
  });
  rows.sort((a, b) => best * (b.value - a.value) || natural(a.name, b.name));
  rows.forEach((row, index) => { row.rank = index + 1; });
  return rows;
}

function span(rows) {
  const ends = rows.flatMap((row) => row.of.flatMap((e) => e.estimate.slice(0, 3)));
  const known = ends.filter((value) => value !== null);
  return [Math.min(...known), Math.max(...known)];
}

function interval([value, low, high], [from, to]) {
  const percent = (x) => (to > from ? (100 * (x - from)) / (to - from) : 50);
  const bar = made("div", "", "interval");
  if (low !== null && high !== null) {
    const line = bar.appendChild(made("i"));
    line.style.left = `${percent(low)}%`;
    line.style.width = `${percent(high) - percent(low)}%`;
  }
  bar.appendChild(made("b")).style.left = `${percent(value)}%`;
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", written([value, low, high]));
  return bar;
}

function written([value, low, high]) {
  const range = low === null || high === null ? "" : ` [${low.toFixed(2)}, ${high.toFixed(2)}]`;
  return value.toFixed(2) + range;
}

function counted(estimate) {
  return `${written(estimate)}, n ${estimate[3]}`;
}

function attack(e) {
  if (!e.attack) return "unprotected";
  return e.radius === null ? e.attack : `${e.attack} (${e.radius}/255)`;
}

function unprotected(met) { // what the defence costs where there is nothing to defend against
  const same = (e) => ["source", "family", "defence"].every((key) => e[key] === met[key]);
  const subject = form.elements.subject.value.slice(1);
  return entries
    .filter((e) => !e.attack && same(e))
    .map((e) => ({ ...e, estimate: subject ? one(e.subjects, subject) : e.mean }))
    .filter((e) => e.estimate[0] !== null);
}

function opponents(row, ends) {
  const cell = made("td");
  cell.colSpan = columns.length;
  for (const e of row.attacks ? row.of : [...row.of, ...unprotected(row.of[0])]) {
    const line = cell.appendChild(made("div", "", "opponent"));
    line.append(made("span", row.attacks ? e.defence : attack(e)), interval(e.estimate, ends));
    line.append(made("span", counted(e.estimate)));
    const from = line.appendChild(made("span", "", "from"));
    const link = made("a", e.command ? "config" : e.source);
    link.href = e.link;
    link.rel = "noopener noreferrer";
    from.append(link, " ", made("code", e.command), e.adaptive ? " adaptive" : "");
    if (e.picture) {
      const strip = line.appendChild(made("img", "", "strip"));
      strip.src = e.picture;
      strip.title = strip.alt = "given, published, learnt from; then what was learnt";
    }
  }
  return cell;
}

function about({ of: [first], attacks }) {
  const radius = attacks && first.radius !== null ? [`${first.radius}/255`] : [];
  return [...radius, first.family, first.source].join(", ");
}

function show() {
  const rows = ranked();
  const ends = span(rows);
  const order = (a, b) => (typeof a === "number" ? a - b : natural(a, b));
  rows.sort((a, b) => (falling ? -1 : 1) * order(a[sorted], b[sorted]));
  document.getElementById("none").hidden = rows.length > 0;
  board.tBodies[0].replaceChildren();
  for (const row of rows) {
    const line = board.tBodies[0].insertRow();
    const name = made("button", row.name);
    name.type = "button";
    name.setAttribute("aria-expanded", "false");
    const described = made("td");
    described.append(name, made("div", about(row), "quiet"));
    const drawn = made("td", "", "wide");
    drawn.append(interval(row.of[0].estimate, ends));
    line.append(made("td", row.rank), described, made("td", counted(row.of[0].estimate)), drawn);
    line.append(made("td", row.worst, "wide"), made("td", row.met));
    const details = board.tBodies[0].insertRow();
    details.hidden = true;
    details.append(opponents(row, ends));
    name.addEventListener("click", () => {
      details.hidden = !details.hidden;
      name.setAttribute("aria-expanded", String(!details.hidden));
    });
  }
}

for (const [title, key, className = ""] of columns) {
  const head = board.tHead.rows[0].appendChild(made("th", "", className));
  if (!key) continue;
  const button = head.appendChild(made("button", title));
  button.type = "button";
  button.addEventListener("click", () => {
    falling = sorted === key && !falling;
    sorted = key;
    show();
  });
}
form.addEventListener("change", show);
show();
