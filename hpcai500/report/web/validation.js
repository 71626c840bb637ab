(() => {
  const PAGE = 50;


  // A difference is in thousandths of the median.
  const percent = (cell) => `${cell > 0 ? "+" : cell < 0 ? "\u2212" : ""}${Math.abs(cell) < 100 ? Math.abs(cell) / 10 : Math.round(Math.abs(cell) / 10)}`;
  const shade = (cell, column) => {
    if (cell == null) return "cn";
    if (column.bound == null) return "c1";
    const worse = (column.better === "lower" ? cell : -cell) / 1000 / column.bound;
    return worse > 2 ? "c3" : worse > 1 ? "c2" : worse < -1 ? "cb" : "c1";
  };

  // The heat map: rows come worst first; a page of them at a time.
  const heat = document.getElementById("heat"), words = document.getElementById("words");
  const findings = [...document.querySelectorAll(".findings tbody tr")];
  let matching = data.rows, pages = 1;
  const detail = (name) => {
    const own = findings.filter((row) => ` ${row.dataset.words} `.includes(` ${name.toLowerCase()} `));
    return own.length ? own.map((row) => h("p", null, `${row.querySelector(".mark").textContent}: ${row.querySelector(".what p").textContent}`))
      : [h("p", null, "Nothing was found here that the list above names.")];
  };
  const toggle = (button, name) => {
    const row = button.closest("tr"), isOpen = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!isOpen));
    if (isOpen) row.nextSibling.remove();
    else row.after(h("tr", { class: "detail" }, h("td", { colspan: data.columns.length + 1 }, h("div", null, ...detail(name)))));
  };
  const heatRow = ([name, , cells]) => {
    const button = h("button", { type: "button", class: "open", "aria-expanded": "false" }, name);
    button.addEventListener("click", () => toggle(button, name));
    return h("tr", null, h("th", { scope: "row" }, button),
      ...cells.map((cell, index) => h("td", { class: shade(cell, data.columns[index]) }, cell == null ? "-" : percent(cell))));
  };
  const drawHeat = () => {
    if (!heat) return;
    const shown = matching.slice(0, pages * PAGE);
    heat.replaceChildren(
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "Node"), ...data.columns.map((column) =>
        h("th", { scope: "col", title: `${column.stage}/${column.metric}, median ${column.median}` }, h("span", null, column.metric))))),
      h("tbody", null, ...shown.map(heatRow)));
    document.getElementById("more").hidden = shown.length >= matching.length;
    const left = data.num_nodes - data.rows.length;
    document.getElementById("shown").textContent = `${shown.length} of ${matching.length} nodes`
      + (left ? `; the ${left} best nodes are left out of this page` : "");
  };

  // The matrix of links.
  const SMALL = 15, LARGE = 24, FEW = 20;
  const drawMatrix = (one) => {
    const SIDE = one.names.length > FEW ? SMALL : LARGE;
    const clip = (name) => name.length > 14 ? name.slice(0, 13) + "…" : name;
    const label = 10 + 7.8 * Math.max(...one.names.map((name) => clip(name).length));
    const size = label + SIDE * one.names.length + 2;
    const nodes = one.names.flatMap((name, index) => {
      const at = label + SIDE * index + SIDE / 2 + 4;
      return [s("text", { x: label - 5, y: at, "text-anchor": "end" }, clip(name)),
        s("text", { "text-anchor": "start", transform: `translate(${at} ${label - 5}) rotate(-90)` }, clip(name))];
    });
    for (const [a, b, cell] of one.cells) for (const [x, y] of [[a, b], [b, a]]) nodes.push(
      s("rect", { class: shade(cell, one), x: label + SIDE * x, y: label + SIDE * y, width: SIDE, height: SIDE },
        s("title", null, `${one.names[a]} - ${one.names[b]}: ${percent(cell)} %`)));
    document.getElementById("matrix").replaceChildren(
      s("svg", { viewBox: `0 0 ${size} ${size}`, width: size, height: size, role: "img", "aria-label": `Links, ${one.metric}; the slowest are listed beside` }, ...nodes));
    const some = one.names.length < one.num_nodes ? ` The ${one.names.length} of ${one.num_nodes} nodes with the slowest links are shown.` : "";
    document.getElementById("matrix-note").textContent = `Median ${one.median}. Green: within the bound; yellow: beyond it; red: beyond twice; blank: not measured.${some}`;
    document.getElementById("slowest").replaceChildren(
      h("thead", null, h("tr", null, ...["Link", "Value", "%"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, ...one.worst.map(([a, b, value, cell]) => h("tr", null, h("td", null, `${a} - ${b}`), h("td", null, value), h("td", null, percent(cell))))));
  };
  const choice = document.getElementById("matrix-metric");
  if (choice) {
    choice.closest("p").hidden = data.matrices.length < 2;
    choice.addEventListener("change", () => drawMatrix(data.matrices[Number(choice.value)]));
    drawMatrix(data.matrices[0]);
  }

  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of findings) {
      row.hidden = !wanted.every((word) => row.dataset.words.includes(word));
      shown += !row.hidden;
    }
    const named = data.rows.filter(([name]) => wanted.every((word) => name.toLowerCase().includes(word)));
    matching = named.length || !findings.length || !shown ? named : data.rows.filter(([name]) => findings.some((row) => !row.hidden && ` ${row.dataset.words} `.includes(` ${name.toLowerCase()} `)));
    pages = 1;
    drawHeat();
    document.getElementById("count").textContent = `${shown} of ${findings.length} findings`;
  };
  words.addEventListener("input", filter);
  words.form.addEventListener("submit", (event) => event.preventDefault());
  const more = document.getElementById("more");
  if (more) more.addEventListener("click", () => { pages += 1; drawHeat(); });
  filter();

  const theme = document.getElementById("theme"), dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const label = () => { theme.textContent = isDark() ? "Light theme" : "Dark theme"; };
  theme.addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; label(); });
  dark.addEventListener("change", label);
  label();
})();
