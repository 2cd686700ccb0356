"use strict";

// Tables. A click on a heading sorts by its column; a second click reverses the order. A filter keeps the rows that contain
// every word. Of a long table, report.css shows only the first rows in this order until the reader clicks "Show all".

const cellTexts = new WeakMap(); // cache by row: reading the texts of thousands of rows again is slow
const compareTexts = new Intl.Collator(undefined, { numeric: true }).compare;

function texts(row) {
  if (!cellTexts.has(row)) cellTexts.set(row, [...row.cells].map((cell) => cell.textContent.trim().toLowerCase()));
  return cellTexts.get(row);
}

function sortValue(text, numeric) {
  if (!numeric) return text;
  const number = parseFloat(text);
  return Number.isNaN(number) ? null : number;
}

function sortBy(heading) {
  const table = heading.closest("table"), body = table.tBodies[0];
  const numeric = heading.classList.contains("number");
  const direction = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  const sign = direction === "ascending" ? 1 : -1;
  const keyed = [...body.rows].map((row) => [sortValue(texts(row)[heading.cellIndex], numeric), row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // missing values come last in both orders
    return sign * (numeric ? a - b : compareTexts(a, b));
  });
  body.remove(); // so that the browser does not lay out the page for each row that moves
  for (const [, row] of keyed) body.append(row);
  table.append(body);
  for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", direction);
}

function filterRows(input) {
  const table = document.getElementById(input.dataset.table);
  const titles = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim().toLowerCase().replaceAll(" ", "_"));
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    const cells = texts(row);
    const matches = words.every((word) => {
      const [title, value] = word.split("=", 2);
      const column = value === undefined ? -1 : titles.indexOf(title);
      return column >= 0 ? cells[column] === value : cells.some((cell) => cell.includes(word));
    });
    if (row.hidden === matches) row.hidden = !matches;
    shown += matches;
  }
  input.closest(".filter").querySelector("output").value = `${shown} of ${table.tBodies[0].rows.length} rows`;
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}
for (const button of document.querySelectorAll(".more button")) {
  button.addEventListener("click", () => {
    document.getElementById(button.dataset.table).classList.add("all-rows");
    button.closest(".more").remove();
  });
}
for (const input of document.querySelectorAll(".filter input")) {
  input.addEventListener("input", () => filterRows(input));
  filterRows(input); // a browser may keep the filter when it reloads the page
}

// Charts are drawn when they come into view, in the colours of the page.

const dark = matchMedia("screen and (prefers-color-scheme: dark)");
const charts = new Map();

function applyTheme(plot, { data, layout }) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const ground = dark.matches && !document.documentElement.classList.contains("printing") ? "dark" : "light";
  layout.font = { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--ink") };
  layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0, 0, 0, 0)";
  layout.hoverlabel = { bgcolor: colour("--raised"), bordercolor: colour("--line"), font: { color: colour("--ink") }, align: "left" };
  layout.modebar = { bgcolor: "rgba(0, 0, 0, 0)", color: colour("--faint"), activecolor: colour("--ink") };
  for (const key of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
    Object.assign(layout[key], { gridcolor: colour("--grid"), linecolor: colour("--line"), tickcolor: colour("--line") });
  }
  if (layout.coloraxis.showscale) {
    // On a narrow screen, put the colour scale above the plot instead of beside it.
    const narrow = plot.clientWidth < 560;
    Object.assign(layout.coloraxis.colorbar, narrow
      ? { orientation: "h", x: 0.5, xanchor: "center", y: 1.02, yanchor: "bottom", len: 1 }
      : { orientation: "v", x: 1.02, xanchor: "left", y: 0.5, yanchor: "middle", len: 1 });
    layout.coloraxis.colorbar.title.side = narrow ? "top" : "right";
  }
  layout.coloraxis.colorscale = layout.meta[ground];
  for (const trace of data) {
    if (trace.meta?.[`line_${ground}`]) {
      trace.line.color = trace.marker.color = trace.meta[`line_${ground}`];
    }
    if (trace.meta?.[`fill_${ground}`]) trace.fillcolor = trace.meta[`fill_${ground}`];
  }
}

function draw(plot) {
  if (!charts.has(plot)) charts.set(plot, JSON.parse(plot.parentElement.querySelector("script").textContent));
  const figure = charts.get(plot);
  applyTheme(plot, figure);
  Plotly.react(plot, figure.data, figure.layout, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] });
}

const plots = [...document.querySelectorAll(".plot")];
const observer = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((entry) => entry.isIntersecting)) {
    observer.unobserve(entry.target);
    draw(entry.target);
  }
}, { rootMargin: "400px" });
for (const plot of plots) observer.observe(plot);
dark.addEventListener("change", () => charts.forEach((_, plot) => draw(plot)));
let width = innerWidth;
addEventListener("resize", () => {
  if (width !== innerWidth) charts.forEach((_, plot) => draw(plot)); // scrolling changes the height of a phone's window
  width = innerWidth;
});

// Print on white, with all details open and all charts drawn.

addEventListener("beforeprint", () => {
  document.documentElement.classList.add("printing");
  for (const details of document.querySelectorAll("details")) details.open = true;
  for (const plot of plots) draw(plot);
});
addEventListener("afterprint", () => {
  document.documentElement.classList.remove("printing");
  charts.forEach((_, plot) => draw(plot));
});
