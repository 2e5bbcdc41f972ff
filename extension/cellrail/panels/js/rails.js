// The steps of a run: which feeds which (rails at the left), what became of them, and when.
// Every step that others read from owns a rail; it goes down to the last of its readers.

const ROW = 36;
const ITEM = 28;
const LANE = 9;
const LANES = 9;

/**
 * The rows: steps, and the items of loops that are open.
 * `open` maps a loop's label to a page of its items.
 */
function rows_of(steps, open) {
  const rows = [];
  let top = 0;
  const push = (row, height) => { rows.push({ ...row, top, height }); top += height; };
  for (const step of steps) {
    push({ step, address: step.label, level: 1 }, ROW);
    const page = open.get(step.label);
    if (page) {
      for (const item of page.items) push({ step, item, address: item.address, level: 2 }, ITEM);
      if (page.total > page.limit) push({ step, page, address: `${step.label}\u0000`, level: 2 }, ITEM);
    }
  }
  return { rows, height: top };
}

/** Lanes for the rails: `from` step, `to` its last reader, `edges`; none shares a lane where they overlap. */
function lanes_of(edges, places) {
  const rails = new Map();
  for (const [from, to, names] of edges) {
    if (!places.has(from) || !places.has(to)) continue;
    if (!rails.has(from)) rails.set(from, { from, last: to, edges: [] });
    const rail = rails.get(from);
    rail.last = places.get(to) > places.get(rail.last) ? to : rail.last;
    rail.edges.push([to, names]);
  }
  const free = []; // by lane: where it is taken to
  const sorted = [...rails.values()].sort((a, b) => places.get(a.from) - places.get(b.from));
  for (const rail of sorted) {
    let lane = free.findIndex((end) => end <= places.get(rail.from));
    if (lane < 0) lane = free.length;
    rail.lane = Math.min(lane, LANES - 1);
    free[lane] = places.get(rail.last);
  }
  return { rails: sorted, lanes: Math.min(free.length, LANES) };
}

function rails_picture(edges, layout, chosen) {
  const places = new Map();
  for (const row of layout.rows) if (row.level === 1) places.set(row.step.number, row.top + ROW / 2);
  const { rails, lanes } = lanes_of(edges, places);
  const width = lanes * LANE + 26;
  const node = width - 12;
  const x = (lane) => node - 12 - lane * LANE;
  const paths = [];
  for (const rail of rails) {
    const at = x(rail.lane);
    const begin = places.get(rail.from);
    for (const [to, names] of rail.edges) {
      const end = places.get(to);
      const hot = rail.from === chosen || to === chosen;
      paths.push([hot, h("path", {
        class: `cr-rail${hot ? " cr-hot" : ""}`,
        d: `M${node} ${begin}H${at + 5}Q${at} ${begin} ${at} ${begin + 5}V${end - 5}Q${at} ${end} ${at + 5} ${end}H${node - 8}`,
      }, h("svg-title", {}, names.join(", "))),
      h("path", { class: `cr-arrow${hot ? " cr-hot" : ""}`, d: `M${node - 11} ${end - 3}l4 3-4 3` })]);
    }
  }
  // what belongs to the chosen step lies on top
  paths.sort((a, b) => a[0] - b[0]);
  return {
    width,
    svg: h("svg", { class: "cr-rails", width, height: layout.height, viewBox: `0 0 ${width} ${layout.height}`, "aria-hidden": "true", focusable: "false" },
      paths.map(([, ...drawn]) => drawn)),
  };
}

/** Maps moments to a part of the line; long times in which nothing was executed are cut short. */
function time_scale(spans, start, end) {
  const sorted = spans.filter(([from, to]) => to >= from).sort((a, b) => a[0] - b[0]);
  const merged = [];
  for (const [from, to] of [[start, start], ...sorted, [end, end]]) {
    const last = merged[merged.length - 1];
    if (last && from <= last[1]) last[1] = Math.max(last[1], to);
    else merged.push([from, to]);
  }
  const busy = merged.reduce((sum, [from, to]) => sum + to - from, 0) || 1e-3;
  const points = []; // [moment, length up to it]
  const cuts = [];
  let length = 0;
  merged.forEach(([from, to], place) => {
    if (place) {
      const gap = from - merged[place - 1][1];
      const short = gap > busy * 0.6 ? busy * 0.12 : gap;
      if (short < gap) cuts.push([length, length + short, gap]);
      length += short;
    }
    points.push([from, length]);
    length += to - from;
    points.push([to, length]);
  });
  const total = length || 1e-3;
  const map = (moment) => {
    for (let place = 1; place < points.length; place++) {
      const [from, a] = points[place - 1];
      const [to, b] = points[place];
      if (moment <= to) return Math.max(0, Math.min(1, (a + (to > from ? (moment - from) / (to - from) : 0) * (b - a)) / total));
    }
    return 1;
  };
  return { map, cuts: cuts.map(([a, b, gap]) => [a / total, b / total, gap]), busy: total };
}

function bars_of(row, scale, now) {
  const { step } = row;
  if (step.status === "kept") return [h("span", { class: "cr-kept-mark" }, step.own ? "kept" : step.words)];
  if (step.status === "skipped") return [h("span", { class: "cr-kept-mark cr-skip-mark" }, "skipped")];
  const bars = step.bars.map(([from, to, status]) => {
    const left = scale.map(from);
    const right = scale.map(to ?? now);
    return h("span", { class: `cr-time cr-time-${status}`, style: { left: percent(left), width: `max(3px, ${percent(right - left)})` }, title: `${clock(from)}, ${seconds((to ?? now) - from)}` });
  });
  if (step.status === "suspended" && step.bars.length) {
    const from = step.bars[step.bars.length - 1][1];
    const left = scale.map(from);
    bars.push(h("span", { class: "cr-time cr-time-suspended", style: { left: percent(left), width: `max(8px, ${percent(1 - left)})` }, title: "waiting" }));
  }
  return bars;
}

