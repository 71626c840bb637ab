(() => {
  const MOST_BARS = 30, COLOURS = 8;
  for (const list of data.lists) for (const entry of list.entries) {
    const columns = Object.entries(entry.runs);
    entry.runs = entry.runs.seed.map((_, index) => {
      const run = Object.fromEntries(columns.map(([key, values]) => [key, values[index]]));
      return { ...run, epoch: data.epochs[run.epochs], rate: run.rate.map((rate) => rate == null ? null : rate * entry.unit) };
    });
  }

  const DASHES = [null, "6 3", "2 3"];
  const colour = (index) => `var(--s${index % COLOURS})`;

  // Numbers.
  const PREFIXES = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const prefix = (value) => PREFIXES.find(([factor]) => Math.abs(value) >= factor) || [1, ""];
  const digits = (value, count = 4) => value == null ? "-" : String(Number(value.toPrecision(count)));
  const si = (value) => {
    if (value == null) return "-";
    const [factor, letter] = prefix(value);
    return digits(value / factor) + (letter && " " + letter);
  };
  const ticks = (low, high, about) => {
    const rough = (high - low) / about || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high * (1 + 1e-9) + 1e-12; k++) found.push(k * step);
    return found;
  };
  // By measure, not by count: letters are of many widths, and some that one sees as one are many.
  const ruler = document.createElement("canvas").getContext("2d"), GRAPHEMES = new Intl.Segmenter();
  const clip = (text, width) => {
    ruler.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    if (ruler.measureText(text).width <= width) return text;
    const letters = [...GRAPHEMES.segment(text)].map(({ segment }) => segment);
    let low = 0, high = letters.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (ruler.measureText(letters.slice(0, middle).join("") + "…").width <= width) low = middle; else high = middle - 1;
    }
    return letters.slice(0, low).join("") + "…";
  };
  // The tail tells entries of one name apart: of it at most two thirds are kept before the name is.
  const fitted = (name, tail, width) => {
    const end = tail ? clip(tail, width * 0.67) : "";
    return clip(name, width - (end ? ruler.measureText(end).width : 0)) + end;
  };

  // Charts: each is drawn for the width it has, and again when that changes.
  const drawn = new Map();
  const observer = new ResizeObserver((items) => {
    for (const { target, contentRect } of items) {
      const chart = drawn.get(target);
      if (chart && contentRect.width > 0 && Math.abs(chart.width - contentRect.width) > 1) paint(target, contentRect.width);
    }
  });
  const paint = (holder, width) => {
    const chart = drawn.get(holder);
    chart.width = width;
    const { height, nodes } = chart.draw(width);
    holder.replaceChildren(s("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": chart.title }, ...nodes));
  };
  const figure = (title, unit, draw, keys) => {
    const holder = h("div");
    drawn.set(holder, { title: `${title}${unit ? `, ${unit}` : ""}`, draw, width: 0 });
    observer.observe(holder);
    return h("figure", null, h("figcaption", null, title, unit ? h("span", null, ` (${unit})`) : null), holder, keys);
  };
  const dash = (index) => DASHES[Math.floor(index / COLOURS) % DASHES.length];
  const swatch = (paint, dashes) => {
    if (!dashes) return paint;
    const [ink, gap] = dashes.split(" ").map(Number);
    return `repeating-linear-gradient(90deg, ${paint} 0 ${ink}px, transparent ${ink}px ${ink + gap}px)`;
  };
  const keys = (names) => h("ul", { class: "keys" }, ...names.map(([name, paint, dashes]) => h("li", null, h("i", { style: `background:${swatch(paint, dashes)}` }), name)));
  const text = (x, y, value, attributes) => s("text", { x, y, ...attributes }, String(value));

  const bars = (rows, label) => {
    const top = Math.max(...rows.map((row) => Math.max(row.value, row.high ?? 0, row.other ?? 0))) || 1;
    const [factor, letter] = prefix(top);
    return figure(label, `${letter}VFLOPS, mean and 95 % interval`, (width) => {
      const isNarrow = width < 520, step = isNarrow ? 42 : 27;
      const left = isNarrow ? 0 : Math.min(210, width * 0.32), right = 62, bottom = rows.length * step + 4;
      const x = (value) => left + (Math.max(0, value) / top) * (width - left - right);
      const nodes = ticks(0, top / factor, isNarrow ? 4 : 6).flatMap((tick) => [
        s("line", { class: "grid", x1: x(tick * factor), x2: x(tick * factor), y1: 0, y2: bottom }),
        text(x(tick * factor), bottom + 16, digits(tick), { "text-anchor": "middle" }),
      ]);
      rows.forEach((row, index) => {
        const y = index * step + (isNarrow ? 20 : 5), middle = y + 8;
        nodes.push(text(isNarrow ? 0 : left - 8, isNarrow ? y - 5 : middle + 4, fitted(row.name, row.tail, isNarrow ? width : left - 8),
          { class: "strong", "text-anchor": isNarrow ? "start" : "end" }));
        nodes.push(s("rect", { class: "bar", x: left, y, height: 16, width: Math.max(1, x(row.value) - left), rx: 2 },
          s("title", null, `${row.name}${row.tail}: ${si(row.value)}VFLOPS`)));
        let end = x(row.value);
        if (row.low != null) {
          end = Math.max(end, x(row.high));
          nodes.push(s("path", { class: "whisker", d: `M${x(row.low)} ${middle - 5}v10m0-5H${x(row.high)}m0-5v10` }));
        }
        if (row.other != null) nodes.push(s("path", { class: "whisker", d: `M${x(row.other)} ${y - 1}v18` }));
        nodes.push(text(Math.max(end, row.other ? x(row.other) : 0) + 6, middle + 4, si(row.value), {}));
      });
      return { height: bottom + 22, nodes };
    });
  };

  // Lines over linear or logarithmic (base 2) axes; a series: name, points, optionally those joined, colour and dash.
  const lines = (title, unit, options) => {
    const { xName, yName, target, yFormat = digits, isLog, isRank, mark, labels } = options;
    const series = options.series.map((one, index) => ({ tail: "", colour: colour(index), dash: dash(index), ...one })).filter((one) => one.points.length);
    const points = series.flatMap((one) => one.points);
    const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]).concat(target ?? []);
    const scale = isLog ? Math.log2 : (value) => value;
    let [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const ends = new Map();  // where entries share a rank, the ranks after it are free: their names stand there
    if (isRank) for (const one of series) {
      const last = one.points.at(-1)[1], before = ends.get(last) ?? 0;
      ends.set(last, before + 1);
      one.end = last + before;
      y1 = Math.max(y1, one.end);
    }
    if (x0 === x1) { x0 -= isLog ? x0 / 2 : 1; x1 += isLog ? x1 : 1; }
    if (!isLog && !isRank) { const room = (y1 - y0 || Math.abs(y1) || 1) * 0.08; y1 += room; y0 = Math.max(y0 >= 0 ? 0 : -Infinity, y0 - room); }
    if (y0 === y1) { y0 -= 0.5; y1 += 0.5; }
    return figure(title, unit, (width) => {
      const right = labels ? Math.min(150, width * 0.3) : 12, left = 52, top = 10;
      const inner = isRank ? Math.max(150, (y1 - y0 + 1) * 20) : 190, height = top + inner + 40;
      const x = (value) => left + ((scale(value) - scale(x0)) / (scale(x1) - scale(x0))) * (width - left - right);
      const share = (value) => (scale(value) - scale(y0)) / (scale(y1) - scale(y0));
      const y = (value) => top + (isRank ? share(value) : 1 - share(value)) * inner;
      const powers = (low, high) => { const found = []; for (let p = 2 ** Math.ceil(Math.log2(low)); p <= high * 1.001; p *= 2) found.push(p); return found; };
      const xTicks = isLog ? [...new Set(xs)].sort((a, b) => a - b) : ticks(x0, x1, Math.min(8, width / 60)).filter(Number.isInteger);
      const yTicks = isLog ? powers(y0, y1) : isRank ? ticks(y0, y1, 10).filter(Number.isInteger) : ticks(y0, y1, 5);
      const nodes = [];
      for (const tick of yTicks) nodes.push(
        s("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
        text(left - 7, y(tick) + 4, yFormat(tick), { "text-anchor": "end" }));
      for (const tick of xTicks) nodes.push(text(x(tick), top + inner + 17, digits(tick), { "text-anchor": "middle" }));
      nodes.push(s("line", { class: "axis", x1: left, x2: width - right, y1: top + inner + 2, y2: top + inner + 2 }),
        text(left + (width - left - right) / 2, height - 4, xName, { "text-anchor": "middle" }),
        text(0, 0, yName, { "text-anchor": "middle", transform: `translate(11 ${top + inner / 2}) rotate(-90)` }));
      if (target != null) nodes.push(s("line", { class: "target", x1: left, x2: width - right, y1: y(target), y2: y(target) }),
        text(left + 4, y(target) - 5, `target ${digits(target)}`, { class: "strong" }));
      if (mark != null) nodes.push(s("line", { class: "target", x1: x(mark), x2: x(mark), y1: top - 6, y2: top + inner + 2 }));
      const groups = series.map((one) => {
        const name = one.name + one.tail, paint = one.colour;
        const group = s("g", null, s("title", null, name),
          s("path", { class: "line", stroke: paint, "stroke-dasharray": one.dash,
            d: "M" + (one.joined || one.points).map((p) => `${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join("L") }));
        if (one.points.length < 30 && !one.ideal) for (const p of one.points) group.append(
          s("circle", { cx: x(p[0]), cy: y(p[1]), r: 3, fill: paint }, s("title", null, `${name}: ${digits(p[0])}, ${yFormat(p[1])}`)));
        if (labels) { const last = one.points.at(-1); group.append(text(x(last[0]) + 9, y(one.end ?? last[1]) + 4, fitted(one.name, one.tail, right - 9), { class: "strong" })); }
        return group;
      });
      groups.forEach((group) => {
        group.addEventListener("mouseenter", () => groups.forEach((other) => other.classList.toggle("faint", other !== group)));
        group.addEventListener("mouseleave", () => groups.forEach((other) => other.classList.remove("faint")));
      });
      return { height, nodes: nodes.concat(groups) };
    }, labels ? null : keys(series.map((one) => [one.name + one.tail, one.colour, one.dash])));
  };

  const PARTS = ["training", "evaluation", "between", "start-up (outside the clock)"];
  const split = (runs) => {
    const rows = runs.map((run) => {
      const [train, evaluation, total, start] = run.sec;
      return { name: `seed ${run.seed}`, parts: [train, evaluation, Math.max(0, total - train - evaluation), start] };
    });
    const top = Math.max(...rows.map((row) => row.parts.reduce((a, b) => a + b, 0))) || 1;
    return figure("Where the time went", "seconds", (width) => {
      const left = 74, step = 24, bottom = rows.length * step + 2;
      const x = (value) => left + (value / top) * (width - left - 12);
      const nodes = ticks(0, top, Math.min(6, width / 80)).flatMap((tick) => [
        s("line", { class: "grid", x1: x(tick), x2: x(tick), y1: 0, y2: bottom }),
        text(x(tick), bottom + 16, digits(tick), { "text-anchor": "middle" })]);
      rows.forEach((row, index) => {
        nodes.push(text(left - 8, index * step + 15, row.name, { "text-anchor": "end" }));
        let from = 0;
        row.parts.forEach((part, which) => {
          nodes.push(s("rect", { x: x(from), y: index * step + 3, height: 16, width: Math.max(0, x(from + part) - x(from)), fill: colour(which) },
            s("title", null, `${row.name}: ${PARTS[which]} ${digits(part)} s`)));
          from += part;
        });
      });
      return { height: bottom + 22, nodes };
    }, keys(PARTS.map((name, index) => [name, colour(index)])));
  };

  // A row's runs.
  const MOST_CURVES = 16;
  const runTable = (runs) => {
    const heads = ["Seed", "Quality", "VFLOPS", "FLOPS", "Time (s)", "To quality (s)", "Epochs to quality", "Energy (J)", "Interruptions"];
    const cells = (run) => [run.seed, digits(run.quality), si(run.vflops), si(run.flops), digits(run.sec[2]), run.ttq == null ? "never" : digits(run.ttq),
      run.etq == null ? "never" : run.etq, si(run.joules), run.stops[0] ? `${run.stops[0]}: ${digits(run.stops[1])} s` : "none"];
    return h("div", { class: "scroll runs-scroll", tabindex: 0, role: "region", "aria-label": "Runs" }, h("table", { class: "runs" },
      h("thead", null, h("tr", null, ...heads.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, ...runs.map((run) => h("tr", null, ...cells(run).map((value) => h("td", null, String(value))))))));
  };
  const panel = (list, entry, position) => {
    const shown = entry.runs.filter((run) => run.curve.length).slice(0, MOST_CURVES);
    const curves = (field, factor = 1) => shown.map((run) => ({ name: `seed ${run.seed}`,
      points: run.epoch.map((epoch, index) => [epoch, run[field][index] == null ? null : run[field][index] / factor]).filter((p) => p[1] != null) }));
    const grid = h("div", { class: "grid" });
    if (shown.length) {
      grid.append(lines("Quality over epochs", list.metric, { series: curves("curve"), xName: "epoch", yName: list.metric, target: list.target }));
      const [factor, letter] = prefix(Math.max(...shown.flatMap((run) => run.rate)));
      if (shown.some((run) => run.rate.some((rate) => rate != null))) grid.append(lines("FLOPS per epoch", `${letter}FLOPS, while training`, { series: curves("rate", factor), xName: "epoch", yName: `${letter}FLOPS` }));
    }
    grid.append(split(entry.runs.slice(0, MOST_CURVES)));
    const notes = [`Experiment ${entry.digest}.`];
    if (entry.settings.length) notes.push(`Settings changed: ${entry.settings.join(", ")}.`);
    if (entry.interrupted) notes.push(`${entry.interrupted}.`);
    if (entry.diverged) notes.push(`${entry.diverged} more diverged and count as never having reached the target.`);
    if (entry.runs.length > MOST_CURVES) notes.push(`Plots show the first ${MOST_CURVES} of ${entry.runs.length} runs.`);
    if (shown.some((run) => run.curve.length && run.curve.length === data.points)) notes.push(`Curves are thinned to ${data.points} epochs.`);
    const cause = "with them this page would be larger than 1 MB";
    if (!data.points) notes.push(`Curves and layers are left out: ${cause}.`);
    else if (position >= data.detailed) notes.push(`Curves and layers are kept of the first ${data.detailed} entries.`);
    else {
      if (!shown.length) notes.push("No epochs of these runs are known.");
      if (!data.layered) notes.push(`Layers are left out: ${cause}.`);
    }
    const layers = entry.layers.map((place, index) => [index, data.layers[place].map((pair) => data.pairs[pair])]).filter(([, values]) => values.length);
    return h("div", { class: "panel" }, h("h3", null, `Runs of ${entry.name}`), runTable(entry.runs),
      h("p", { class: "quiet" }, notes.join(" ")), grid,
      layers.length ? h("div", { class: "layers" }, h("h3", null, "The nine layers"), ...layers.map(([index, values]) =>
        h("details", null, h("summary", null, `${index + 1}. ${data.titles[index]}`),
          h("dl", null, ...values.flatMap(([key, value]) => [h("dt", null, key), h("dd", null, value)]))))) : null);
  };

  const toggle = (row, list) => {
    const button = row.querySelector("button.open");
    const isOpen = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!isOpen));
    if (isOpen) { row.detail.remove(); return; }
    if (!row.detail) {
      const index = Number(row.dataset.entry), entry = list.entries[index];
      const before = data.lists.slice(0, data.lists.indexOf(list)).reduce((sum, one) => sum + one.entries.length, 0);
      row.detail = h("tr", { class: "detail" }, h("td", { colspan: row.children.length }, panel(list, entry, before + index)));
    }
    row.after(row.detail);
    fit(row.detail);
  };
  // In a table wider than its frame the panel keeps to the frame.
  const fit = (detail) => {
    const frame = detail.closest(".scroll"), inner = detail.querySelector(".panel");
    inner.style.maxWidth = `${frame.clientWidth - 8}px`;
  };

  // Sorting: numbers by value, names by name, what is missing last; the open details stay with their rows.
  const sort = (section, column, direction) => {
    const body = section.querySelector("tbody"), heads = [...section.querySelectorAll("table.ranking > thead th")];
    heads.forEach((head, index) => index === column ? head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending") : head.removeAttribute("aria-sort"));
    const rows = [...body.children].filter((row) => !row.classList.contains("detail"));
    const value = (row) => row.children[column].dataset.v;
    const isNumber = rows.every((row) => value(row) === "" || Number.isFinite(Number(value(row))));
    rows.map((row, index) => [row, value(row), index]).sort(([, a, i], [, b, j]) => {
      if (a === "" || b === "") return (a === "") - (b === "") || i - j;
      return direction * (isNumber ? a - b : a.localeCompare(b, "en", { numeric: true })) || i - j;
    }).forEach(([row]) => { body.append(row); if (row.detail && row.querySelector("[aria-expanded='true']")) body.append(row.detail); });
  };
  // Where more is better, a first click shows the most.
  const FIRST_DOWN = /flops|quality$|reached|interval|accel\.|nodes/i;
  const firstDirection = (name) => FIRST_DOWN.test(name) && !/time/i.test(name) ? -1 : 1;

  const sections = [...document.querySelectorAll("section[data-kind]")];
  const draw = (section) => {
    const list = data[section.dataset.kind][Number(section.dataset.index)];
    const charts = section.querySelector(".charts");
    charts.querySelectorAll("figure > div").forEach((holder) => { drawn.delete(holder); observer.unobserve(holder); });
    charts.replaceChildren();
    const rowOrder = list.entries.map((entry, index) => [entry, index]).filter(([, index]) => section.shown.has(index));
    const some = rowOrder.slice(0, MOST_BARS);
    if (!some.length) return;
    const more = rowOrder.length > MOST_BARS ? `, first ${MOST_BARS} of ${rowOrder.length}` : "";
    charts.append(bars(some.map(([{ name, tail, vflops, published }]) => ({ name, tail, value: vflops[0], low: vflops[1], high: vflops[2], other: published })), `Valid FLOPS${more}`));
    if (section.dataset.kind === "published") charts.lastChild.querySelector("figcaption span").textContent = " (recomputed; the thin line is the published figure)";
    if (list.moves && some.length > 1) {
      charts.append(lines(`Rank by penalty exponent${more}`, `dashed: this list's n = ${list.n}`, {
        series: some.map(([{ name, tail }, place]) => ({ name, tail, points: list.moves.n.map((n, at) => [n, list.moves.ranks[place][at]]) })),
        xName: "penalty exponent n", yName: "rank", isRank: true, labels: true, mark: list.n <= list.moves.n.at(-1) ? list.n : null,
      }));
    }
    const scaling = (list.scaling || []).filter((one) => one.of.some((index) => section.shown.has(index)));
    section.querySelectorAll(".series").forEach((line) => { line.hidden = !scaling.includes(list.scaling[Number(line.dataset.series)]); });
    if (scaling.length) {
      const series = scaling.map((one) => ({ name: `${one.name}: ${one.kind}${one.batch ? (one.kind === "strong" ? `, global batch ${one.batch}` : `, ${digits(one.batch)} a rank`) : ""}`,
        points: one.points.map(([ranks, speedUp]) => [ranks / one.points[0][0], speedUp]) }));
      for (const one of series) one.joined = one.points.filter((p) => one.points.every((q) => q[0] !== p[0] || q[1] <= p[1]));
      const most = Math.max(...series.flatMap((one) => one.points.map((p) => p[0])));
      series.push({ name: "ideal", points: [[1, 1], [most, most]], colour: "var(--quiet)", dash: "4 4", ideal: true });
      charts.append(lines("Scaling", "speed-up of FLOPS over the smallest size", { series, xName: "size, times the smallest", yName: "speed-up", isLog: true }));
    }
  };

  // Filtering.
  const words = document.getElementById("words"), count = document.getElementById("count");
  const choices = [...document.querySelectorAll(".filters select")];
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0, total = 0;
    for (const section of sections) {
      const isIn = choices.every((choice) => !choice.value || section.dataset[choice.dataset.field] === choice.value);
      const before = section.shown;
      section.shown = new Set();
      let any = false;
      section.rows.forEach((row, index) => {
        const isMatch = isIn && wanted.every((word) => row.dataset.words.includes(word));
        row.hidden = !isMatch;
        if (row.detail) row.detail.hidden = !isMatch;
        if (isMatch) section.shown.add(index);
        any ||= isMatch; total += 1; shown += isMatch;
      });
      section.hidden = !any;
      if (any && (!before || before.size !== section.shown.size || [...before].some((index) => !section.shown.has(index)))) draw(section);
    }
    const entries = total === 1 ? "1 entry" : `${total} entries`;
    count.textContent = shown === total ? entries : `${shown} of ${entries}`;
  };

  for (const section of sections) {
    const list = data[section.dataset.kind][Number(section.dataset.index)];
    section.rows = [...section.querySelectorAll("tbody > tr")];
    section.querySelectorAll("table.ranking > thead th").forEach((head, column) => head.firstChild.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      sort(section, column, now ? (now === "ascending" ? -1 : 1) : firstDirection(head.textContent));
    }));
    const sorter = section.querySelector(".sorter");
    if (sorter) sorter.addEventListener("change", () => sort(section, Number(sorter.value), firstDirection(sorter.selectedOptions[0].textContent)));
    const turn = section.querySelector(".turn");
    if (turn) turn.addEventListener("click", () => section.querySelector("thead th[aria-sort] button").click());
    for (const row of section.rows) {
      const button = row.querySelector("button.open");
      if (button) button.addEventListener("click", () => toggle(row, list));
    }
  }
  words.addEventListener("input", filter);
  choices.forEach((choice) => choice.addEventListener("change", filter));
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("resize", () => document.querySelectorAll("tr.detail").forEach(fit));

  // Theme: the reader's own, until one is chosen.
  const theme = document.getElementById("theme"), system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const name = () => { theme.textContent = isDark() ? "Light theme" : "Dark theme"; };
  try { const kept = localStorage.getItem("hpcai500-theme"); if (kept) document.documentElement.dataset.theme = kept; } catch { /* a file has no storage in some browsers */ }
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("hpcai500-theme", document.documentElement.dataset.theme); } catch { /* as above */ }
    name();
  });
  system.addEventListener("change", name);
  name();
  filter();
})();
