"use strict";
// Draws the page from the data that stands in it. All text of a run reaches the page as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.runs;
const one = runs.length === 1;
const shown = runs.map(() => true);
const byId = (id) => document.getElementById(id);
const color = (index) => `var(--c${index % 8})`;
const is = (value) => typeof value === "number" && isFinite(value);

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function svg(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function number(value) {
  if (!is(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(+value.toPrecision(4));
}

const percent = (share) => (is(share) ? `${(share * 100).toFixed(1)} %` : "–");

// ---- what was run
for (const run of runs) {
  const facts = make("dl");
  for (const [name, value] of run.facts) facts.append(make("dt", {}, name), make("dd", {}, value));
  const card = make("div", { class: "card" }, make("h3", {}, run.name), facts);
  for (const problem of run.problems) card.append(make("p", { class: "problem" }, problem));
  if (run.config) card.append(make("details", {}, make("summary", {}, "All settings"), make("pre", {}, run.config)));
  byId("runs").append(card);
}
byId("runs").className = "cards";

// ---- curves
const metrics = data.metrics;
const families = [
  ["Reward", (key) => key === "reward/mean" || key.startsWith("reward/")],
  ["Success", (key) => key.startsWith("success/")],
  ["Entropy", (key) => key === "entropy"],
  ["Gradient norm", (key) => key === "grad_norm"],
  ["Tokens a second", (key) => /^tokens\/.*_per_s$/.test(key)],
  ["Share of the time", (key) => key.startsWith("share/")],
  ["Length of a response", (key) => key === "length/response"],
  ["Turns", (key) => key.startsWith("turns/")],
  ["Sampler against trainer", (key) => key === "kl/rollout_train"],
  ["Distance from the first policy", (key) => key === "kl/reference"],
  ["Groups", (key) => key.startsWith("groups/")],
  ["Ratings in the league", (key) => key.startsWith("league/rating/")],
  ["Rate against each member of the league", (key) => key.startsWith("league/rate/")],
  ["Success by seat", (key) => key.startsWith("success_seat/")],
  ["Illegal and malformed answers", (key) => /^(illegal|format_error)\//.test(key)],
];
const explained = (key) => {
  const exact = metrics.find((metric) => metric[0] === key);
  return exact || metrics.find(([name]) => name.endsWith("/<game>") && key.startsWith(name.slice(0, -"<game>".length)));
};

// Shares of the time are made here: scripts and opponents, the model's part of the rollout, the updates.
for (const run of runs) {
  const [rollout, env, update] = ["rollout_s", "env_s", "update_s"].map((name) => run.curves[`time/${name}`] || []);
  const at = (curve) => new Map(curve);
  const [envAt, updateAt] = [at(env), at(update)];
  const share = { sampling: [], environment: [], update: [] };
  for (const [x, y] of rollout) {
    const [scripts, learning] = [envAt.get(x) || 0, updateAt.get(x) || 0];
    const whole = y + learning;
    if (!(whole > 0)) continue;
    share.sampling.push([x, Math.max(0, y - scripts) / whole]);
    share.environment.push([x, scripts / whole]);
    share.update.push([x, learning / whole]);
  }
  for (const [name, points] of Object.entries(share)) if (points.length) run.curves[`share/${name}`] = points;
}

const keys = [...new Set(runs.flatMap((run) => Object.keys(run.curves)))].filter((key) => !key.startsWith("reload/"));
const lines = (key) => runs.map((run, index) => ({ key, run: index, points: run.curves[key] || [] }));
const charts = [];
const taken = new Set();
let smoothing = 0.6;

function addCharts(title, names, place) {
  names.forEach((key) => taken.add(key));
  // One run: a chart has a line for each game. Several: a chart for each figure has a line for each run.
  const groups = one ? [names] : names.map((key) => [key]);
  for (const group of groups) {
    const series = group.flatMap(lines).filter((line) => line.points.length);
    if (series.length) charts.push(new Chart(one ? title : group[0], series, place));
  }
}

class Chart {
  constructor(title, series, place) {
    this.series = series;
    const isMixed = new Set(series.map((line) => line.key.split("/")[0])).size > 1;
    const short = (key) => (isMixed ? key : key.split("/").slice(1).join("/") || key);
    const label = (line) => (one ? short(line.key) : runs[line.run].name);
    series.forEach((line, index) => { line.color = color(one ? index : line.run); line.label = label(line); });
    const metric = explained(series[0].key);
    const unit = metric && metric[1] !== "1" && metric[1] !== title.toLowerCase() ? ` (${metric[1]})` : "";
    const formulas = [...new Set(series.map((line) => (explained(line.key) || [])[2]).filter(Boolean))];
    this.svg = svg("svg", { role: "img", "aria-hidden": "true" });
    this.keys = make("div", { class: "keys", "aria-live": "polite" });
    this.node = make("div", { class: "chart", tabindex: "0", role: "group", "aria-label": `${title}: chart` },
      make("h3", {}, title + unit), this.svg, this.keys);
    this.node.append(make("div", { class: "what" }, formulas.slice(0, 2).join("; ")));
    place.append(this.node);
    this.xs = [...new Set(series.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
    this.svg.addEventListener("pointermove", (event) => {
      const box = this.svg.getBoundingClientRect();
      const x = this.x0 + (event.clientX - box.left - this.left) / this.wide * (this.x1 - this.x0);
      pointAt(this.nearest(x));
    });
    this.svg.addEventListener("pointerleave", () => pointAt(null));
    this.node.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") pointAt(null);
      if (!step) return;
      event.preventDefault();
      const index = pointed === null ? (step > 0 ? -1 : this.xs.length) : this.xs.indexOf(this.nearest(pointed));
      pointAt(this.xs[Math.min(this.xs.length - 1, Math.max(0, index + step))]);
    });
  }

  nearest(x) {
    return this.xs.reduce((best, other) => (Math.abs(other - x) < Math.abs(best - x) ? other : best), this.xs[0]);
  }

  draw() {
    const visible = this.series.filter((line) => shown[line.run]);
    const box = { width: this.svg.clientWidth || 400, height: 180 };
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
    const ys = visible.flatMap((line) => line.points.map((point) => point[1]));
    let [low, high] = [Infinity, -Infinity];
    for (const y of ys) { low = Math.min(low, y); high = Math.max(high, y); }
    if (!ys.length) [low, high] = [0, 1];
    if (low === high) { const pad = Math.abs(low) / 10 || 0.5; low -= low > 0 || low < 0 ? pad : 0; high += pad; }
    const ticks = ticksOf(low, high, 4);
    low = Math.min(low, ticks[0]); high = Math.max(high, ticks[ticks.length - 1]);
    const labels = ticks.map(number);
    this.left = 10 + 6.4 * Math.max(...labels.map((label) => label.length));
    this.wide = box.width - this.left - 8;
    [this.x0, this.x1] = [this.xs[0], Math.max(this.xs[this.xs.length - 1], this.xs[0] + 1)];
    const bottom = box.height - 20;
    const x = (value) => this.left + (value - this.x0) / (this.x1 - this.x0) * this.wide;
    const y = (value) => bottom - (value - low) / (high - low) * (bottom - 8);
    ticks.forEach((tick, index) => {
      this.svg.append(svg("line", { class: "grid", x1: this.left, x2: box.width - 8, y1: y(tick), y2: y(tick) }));
      this.svg.append(svg("text", { x: this.left - 5, y: y(tick) + 4, "text-anchor": "end" }, labels[index]));
    });
    for (const tick of ticksOf(this.x0, this.x1, Math.max(2, Math.floor(this.wide / 80)))) {
      if (tick < this.x0 || tick > this.x1 || tick % 1) continue;
      this.svg.append(svg("text", { x: x(tick), y: box.height - 5, "text-anchor": "middle" }, number(tick)));
    }
    runs.forEach((run, index) => {
      if (!shown[index]) return;
      for (const change of run.versions.filter((change) => change.before)) {
        const mark = svg("line", { class: "mark", x1: x(change.step), x2: x(change.step), y1: 8, y2: bottom });
        if (!one) mark.style.stroke = color(index);
        mark.append(svg("title", {}, `${change.name}: ${change.version.slice(0, 7)} from iteration ${change.step}`));
        this.svg.append(mark);
      }
    });
    for (const line of visible) {
      const style = `stroke:${line.color}`;
      const path = (points) => points.map((point, index) =>
        `${index ? "L" : "M"}${x(point[0]).toFixed(1)} ${y(point[1]).toFixed(1)}`).join("");
      if (line.points.length === 1) {
        this.svg.append(svg("circle", { cx: x(line.points[0][0]), cy: y(line.points[0][1]), r: 3, style: `fill:${line.color}` }));
      }
      if (smoothing > 0) this.svg.append(svg("path", { class: "raw", d: path(line.points), style }));
      this.svg.append(svg("path", { class: "smooth", d: path(smooth(line.points)), style }));
    }
    this.cursor = svg("line", { class: "cursor", y1: 8, y2: bottom, visibility: "hidden" });
    this.svg.append(this.cursor);
    this.x = x;
    this.point();
  }

  point() {
    const at = pointed === null ? null : this.nearest(pointed);
    this.cursor.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at !== null) { this.cursor.setAttribute("x1", this.x(at)); this.cursor.setAttribute("x2", this.x(at)); }
    const entries = this.series.filter((line) => shown[line.run]).map((line) => {
      const last = line.points[line.points.length - 1];
      const value = at === null ? last[1] : (line.points.find((point) => point[0] === at) || [])[1];
      const swatch = make("span", { class: "swatch" });
      swatch.style.background = line.color;
      return make("span", {}, swatch, `${line.label} `, make("b", {}, number(value)));
    });
    const when = at === null ? "newest:" : `iteration ${number(at)}:`;
    this.keys.replaceChildren(make("span", {}, when), ...entries);
  }
}

// Exponential mean without the pull of the first value.
function smooth(points) {
  let [sum, weight] = [0, 0];
  return points.map(([x, y]) => {
    sum = smoothing * sum + (1 - smoothing) * y;
    weight = smoothing * weight + (1 - smoothing);
    return [x, sum / weight];
  });
}

function ticksOf(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= rough * 0.999);
  const ticks = [];
  for (let index = Math.floor(low / step + 1e-9); index * step < high + step * 0.999; index++) {
    ticks.push(+(index * step).toPrecision(12));
  }
  return ticks;
}

let pointed = null;
function pointAt(x) {
  if (x === pointed) return;
  pointed = x === undefined ? null : x;
  charts.forEach((chart) => chart.point());
}
const drawAll = () => charts.forEach((chart) => chart.draw());

families.forEach(([title, belongs]) => addCharts(title, keys.filter(belongs), byId("charts")));
keys.filter((key) => !taken.has(key)).forEach((key) => addCharts(key, [key], byId("more-charts")));
if (!charts.length) byId("charts").append(make("p", { class: "hint" }, "No figures are stored yet."));
const setSmoothing = () => {
  smoothing = +byId("smoothing").value;
  byId("smoothing-value").textContent = smoothing.toFixed(2);
  drawAll();
};
byId("smoothing").addEventListener("input", setSmoothing);
byId("more").addEventListener("toggle", drawAll);
if (!byId("more-charts").children.length) byId("more").hidden = true;
if (runs.some((run) => run.is_thinned)) byId("thinned").textContent = "Long curves are drawn from means of neighbouring iterations.";
if (!one) {
  runs.forEach((run, index) => {
    const swatch = make("span", { class: "swatch" });
    swatch.style.background = color(index);
    const button = make("button", { type: "button", "aria-pressed": "true" }, swatch, run.name);
    button.addEventListener("click", () => {
      shown[index] = !shown[index];
      button.setAttribute("aria-pressed", shown[index]);
      drawAll();
    });
    byId("legend").append(button, " ");
  });
}
setSmoothing();
let resizing = 0;
new ResizeObserver(() => { cancelAnimationFrame(resizing); resizing = requestAnimationFrame(drawAll); }).observe(byId("charts"));

// ---- versions and events
function diff(text) {
  const pre = make("pre", { class: "diff" });
  // A removed line may begin with `--`, as comments in Lua do: a heading is known by what follows it.
  const lines = text.split("\n");
  const isHeading = (index) => /^--- /.test(lines[index]) && /^\+\+\+ /.test(lines[index + 1]) && /^@@/.test(lines[index + 2]);
  for (const [index, line] of lines.entries()) {
    const kind = line.startsWith("@@") || isHeading(index) || isHeading(index - 1) ? "place"
      : line.startsWith("+") ? "added" : line.startsWith("-") ? "removed" : null;
    pre.append(make("span", { class: kind }, line || " "));
  }
  return pre;
}
for (const run of runs) {
  const place = make("div", {}, one ? null : make("h3", {}, run.name));
  for (const change of run.versions) {
    const version = change.version.slice(0, 7);
    const title = change.before
      ? `From iteration ${change.step}: ${change.name} ${change.before.slice(0, 7)} → ${version}`
      : `From iteration ${change.step}: ${change.name} ${version}${change.file ? ` (${change.file})` : ""}`;
    const body = change.before ? diff(change.text || "the same text") : make("pre", {}, change.text);
    place.append(make("details", change.before ? { open: "" } : {}, make("summary", {}, title), body));
  }
  if (run.events.length) {
    const list = make("ul", {});
    for (const event of run.events) list.append(make("li", {}, `Iteration ${event.step}: ${event.text}`));
    place.append(list);
  }
  if (!run.versions.length) place.append(make("p", { class: "hint" }, "No script version is recorded."));
  byId("version-list").append(place);
}

// ---- evaluations
const evaluations = runs.flatMap((run) => run.evaluations.map((row) => ({ run: run.name, ...row })));
if (evaluations.length) {
  const columns = [
    ...(one ? [] : [["run", (row) => row.run, true]]),
    ["game", (row) => row.game, true], ["opponent", (row) => row.opponent, true], ["after iteration", (row) => row.step],
    ["episodes", (row) => row.episodes], ["success", (row) => percent(row.success)],
    ["95 % interval", (row) => row.interval.map(percent).join(" – ")], ["score", (row) => number(row.score)],
    ["illegal", (row) => percent(row.illegal)], ["format", (row) => percent(row.format_error)],
    ["turns", (row) => number(row.turns)],
  ];
  const kind = (column) => ({ class: column[2] ? "text" : null });
  const head = make("tr", {}, ...columns.map((column) => make("th", { scope: "col", ...kind(column) }, column[0])));
  const rows = evaluations.map((row) =>
    make("tr", {}, ...columns.map((column) => make("td", kind(column), String(column[1](row))))));
  const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
  byId("evaluation-table").append(make("div", { class: "scroll", tabindex: "0" }, table));
} else {
  byId("evaluation-table").append(make("p", { class: "hint" }, "None is stored in the run directory."));
}

// ---- the league
const standings = runs.flatMap((run) => Object.entries((run.league && run.league.games) || {}).flatMap(([game, standing]) => {
  const learner = { run: run.name, game, name: "learner", rating: standing.learner };
  const members = Object.entries(standing.members).map(([name, member]) => ({ run: run.name, game, name, ...member }));
  return [learner, ...members.sort((a, b) => b.rating.value - a.rating.value)];
}));
if (standings.length) {
  const rate = (row) => percent((row.score + 1) / (row.recent + 2));
  const columns = [
    ...(one ? [] : [["run", (row) => row.run, true]]),
    ["game", (row) => row.game, true], ["member", (row) => row.name, true],
    ["rating", (row) => row.rating.value.toFixed(0)], ["± (95 %)", (row) => (1.96 * row.rating.deviation).toFixed(0)],
    ["the learner's rate", (row) => (row.name === "learner" ? "" : rate(row))],
    ["episodes", (row) => (row.name === "learner" ? "" : row.episodes)],
  ];
  const kind = (column) => ({ class: column[2] ? "text" : null });
  const head = make("tr", {}, ...columns.map((column) => make("th", { scope: "col", ...kind(column) }, column[0])));
  const rows = standings.map((row) =>
    make("tr", {}, ...columns.map((column) => make("td", kind(column), String(column[1](row))))));
  const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
  byId("evaluation-table").append(make("h3", {}, "League"), make("div", { class: "scroll", tabindex: "0" }, table));
}

// ---- episodes
const episodes = runs.flatMap((run, index) => run.sample.episodes.map((episode) => ({ run: index, ...episode })));
for (const run of runs) {
  const { seen_count: seen, file_count: files, read_file_count: read, is_cut: cut, problems } = run.sample;
  const part = run.sample.episodes.length;
  const whole = read === files && !cut && part === seen;
  const text = files === 0 ? "no episodes are stored"
    : whole ? `all ${part} stored episodes`
    : `a sample of ${part} of the ${seen} episodes in ${read} of ${files} files${cut ? " (of very large files the beginning)" : ""}; ` +
      "`gift-host replay` and the files themselves have every one";
  byId("sample").append(one ? `Here: ${text}. ` : `${run.name}: ${text}. `);
  for (const problem of problems) byId("sample").append(make("span", { class: "problem" }, `${problem}. `));
}
const options = (values) => ["", ...values];
const unique = (values) => [...new Set(values)];
const filters = {};
function filter(name, label, control, initial) {
  filters[name] = control;
  if (initial !== undefined) control.value = initial;
  byId("filters").append(make("label", {}, label, control));
}
function choice(values, texts) {
  const select = make("select");
  values.forEach((value, index) => select.append(make("option", { value }, texts ? texts[index] : value === "" ? "all" : String(value))));
  return select;
}
const numeric = () => make("input", { type: "number", step: "any" });
if (!one) filter("run", "Run", choice(["", ...runs.keys()], ["all", ...runs.map((run) => run.name)]));
filter("game", "Game", choice(options(unique(episodes.flatMap((episode) => episode.games)).sort())));
filter("step", "Iteration", choice(options(unique(episodes.map((episode) => episode.step)).sort((a, b) => a - b))));
filter("success", "Success", choice(["", "yes", "no"]));
filter("least", "Reward from", numeric());
filter("most", "to", numeric());
filter("shortest", "Turns from", numeric());
filter("longest", "to", numeric());
filter("text", "Text", make("input", { type: "search", size: "14" }));
filter("order", "Order", choice(["", "reward", "-reward", "-length"], ["as played", "lowest reward", "highest reward", "longest"]));
byId("filters").addEventListener("submit", (event) => event.preventDefault());

const MAX_ROWS = 2000;
let found = [];
let chosen = -1;
function search() {
  const value = (name) => (filters[name] ? filters[name].value : "");
  const bound = (name, fallback) => (value(name) === "" ? fallback : +value(name));
  const text = value("text").toLowerCase();
  const reward = (episode) => (is(episode.reward) ? episode.reward : NaN);
  const within = (x, low, high) => (value(low) === "" && value(high) === "") || (x >= bound(low, -Infinity) && x <= bound(high, Infinity));
  found = episodes.filter((episode) =>
    (value("run") === "" || episode.run === +value("run")) &&
    (value("game") === "" || episode.games.includes(value("game"))) &&
    (value("step") === "" || episode.step === +value("step")) &&
    (value("success") === "" || episode.success === (value("success") === "yes")) &&
    within(reward(episode), "least", "most") && within(episode.turns.length, "shortest", "longest") &&
    (text === "" || episode.id === text || episode.turns.some((turn) =>
      turn.observation.toLowerCase().includes(text) || turn.answer.toLowerCase().includes(text))));
  const order = value("order");
  if (order === "reward") found.sort((a, b) => reward(a) - reward(b));
  if (order === "-reward") found.sort((a, b) => reward(b) - reward(a));
  if (order === "-length") found.sort((a, b) => b.turns.length - a.turns.length);
  const rows = found.slice(0, MAX_ROWS).map((episode, index) => {
    const row = make("div", { class: "row", role: "option", id: `row-${index}`, "aria-selected": "false" },
      make("span", { class: "id" }, (one ? "" : `${runs[episode.run].name} `) + `${episode.id} ${episode.games.join(" + ")}`),
      make("span", {}, `${episode.turns.length} turns`),
      make("span", { class: episode.success ? "good" : "bad" }, `${episode.success ? "✓" : "✗"} ${number(episode.reward)}`));
    row.addEventListener("click", () => choose(index));
    return row;
  });
  const over = found.length > MAX_ROWS ? [make("p", { class: "hint" }, `${found.length - MAX_ROWS} more: narrow the choice`)] : [];
  byId("list").replaceChildren(...rows, ...over);
  byId("list").scrollTop = 0;
  chosen = -1;
  choose(0, false);
}

function choose(index, scroll = true) {
  const list = byId("list");
  const count = Math.min(found.length, MAX_ROWS);
  if (!count) {
    byId("transcript").replaceChildren(make("p", { class: "hint" }, episodes.length ? "No episode is like this." : "No episodes are stored."));
    list.removeAttribute("aria-activedescendant");
    return;
  }
  if (chosen >= 0 && list.children[chosen]) list.children[chosen].setAttribute("aria-selected", "false");
  chosen = Math.max(0, Math.min(count - 1, index));
  const row = list.children[chosen];
  row.setAttribute("aria-selected", "true");
  list.setAttribute("aria-activedescendant", row.id);
  if (scroll) row.scrollIntoView({ block: "nearest" });
  show(found[chosen]);
}

function badge(text, kind) { return make("span", { class: `badge ${kind}` }, text); }

function show(episode) {
  const nodes = [make("h3", {}, `${episode.games.join(" + ")}, episode ${episode.id}`)];
  const line = [
    `reward ${number(episode.reward)}`, episode.success ? "success" : "no success", `advantage ${number(episode.advantage)}`,
    episode.kept ? "trained on" : "group dropped", ...(episode.truncated ? ["ended by a limit"] : []),
    `script ${(episode.scripts || []).map((version) => String(version).slice(0, 7)).join(", ")}`,
  ];
  nodes.push(make("p", { class: "hint" }, line.join(" · ")));
  let stage = -1;
  episode.turns.forEach((turn, index) => {
    if (turn.stage !== stage && episode.games.length > 1) {
      stage = turn.stage;
      nodes.push(make("h3", {}, `${episode.games[stage]}: reward ${number((episode.stage_rewards || [])[stage])}`));
    }
    const isLearner = turn.seat === (episode.seats.length > 1 ? episode.seats[turn.stage] : episode.seats[0]);
    const who = make("div", { class: "who" }, make("b", {}, isLearner ? "learner" : "opponent"), ` · turn ${index + 1} · seat ${turn.seat}`);
    if (turn.legal === false) who.append(badge("illegal", "bad"));
    else if (isLearner) who.append(badge("legal", "good"));
    if (turn.well_formed === false) who.append(badge("malformed", "bad"));
    if (is(turn.reward) && (turn.reward !== 0 || isLearner)) who.append(badge(`reward ${number(turn.reward)}`, turn.reward < 0 ? "bad" : "plain"));
    const node = make("div", { class: isLearner ? "turn learner" : "turn" }, who);
    if (turn.observation) node.append(make("pre", { class: "observation" }, turn.observation));
    node.append(make("pre", { class: "answer" }, turn.answer === "" ? "(empty)" : turn.answer));
    const read = turn.action === null || turn.action === undefined ? null : String(turn.action);
    if (read !== null && read !== turn.answer) node.append(make("div", { class: "who" }, `read as ${read}`));
    nodes.push(node);
  });
  const tokens = make("details", { id: "tokens" }, make("summary", {}, "Token log-probabilities"));
  tokens.open = tokensOpen;
  const fill = () => {
    if (!tokens.open || tokens.children.length > 1) return;
    tokens.append(make("p", { class: "hint" },
      "All that the policy saw. Underlined tokens were sampled, with their log-probability in nats: green where it was sure, red where not."));
    const strip = make("div", { class: "tokens" });
    for (const [text, logProbability] of episode.tokens) {
      if (logProbability === undefined) { strip.append(make("span", { class: "forced" }, text)); continue; }
      const token = make("span", { class: "sampled", title: `log-probability ${logProbability}` }, text === "\n" ? "⏎\n" : text);
      const sure = is(logProbability) ? Math.exp(logProbability) : 0;
      token.style.borderColor = `hsl(${Math.round(sure * 130)} 70% 45%)`;
      strip.append(token, make("sub", {}, is(logProbability) ? logProbability.toFixed(2) : "?"));
    }
    tokens.append(strip);
  };
  tokens.addEventListener("toggle", () => { tokensOpen = tokens.open; fill(); });
  nodes.push(tokens);
  byId("transcript").replaceChildren(...nodes);
  byId("transcript").scrollTop = 0;
  fill();
}
let tokensOpen = false;
byId("list").addEventListener("keydown", (event) => {
  const page = 10;
  const to = { ArrowDown: chosen + 1, ArrowUp: chosen - 1, PageDown: chosen + page, PageUp: chosen - page, Home: 0, End: found.length }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  choose(to);
});
let searching = 0;
byId("filters").addEventListener("input", () => { clearTimeout(searching); searching = setTimeout(search, 120); });
search();
