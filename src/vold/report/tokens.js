// One rollout as the page draws it: unpacked streams, a colour for every token, what is folded, and a map of it all.
const HEAD = 80, TAIL = 120, AROUND = 24, WIDEST = 5, UNFOLD = 256, BINS = 400;
const SIGNED = new Set(["gap", "advantage"]);
const NOTHING = 5e-5;  // below it a value is the rounding of a sum in 32 bits
const shorten = v => v === undefined || Number.isNaN(v) ? "–" : Math.abs(v) < NOTHING ? "0"
  : (Math.abs(v) >= 100 ? v.toFixed(0) : String(Number(v.toPrecision(3)))).replace("-", "−");

const bytes = text => {
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
};

// A stream as it comes (see packed_values in browser.py) as numbers, NaN where there is none.
function unpack(stream, length) {
  const out = new Float32Array(length);
  if (stream === null) return out.fill(NaN);
  if (typeof stream === "number") return out.fill(stream);
  const at = new Uint16Array(bytes(stream.at).buffer), span = (stream.high - stream.low) / 65534;
  for (let i = 0; i < length; i++) out[i] = at[i] === 65535 ? NaN : stream.low + at[i] * span;
  return out;
}

// The whole rollout: `place` of every token's text, and `values` by name.
function unpacked(found) {
  if (found.values) return found;
  found.place = new Uint32Array(bytes(found.t).buffer);
  found.length = found.place.length;
  found.values = {};
  for (const [name, stream] of Object.entries(found.streams)) found.values[name] = unpack(stream, found.length);
  const { student, teacher } = found.values;
  if (teacher) found.values = { gap: student.map((v, i) => v - teacher[i]), ...found.values };
  delete found.streams; delete found.t;
  return found;
}

// How a stream is coloured: signed ones about 0, others from their lowest to their highest value.
function scaleOf(name, found, limit) {
  const values = found.values[name];
  if (!values) return null;
  let low = Infinity, high = -Infinity;
  for (const v of values) if (!Number.isNaN(v)) { if (v < low) low = v; if (v > high) high = v; }
  if (low > high) return null;
  if (name === "gap") return { low: -limit, high: limit, signed: true, unit: " nats" };
  if (SIGNED.has(name) || low < 0 && high > 0) {
    const most = Math.max(Math.abs(low), Math.abs(high)) || 1;
    return { low: -most, high: most, signed: true, unit: "" };
  }
  if (name === "mask") { low = 0; high = 1; }
  return { low, high, signed: false, unit: name === "student" || name === "teacher" || name === "entropy" ? " nats" : "" };
}

// The colour of a value: what class of token, and how strong (0 to 1).
function shade(v, scale) {
  if (scale === null || Number.isNaN(v)) return ["", 0];
  if (scale.signed) return v === 0 ? ["", 0] : [v > 0 ? "over" : "under", Math.min(1, Math.abs(v) / scale.high)];
  return ["value", scale.high > scale.low ? (v - scale.low) / (scale.high - scale.low) : scale.high ? 1 : 0];
}

// Places of the widest values, far enough apart to be worth a look each.
function widest(values, count) {
  const out = [];
  while (values && out.length < count) {
    let most = 0, at = -1;
    for (let i = 0; i < values.length; i++) {
      const v = Math.abs(values[i]);
      if (v > most && out.every(j => Math.abs(i - j) > AROUND)) { most = v; at = i; }
    }
    if (at < 0) break;
    out.push(at);
  }
  return out;
}

// Stretches [from, to) that are unfolded at first: head, tail and what is around the widest values; or a part of each.
function opened(length, places, part) {
  const [head, tail, around] = [HEAD, TAIL, AROUND].map(n => n * part);
  const parts = [[0, head], [length - tail, length], ...places.map(i => [i - around, i + around])];
  return joined(parts.map(([a, b]) => [Math.max(0, a), Math.min(length, b)]).filter(([a, b]) => a < b), AROUND);
}

function joined(parts, near = 0) {
  const out = [];
  for (const [a, b] of parts.sort((x, y) => x[0] - y[0])) {
    const last = out[out.length - 1];
    if (last && a <= last[1] + near) last[1] = Math.max(last[1], b); else out.push([a, b]);
  }
  return out;
}

const make = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};

// What the page colours tokens by, light or dark. Read before any is drawn: the browser styles all that is new for it.
const inks = () => {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(["over", "under", "value"].map(side => [side, style.getPropertyValue("--" + side).trim().replace(/\s+/g, ",")]));
};

