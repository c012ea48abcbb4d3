"use strict";
const form = document.querySelector("#filter");
if (form) {
  const fields = ["set", "model", "outcome", "tag", "text"], only = { id: "", sample: "" };
  const cards = [...document.querySelectorAll(".sample")], count = document.querySelector("#count");
  const answers = cards.flatMap(card => [...card.querySelectorAll(".answer")].map(node => ({ node, card,
    set: [card.dataset.set], model: [node.dataset.model], outcome: [node.dataset.outcome, ...node.dataset.changes.split("\n")],
    tag: card.dataset.tags.split("\n") })));
  const words = answer => answer.words ??= [answer.card.querySelector(".head"), answer.card.querySelector(".prompt"), answer.node]
    .map(part => part.textContent).join("\n").toLowerCase();
  const fits = (answer, want) => fields.every(f => !want[f] || (f === "text" ? answer.hit : answer[f].includes(want[f])))
    && (!only.id || answer.card.dataset.id === only.id) && (!only.sample || answer.card.dataset.sample === only.sample);
  let unknown = [];
  const apply = () => {
    const want = Object.fromEntries(new FormData(form));
    want.text = want.text.trim().toLowerCase();
    for (const a of answers) a.hit = !want.text || words(a).includes(want.text);
    const matching = new Set(answers.filter(a => fits(a, want))), shown = new Set([...matching].map(a => a.card));
    for (const a of answers) {
      const other = !matching.has(a);
      a.node.hidden = other && !(want.others && shown.has(a.card));
      a.node.classList.toggle("other", other);
    }
    for (const card of cards) card.hidden = !shown.has(card);
    for (const f of fields.slice(0, 4)) {
      const free = answers.filter(a => fits(a, { ...want, [f]: "" })), tally = new Map();
      for (const a of free) for (const v of a[f]) tally.set(v, (tally.get(v) ?? 0) + 1);
      for (const option of form.elements[f].options) {
        option.dataset.label ??= option.textContent;
        const n = option.value ? tally.get(option.value) ?? 0 : free.length;
        option.textContent = option.dataset.label + " (" + n + ")";
        option.hidden = option.disabled = !n && Boolean(option.value) && !option.selected;
      }
    }
    count.textContent = matching.size + " of " + answers.length + " answers, to " + shown.size + " of " + cards.length + " questions"
      + (only.id ? "; only question " + only.id : "") + (unknown.length ? "; not on this page: " + unknown.join(", ") : "");
  };
  const write = () => {
    const query = new URLSearchParams([...new FormData(form), ...Object.entries(only)].filter(([, value]) => value));
    history.replaceState(null, "", "#samples" + (query.size ? "?" + query : ""));
  };
  const read = () => {
    const [place, rest] = location.hash.slice(1).split(/\?(.*)/s);
    if (place !== "samples") return;
    const query = new URLSearchParams(rest ?? "");
    unknown = [];
    for (const f of fields) {
      const field = form.elements[f], value = query.get(f) ?? "";
      const there = f === "text" || [...field.options].some(o => o.value === value);
      if (!there) unknown.push(f + " " + value);
      for (const o of field.options ?? []) o.hidden = o.disabled = false;
      field.value = there ? value : "";
    }
    only.id = query.get("id") ?? ""; only.sample = query.get("sample") ?? "";
    form.elements.others.checked = query.get("others") === "1";
    apply();
    document.querySelector("#samples").scrollIntoView();
  };
  const changed = () => { unknown = []; apply(); write(); };
  form.hidden = false;
  form.addEventListener("input", changed);
  form.addEventListener("submit", e => e.preventDefault());
  form.addEventListener("reset", e => {
    e.preventDefault();
    for (const f of fields) form.elements[f].value = "";
    form.elements.others.checked = false;
    only.id = only.sample = "";
    changed();
  });
  addEventListener("hashchange", read);
  apply();
  read();
  addEventListener("keydown", e => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input, select, textarea")) return;
    if (e.key === "/") { e.preventDefault(); form.elements.text.focus(); }
    if (e.key !== "j" && e.key !== "k") return;
    const seen = cards.filter(c => !c.hidden), now = seen.indexOf(document.activeElement.closest(".sample"));
    const next = seen[e.key === "j" ? Math.min(now + 1, seen.length - 1) : Math.max(now - 1, 0)];
    if (next) { next.focus({ preventScroll: true }); next.scrollIntoView({ block: "start" }); }
  });
}
const measured = text => Number.isNaN(parseFloat(text)) ? -1 : parseFloat(text);
for (const table of document.querySelectorAll(".sortable")) {
  const heads = [...table.querySelectorAll("th")], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.ariaSort === "descending" || (head.ariaSort === null && column === 0);
    for (const h of heads) h.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = row => row.cells[column].dataset.v;
    const compare = (a, b) => column === 0 ? value(a).localeCompare(value(b), "en", { numeric: true })
      : measured(value(a)) - measured(value(b));
    body.append(...[...body.rows].sort((a, b) => up ? compare(a, b) : compare(b, a)));
  }));
}
const enliven = root => {
  for (const table of root.querySelectorAll(".stack")) {
    const heads = [...table.querySelectorAll("thead th")].map(head => head.textContent);
    for (const row of table.querySelectorAll("tbody tr:not(.group)")) [...row.cells].forEach((cell, i) => {
      if (i && heads[i] && cell.colSpan === 1) cell.dataset.l = heads[i];
    });
  }
  for (const chart of root.querySelectorAll("[data-lines]")) {
    const [low, high, left, width] = JSON.parse(chart.dataset.box), lines = JSON.parse(chart.dataset.lines);
    const svg = chart.querySelector("svg"), cursor = svg.querySelector(".cursor"), out = chart.querySelector("output");
    const text = v => (chart.dataset.percent === "1" ? (100 * v).toFixed(1) + "%" : String(Number(v.toPrecision(4)))).replace("-", "−");
    svg.addEventListener("pointermove", e => {
      const box = svg.getBoundingClientRect(), at = (e.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
      const x = low + (at - left) / width * (high - low);
      const near = lines.map(l => l.points.reduce((a, b) => Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
      const step = near.at(-1)[0], where = left + (step - low) / (high - low) * width;
      cursor.setAttribute("x1", where); cursor.setAttribute("x2", where); cursor.setAttribute("visibility", "visible");
      out.textContent = "step " + step + ": " + lines.map((l, i) => (lines.length > 1 ? l.label + " " : "") + text(near[i][1])).join(", ");
      chart.classList.add("live");
    });
    svg.addEventListener("pointerleave", () => { cursor.setAttribute("visibility", "hidden"); chart.classList.remove("live"); });
  }
};
enliven(document);
