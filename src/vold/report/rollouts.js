// The browser of stored rollouts: what there is, what is chosen, and what is shown of it.
const rolloutData = document.querySelector("#rollout-data");
if (rolloutData) {
  const { server, limit, steps: saved, values: stored } = JSON.parse(rolloutData.textContent);
  const ROW = 46, KEPT = 64;
  const form = document.querySelector("#choose"), list = document.querySelector("#list"), rowsBox = list.firstElementChild;
  const shown = document.querySelector("#shown"), colour = document.querySelector("#colour"), status = document.querySelector("#chosen");
  const means = document.querySelector("#means"), tools = document.querySelector(".tools");
  const steps = new Map();  // by number: { stamp, rows }
  const cache = new Map();  // whole rollouts by "step.place", the last ones asked for, as promises
  const state = { rows: [], at: -1, view: "one", colour: "gap", drawn: [], asked: 0 };
  const MEANING = {
    gap: "Student’s log-prob less the teacher’s, in nats. Orange is what the student was surer of than the teacher, blue what the teacher would rather have seen. What the teacher did not read is plain.",
    advantage: "What the token’s probability is pushed by: orange up, blue down.",
    mask: "Green takes part in the loss: the model wrote it, and it has an advantage or a weight.",
    student: "The student’s log-prob of the token when it was sampled, in nats.",
    teacher: "The teacher’s log-prob of the token, in nats.",
    entropy: "The student’s entropy where it chose the token, in nats; plain where it was not trained on.",
  };

  // What there is. Rows of a step come from the page itself, or one step at a time from the server.
  const fetched = async path => {
    const reply = await fetch(path, { cache: "no-store" });
    if (!reply.ok) throw new Error((await reply.text()).slice(0, 600) || reply.statusText);
    return reply.json();
  };
  const added = (step, stamp, found) => {
    const rows = found.rows.map(row => ({ ...row, ...found.groups[row.g], step, key: step + "." + row.i }));
    steps.set(step, { stamp, rows });
  };
  const wholes = keys => {
    const missing = keys.filter(key => !cache.has(key));
    const asked = server && missing.length ? fetched("rollouts?at=" + missing.join(",")) : Promise.resolve(stored);
    for (const key of missing) {
      const one = asked.then(found => found[key]);
      one.catch(() => cache.delete(key));
      cache.set(key, one);
    }
    const out = keys.map(key => cache.get(key));
    keys.forEach((key, i) => { cache.delete(key); cache.set(key, out[i]); });
    while (cache.size > Math.max(KEPT, keys.length)) cache.delete(cache.keys().next().value);
    return Promise.all(out);
  };
  const searched = async text => {
    if (server) {
      const step = form.elements.step.value, found = await fetched("find?text=" + encodeURIComponent(text) + (step && "&step=" + step));
      return new Set(Object.entries(found).flatMap(([step, places]) => places.map(i => step + "." + i)));
    }
    const low = text.toLowerCase();
    return new Set(Object.keys(stored).filter(key => {
      const found = unpacked(stored[key]);
      found.words ??= (found.prompt.join("") + "\n" + Array.from(found.place, p => found.texts[p]).join(found.spaced ? " " : "")).toLowerCase();
      return found.words.includes(low);
    }));
  };

  // What is chosen.
  const number = name => form.elements[name].value === "" ? null : Number(form.elements[name].value);
  const reading = r => r.r === null || r.o === "right" && r.r ? "" : r.o === "right" ? "read wrong, right all the same" : r.r ? "read right, reasoned wrong" : "read wrong";
  const within = (v, low, high) => (low === null || v !== null && v >= low) && (high === null || v !== null && v <= high);
  const ORDERS = { d: r => -Math.abs(r.d ?? 0), n: r => -r.n, s: r => r.s };
  const choose = () => {
    const { step, outcome, tag, order } = form.elements, before = state.rows[state.at]?.key;
    const [n0, n1, d0, d1] = ["n0", "n1", "d0", "d1"].map(number);
    const numbers = [...steps.keys()].sort((a, b) => a - b);
    let all = 0;
    state.rows = [];
    for (const number of numbers) {
      const rows = steps.get(number).rows;
      all += rows.length;
      if (step.value !== "" && Number(step.value) !== number) continue;
      for (const r of rows) {
        if ((!outcome.value || r.o === outcome.value || reading(r) === outcome.value) && (!tag.value || r.tags.includes(tag.value))
          && within(r.n, n0, n1) && within(r.d, d0, d1) && (!state.hits || state.hits.has(r.key))) state.rows.push(r);
      }
    }
    const by = ORDERS[order.value];
    if (by) state.rows.sort((a, b) => by(a) - by(b) || a.step - b.step || a.i - b.i);
    status.textContent = state.rows.length.toLocaleString("en") + " of " + all.toLocaleString("en") + " rollouts, of " + numbers.length + " stored steps";
    rowsBox.style.height = state.rows.length * ROW + "px";
    const again = state.rows.findIndex(r => r.key === before);
    if (again < 0) { go(0); return; }
    state.at = again;
    reveal();
  };
  const drawList = () => {
    const from = Math.max(0, Math.floor(list.scrollTop / ROW) - 5), to = Math.min(state.rows.length, from + Math.ceil(list.clientHeight / ROW) + 10);
    const what = [from, to, state.at, state.rows], nodes = [];
    if (state.listed && what.every((v, i) => v === state.listed[i])) return;
    state.listed = what;
    for (let i = from; i < to; i++) {
      const r = state.rows[i], node = make("div", "row" + (i === state.at ? " at" : ""));
      node.id = "row-" + i; node.dataset.at = i; node.style.top = i * ROW + "px";
      node.setAttribute("role", "option"); node.setAttribute("aria-selected", String(i === state.at));
      node.setAttribute("aria-setsize", state.rows.length); node.setAttribute("aria-posinset", i + 1);
      const head = make("div", "first");
      head.append(make("b", r.o, r.o === "timed_out" ? "timed out" : r.o), make("span", "", "step " + r.step), make("span", "", r.n.toLocaleString("en") + " tokens"),
        make("span", "", r.d === null ? "" : "gap " + (r.d > 0 ? "+" : "") + shorten(r.d)));
      node.append(head, make("div", "soft", r.prompt || r.task));
      nodes.push(node);
    }
    rowsBox.replaceChildren(...nodes);
    list.setAttribute("aria-activedescendant", state.at < 0 ? "" : "row-" + state.at);
  };

  // What is shown: one rollout, its group, or its problem through training. Of many only those in sight are drawn.
  const columns = row => {
    if (state.view === "one") return [row];
    if (state.view === "group") return steps.get(row.step).rows.filter(r => r.g === row.g);
    const every = [...steps.values()].flatMap(s => s.rows);
    return every.filter(r => r.task === row.task).sort((a, b) => a.step - b.step || a.i - b.i);
  };
  const show = async () => {
    const row = state.rows[state.at];
    state.drawn = [];
    if (!row) {
      ++state.asked;
      shown.removeAttribute("aria-busy");
      shown.replaceChildren(make("p", "note", steps.size ? "No rollout is chosen: widen the filter." : "No rollouts are stored yet."));
      return;
    }
    const rows = columns(row), several = rows.length > 1, box = make("div", several ? "columns" : "");
    const cards = rows.map(r => ({ r, node: make("article", "card rollout" + (r.key === row.key ? " mine" : "")) }));
    if (!several) {
      await fill(cards, box, several);
      const near = [1, -1].map(by => state.rows[state.at + by]?.key).filter(Boolean);  // the next keys' answers
      (globalThis.requestIdleCallback ?? setTimeout)(() => wholes(near).catch(() => {}));
      return;
    }
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", rows.length + " rollouts side by side");
    box.append(...cards.map(c => c.node));
    shown.replaceChildren(box);
    const mine = cards.find(c => c.r.key === row.key).node;
    box.scrollLeft = mine.offsetLeft - box.offsetLeft;
    const inSight = () => cards.filter(c => !c.asked && c.node.offsetLeft - box.offsetLeft < box.scrollLeft + box.clientWidth
      && c.node.offsetLeft - box.offsetLeft + c.node.offsetWidth > box.scrollLeft);
    box.addEventListener("scroll", () => fill(inSight(), null, several), { passive: true });
    await fill(inSight(), null, several);
  };
  // Draw rollouts into their cards; a `box` is shown in the place of what was there.
  const fill = async (cards, box, several) => {
    if (!cards.length) return;
    const asked = box || !state.drawn.length ? ++state.asked : state.asked;
    for (const c of cards) c.asked = true;
    shown.setAttribute("aria-busy", "true");
    let found;
    try { found = await wholes(cards.map(c => c.r.key)); }
    catch (error) { found = null; if (asked === state.asked) shown.replaceChildren(make("p", "note wrong", error.message)); }
    if (asked !== state.asked) return;  // another was asked for meanwhile
    shown.removeAttribute("aria-busy");
    if (!found) return;
    const fresh = found.map(f => new Tokens(unpacked(f), several ? .5 : 1));
    state.drawn.push(...fresh);
    colours();
    paint(fresh);  // before any of it stands in the page: what does is styled and laid out at every question about it
    cards.forEach((c, i) => c.node.append(...inside(c.r, found[i], fresh[i], several)));
    if (several && fresh.length === state.drawn.length) shown.prepend(problem(cards[0].r, found[0]));
    if (box) { box.append(...cards.map(c => c.node)); shown.replaceChildren(box); }
  };
  const colours = () => {
    const names = [...new Set(state.drawn.flatMap(t => Object.keys(t.found.values)))];
    if (names.length === colour.options.length && names.every((name, i) => colour.options[i].value === name)) return;
    colour.replaceChildren(...names.map(name => new Option(name, name)));
    colour.value = names.includes(state.colour) ? state.colour : names[0];
  };
  const paint = drawn => {
    const name = colour.value, now = inks();
    for (const tokens of drawn) tokens.colour(name, limit, now);
    const scale = state.drawn.map(t => t.scale).find(s => s) ?? null, box = tools.querySelector(".scale");
    box.hidden = scale === null;
    box.classList.toggle("plain", scale !== null && !scale.signed);
    if (scale) {
      box.querySelector(".low").textContent = shorten(scale.low) + scale.unit;
      box.querySelector(".high").textContent = shorten(scale.high) + scale.unit;
    }
    means.textContent = MEANING[name] ?? "A value that the objective gave each token; strongest colour for the highest.";
  };
  const problem = (r, found) => {
    const box = make("div", "question"), text = make("div", "prompt");
    const pictures = make("div", "pictures");
    for (const p of found.images) {
      if (!p.uri) { pictures.append(make("p", "note", p.note)); continue; }
      const image = make("img");
      image.src = p.uri; image.width = p.width; image.height = p.height; image.alt = "picture of problem " + r.task;
      pictures.append(image);
    }
    text.dir = "auto";
    const [head, out, tail] = found.prompt;
    text.append(head);
    if (out) text.append(make("span", "gap", "[ " + out + " characters are left out here ]"), tail);
    if (found.text) { const twin = make("span", "twin"); twin.append(make("span", "soft", "as text: "), found.text); text.append(twin); }
    if (found.images.length) box.append(pictures);
    box.append(text);
    return box;
  };
  const inside = (r, found, tokens, several) => {
    const head = make("div", "head"), soft = text => make("span", "soft", text);
    const code = (label, text) => { const s = make("span", "", label + " "); s.append(make("code", "", text)); return s; };
    head.append(make("b", "badge " + r.o, r.o === "timed_out" ? "timed out" : r.o), make("span", "", "score " + shorten(r.s)));
    if (reading(r)) head.append(make("b", "badge misread", reading(r)));
    head.append(code("answer", r.a), ...(several ? [] : [code("reference", found.reference)]), soft(found.note));
    head.append(soft("step " + r.step + ", no. " + r.i), soft(found.finish === "length" ? "ended by the token limit" : "ended by itself"), soft(r.n.toLocaleString("en") + " tokens"));
    head.append(soft(r.d === null ? "not read by the teacher" : "mean gap " + (r.d > 0 ? "+" : "") + shorten(r.d) + " nats"));
    if (r.t) head.append(make("span", "", "a trace of the teacher"));
    for (const f of found.figures) head.append(soft(f));
    for (const t of several ? [] : r.tags) head.append(soft(t));
    return [head, ...(several ? [] : [problem(r, found)]), tokens.map, tokens.box, tokens.told];
  };
  const reveal = () => {
    const top = state.at * ROW;
    if (top < list.scrollTop || top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = Math.max(0, top - list.clientHeight / 3);
    drawList();
  };
  const go = at => {
    state.at = Math.max(0, Math.min(state.rows.length - 1, at));
    reveal();
    return show();
  };
  const goStep = by => {
    const now = state.rows[state.at]?.step, others = state.rows.map(r => r.step).filter(s => by > 0 ? s > now : s < now);
    if (others.length) {
      const next = by > 0 ? Math.min(...new Set(others)) : Math.max(...new Set(others));
      const at = state.rows.findIndex(r => r.step === next && (state.view !== "task" || r.task === state.rows[state.at].task));
      go(at < 0 ? state.rows.findIndex(r => r.step === next) : at);
    }
  };
  const look = view => {
    state.view = view;
    for (const b of tools.querySelectorAll("[data-view]")) b.setAttribute("aria-pressed", String(b.dataset.view === view));
    return show();
  };
  const current = () => state.drawn.find(t => t.box.closest(".mine")) ?? state.drawn[0];

  // Hands on it.
  list.addEventListener("scroll", drawList, { passive: true });
  list.addEventListener("click", e => { const row = e.target.closest(".row"); if (row) go(Number(row.dataset.at)); });
  list.addEventListener("keydown", e => {
    const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const to = { ArrowDown: state.at + 1, ArrowUp: state.at - 1, PageDown: state.at + page, PageUp: state.at - page, Home: 0, End: state.rows.length - 1 }[e.key];
    if (to !== undefined) { e.preventDefault(); go(to); }
  });
  tools.addEventListener("click", e => { if (e.target.dataset.view) look(e.target.dataset.view); });
  const recolour = () => { state.colour = colour.value; paint(state.drawn); };
  colour.addEventListener("change", recolour);
  form.addEventListener("input", e => {
    if (e.target.name === "text" || e.target.name === "step" && state.hits) find(); else choose();
  });
  // One search at a time: what is typed meanwhile is looked for after it.
  const find = async () => {
    state.typed = true;
    if (form.hasAttribute("aria-busy")) return;
    form.setAttribute("aria-busy", "true");
    try {
      while (state.typed) {
        state.typed = false;
        const text = form.elements.text.value.trim();
        state.hits = text ? await searched(text) : null;
      }
      choose();
    } catch (error) { status.textContent = error.message; }
    form.removeAttribute("aria-busy");
  };
  form.addEventListener("submit", e => e.preventDefault());
  form.addEventListener("reset", () => { state.hits = null; setTimeout(choose); });
  const KEYS = {
    n: () => go(state.at + 1), p: () => go(state.at - 1), N: () => goStep(1), P: () => goStep(-1),
    g: () => look("group"), t: () => look("task"), o: () => look("one"), w: () => current()?.next(), u: () => current()?.unfoldNext(),
    c: () => { colour.selectedIndex = (colour.selectedIndex + 1) % colour.options.length; recolour(); },
    f: () => { form.elements.text.focus(); form.scrollIntoView({ block: "nearest" }); },
  };
  addEventListener("keydown", e => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input, select, textarea") || !KEYS[e.key]) return;
    e.preventDefault();
    KEYS[e.key]();
  });

  // Options of the filter follow what there is.
  const options = () => {
    const fill = (select, names, label) => {
      const value = select.value;
      select.replaceChildren(select.options[0], ...names.map(name => new Option(label(name), name)));
      select.value = names.map(String).includes(value) ? value : "";
    };
    fill(form.elements.step, [...steps.keys()].sort((a, b) => a - b), String);
    const tags = new Set();
    for (const { rows } of steps.values()) for (const r of rows) for (const tag of r.tags) if (tags.size < 500) tags.add(tag);
    fill(form.elements.tag, [...tags].sort((a, b) => a.localeCompare(b, "en", { numeric: true })), String);
    form.elements.tag.closest("label").hidden = !tags.size;
  };
  // Steps by number with their stamps, as the server has them now: what is new is read, what is gone or changed goes.
  globalThis.followSteps = async there => {
    const known = new Map(Object.entries(there).map(([step, stamp]) => [Number(step), stamp]));
    let changed = false;
    for (const [step, { stamp }] of steps) if (known.get(step) !== stamp) {
      steps.delete(step);
      for (const key of [...cache.keys()]) if (key.startsWith(step + ".")) cache.delete(key);
      changed = true;
    }
    for (const [step, stamp] of [...known].sort((a, b) => b[0] - a[0])) if (!steps.has(step)) {
      added(step, stamp, await fetched("step?step=" + step));
      options(); choose();
    }
    if (changed) { options(); choose(); }
    if (!steps.size) choose();
  };
  form.hidden = document.querySelector(".browser").hidden = false;
  for (const [step, found] of Object.entries(saved)) added(Number(step), "", found);
  options();
  if (steps.size) choose();
}