// The tokens of a rollout in `box`, folded but for `part` (0 to 1) of what is worth a look; `told` is where the values of one are written.
class Tokens {
  constructor(found, part) {
    this.found = found; this.part = part; this.at = 0; this.open = [];
    this.box = make("p", "tokens" + (found.spaced ? " spaced" : ""));
    this.box.tabIndex = 0;
    this.box.setAttribute("aria-label", "tokens; arrow keys go through them");
    this.told = make("p", "about-token");
    this.told.setAttribute("aria-live", "polite");
    this.map = make("canvas", "map");
    this.map.setAttribute("role", "img");
    this.map.addEventListener("click", e => {
      const box = this.map.getBoundingClientRect();
      this.show(Math.floor((e.clientX - box.left) / box.width * found.length));
    });
    for (const event of ["mouseover", "click"]) this.box.addEventListener(event, e => this.pointed(e));
    this.box.addEventListener("keydown", e => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
      if (by && !e.ctrlKey && !e.metaKey && !e.altKey) { e.preventDefault(); this.show(this.at + by); }
    });
  }

  // Draw afresh by the values of a name; `inks` are the page's colours (see inks).
  colour(name, limit, inks) {
    const { found } = this;
    this.name = name;
    this.scale = scaleOf(name, found, limit);
    const values = found.values[name], varies = values && values.some(v => v !== values[0]);
    this.wide = widest(found.values[SIGNED.has(name) || !found.values.gap ? name : varies ? name : "gap"], WIDEST);
    this.open = joined([...this.open, ...opened(found.length, this.wide, this.part)]);
    this.turn = 0;
    this.draw();
    this.drawMap(inks);
  }

  draw() {
    this.box.replaceChildren(this.piece(0, this.found.length, this.open));
  }

  // The tokens from one to another: those of the open stretches, and a button for what is folded between them.
  piece(from, to, open) {
    const out = document.createDocumentFragment();
    let end = from;
    for (const [a, b] of open) {
      if (a > end) out.append(this.fold(end, a));
      for (let i = a; i < b; i++) {
        out.append(this.token(i));
        if (this.found.spaced) out.append(" ");
      }
      end = b;
    }
    if (end < to) out.append(this.fold(end, to));
    return out;
  }

  token(i) {
    const { found } = this, [side, strength] = shade(found.values[this.name]?.[i] ?? NaN, this.scale);
    const text = found.texts[found.place[i]];
    const node = make("span", side, text.replaceAll("\n", "↵\n").replaceAll("\t", "⇥") || "·");
    if (side) node.style.setProperty("--g", strength.toFixed(2));
    node.dataset.i = i;
    return node;
  }

  fold(from, to) {
    const node = make("button", "fold", "… " + (to - from).toLocaleString("en") + " more tokens …");
    node.type = "button";
    node.dataset.from = from;
    node.dataset.to = to;
    return node;
  }

  unfold(from, to) {
    this.open = joined([...this.open, [from, to]]);
    for (const fold of this.box.querySelectorAll(".fold")) {
      const a = Number(fold.dataset.from), b = Number(fold.dataset.to);
      if (a < to && from < b) fold.replaceWith(this.piece(a, b, [[Math.max(a, from), Math.min(b, to)]]));
    }
  }

  pointed({ type, target }) {
    if (target.dataset.i) this.mark(Number(target.dataset.i));
    else if (type === "click" && target.dataset.from) this.unfoldNext(target);
  }

  unfoldNext(fold = this.box.querySelector(".fold")) {
    if (!fold) return;
    const from = Number(fold.dataset.from), to = Math.min(Number(fold.dataset.to), from + UNFOLD);
    this.unfold(from, to);
    this.show(from);
  }

  words(i) {
    const { found } = this, said = ["token " + i, "id " + found.ids[found.place[i]]];
    for (const [name, values] of Object.entries(found.values)) said.push(name + " " + shorten(values[i]));
    return said.join("  ");
  }

  mark(i) {
    this.box.querySelector(".on")?.classList.remove("on");
    const node = this.box.querySelector(`[data-i="${i}"]`);
    node?.classList.add("on");
    this.at = i;
    this.told.textContent = this.words(i);
    return node;
  }

  // Unfold what is around a token, mark it and bring it into sight.
  show(i) {
    i = Math.max(0, Math.min(this.found.length - 1, i));
    if (!this.open.some(([a, b]) => a <= i && i < b)) this.unfold(Math.max(0, i - AROUND), Math.min(this.found.length, i + AROUND));
    this.mark(i)?.scrollIntoView({ block: "nearest" });
  }

  next() {
    if (this.wide.length) this.show(this.wide[this.turn++ % this.wide.length]);
  }

  // The mean of every stretch, from the first token on the left to the last on the right.
  drawMap(inks) {
    const { found, map, scale } = this, bins = Math.min(BINS, found.length), values = found.values[this.name];
    map.width = Math.max(1, bins); map.height = 1;
    map.setAttribute("aria-label", "map of " + found.length + " tokens by " + this.name + ", from first to last");
    const paint = map.getContext("2d");
    for (let x = 0; x < bins && values; x++) {
      const from = Math.floor(x * found.length / bins), to = Math.max(from + 1, Math.floor((x + 1) * found.length / bins));
      let sum = 0, most = 0, n = 0;
      for (let i = from; i < to; i++) if (!Number.isNaN(values[i])) { sum += values[i]; n++; most = Math.max(most, Math.abs(values[i])); }
      const [side, strength] = shade(n ? sum / n : NaN, scale);
      if (!side) continue;
      const level = scale.signed ? Math.max(strength, Math.min(1, most / scale.high) / 2) : strength;
      paint.fillStyle = `rgba(${inks[side]},${(0.1 + 0.9 * level).toFixed(2)})`;
      paint.fillRect(x, 0, 1, 1);
    }
  }
}