function item_words(items) {
  const order = ["failed", "running", "cancelled", "success", "kept"];
  return order.filter((status) => items[status]).map((status) => `${count(items[status])} ${status}`).join(", ");
}

/** The whole picture. `act` has choose(address), toggle(label), page(label, offset). */
function step_rows(view, chosen, open, act) {
  const layout = rows_of(view.steps, open);
  const now = view.run.status === "running" ? Date.now() / 1000 : view.now;
  const spans = view.steps.flatMap((step) => step.bars.map(([from, to]) => [from, to ?? now]));
  const end = Math.max(view.run.seconds === null ? (view.run.status === "running" ? now : 0) : view.run.started + view.run.seconds, ...spans.map(([, to]) => to), view.run.started);
  const scale = time_scale(spans, view.run.started, end);
  const at = layout.rows.find((row) => row.address === chosen);
  const { svg, width } = rails_picture(view.edges, layout, at?.step.number);
  const walkable = layout.rows.filter((row) => !row.page);

  const walk = (event) => {
    const place = walkable.findIndex((row) => row.address === chosen);
    const row = walkable[place];
    let next = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: walkable.length - 1 }[event.key];
    if (event.key === "ArrowRight" && row && has_items(row) && !open.has(row.address)) act.toggle(row.address);
    else if (event.key === "ArrowLeft" && row?.item) next = walkable.findIndex((other) => other.address === row.step.label);
    else if (event.key === "ArrowLeft" && row && open.has(row.address)) act.toggle(row.address);
    else if (next === undefined) return;
    event.preventDefault();
    if (next === undefined) return;
    const list = event.currentTarget;
    const address = walkable[Math.max(0, Math.min(next, walkable.length - 1))].address;
    act.choose(address);
    list.querySelector(`[data-key="${CSS.escape(`row-${address}`)}"]`)?.focus();
  };

  const draw_row = (row) => {
    const { step, item } = row;
    if (row.page) return page_row(row, act);
    const status = item ? item.status : step.status;
    const words = item ? item.words : step.words;
    const told = item ? item.address : step.label;
    const took = item ? item.seconds : step.seconds;
    const more = Object.keys(step.items).length && !item ? item_words(step.items) : "";
    return h("div", {
      key: `row-${row.address}`, role: "treeitem", class: `cr-row${item ? " cr-item" : ""}`, style: { height: `${row.height}px` },
      "aria-level": row.level, "aria-selected": String(row.address === chosen),
      "aria-expanded": has_items(row) ? String(open.has(row.address)) : null,
      "aria-label": `${told}, ${words}${took === null ? "" : `, ${seconds(took)}`}${more ? `, items: ${more}` : ""}`,
      tabindex: row.address === chosen || (!at && row === layout.rows[0]) ? 0 : -1,
      onclick: () => act.choose(row.address),
    },
      h("span", { class: "cr-status", title: words }, icon(status)),
      h("span", { class: "cr-what" },
        has_items(row) ? h("button", {
          type: "button", class: "cr-toggle", tabindex: -1, "aria-hidden": "true", key: "toggle",
          onclick: (event) => { event.stopPropagation(); act.toggle(row.address); },
        }, open.has(row.address) ? "▾" : "▸") : null,
        h("span", { class: "cr-name" }, told),
        item ? (item.cause ? h("span", { class: "cr-line cr-cause" }, item.cause) : null)
          : more ? h("span", { class: "cr-line" }, more)
            : step.cause && status === "failed" ? h("span", { class: "cr-line cr-cause" }, step.cause) : h("span", { class: "cr-line cr-mono" }, step.line)),
      h("span", { class: "cr-when" }, item ? null : bars_of(row, scale, now)),
      h("span", { class: "cr-took", title: more ? "What the code of its items took, without starting kernels, checkpoints and waits" : null }, status === "running" && !item ? seconds(now - (step.fired ?? now)) : seconds(took)));
  };

  return h("div", { class: "cr-steps" },
    h("div", { class: "cr-row cr-axis", "aria-hidden": "true", style: { "padding-left": `${width}px` } },
      h("span", { class: "cr-what cr-soft" }, "Step"),
      h("span", { class: "cr-when cr-soft" }, scale.cuts.length ? "busy " : "", seconds(scale.cuts.length ? scale.busy : end - view.run.started)), h("span", { class: "cr-took cr-soft" }, "took")),
    h("div", { class: "cr-tree", role: "tree", "aria-label": "Steps", onkeydown: walk, style: { "padding-left": `${width - 4}px`, "min-height": `${layout.height}px` } },
      svg,
      layout.rows.map(draw_row)));
}

function has_items(row) {
  return !row.item && Object.keys(row.step.items).length > 0;
}

function page_row(row, act) {
  const { page, step } = row;
  const last = Math.min(page.offset + page.limit, page.total);
  return h("div", { class: "cr-row cr-item cr-paging", role: "presentation", key: `page-${step.label}`, style: { height: `${row.height}px` } },
    button("‹", () => act.page(step.label, page.offset - page.limit), { disabled: page.offset === 0, kind: "quiet", "aria-label": "Items before", key: "before" }),
    h("span", { class: "cr-soft" }, `${count(page.offset + 1)}–${count(last)} of ${count(page.total)} items`),
    button("›", () => act.page(step.label, page.offset + page.limit), { disabled: last >= page.total, kind: "quiet", "aria-label": "Items behind", key: "behind" }));
}
