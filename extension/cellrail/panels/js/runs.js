// The runs, newest first: search, filter by status, sort, page.

rooms.runs = (ctx) => {
  const PAGE = 50;
  const wish = { text: "", status: "", sort: "started", ascending: false, offset: 0, limit: PAGE };
  let page = null;
  let error = null;
  let stop = null;
  let typing = 0;
  let at = ""; // the row that the keyboard is on

  const columns = [
    ["status", "Status", true], ["run", "Run", false], ["flow", "Flow", true], ["started", "Started", true],
    ["seconds", "Took", true], ["values", "Parameters and labels", false],
  ];
  const order = ["running", "queued", "suspended", "failed", "interrupted", "success", "cancelled"];

  const search = h("input", {
    class: "cr-field cr-grow", type: "search", "aria-label": "Search runs", spellcheck: "false",
    placeholder: "Search: a flow, an id, team=blue, day=2013-01",
    oninput: () => { clearTimeout(typing); typing = setTimeout(() => change({ text: search.value, offset: 0 }), 200); },
  });
  const filters = h("div", { class: "cr-filters", role: "group", "aria-label": "Filter by status" });
  const table = h("div", { class: "cr-scroll cr-runs" });
  const foot = h("div", { class: "cr-bar cr-foot" });
  const el = h("div", {}, h("div", { class: "cr-bar" }, search), filters, table, foot);

  function change(more) {
    Object.assign(wish, more);
    follow();
  }

  function follow() {
    stop?.();
    stop = ctx.watch("page", { ...wish }, (data, problem) => {
      if (data) page = data;
      error = problem ?? null;
      show();
    });
  }

  function choose(run) {
    at = run;
    ctx.value = run;
    show();
    if (ctx.has("run")) ctx.go("run", { run });
  }

  function walk(event) {
    const rows = page?.rows ?? [];
    const place = rows.findIndex(({ run }) => run === at);
    const next = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (event.key === "Enter" || event.key === " ") {
      if (place >= 0) choose(at);
    } else if (next === undefined || !rows.length) {
      return;
    } else {
      at = rows[Math.max(0, Math.min(next, rows.length - 1))].run;
      show();
      table.querySelector(`[data-key="${CSS.escape(at)}"]`)?.focus();
    }
    event.preventDefault();
  }

  function heading([name, words, sorts]) {
    const sorted = wish.sort === name ? (wish.ascending ? "up" : "down") : "";
    const press = () => change({ sort: name, ascending: wish.sort === name ? !wish.ascending : name === "flow" || name === "status", offset: 0 });
    return h("th", { scope: "col", class: name === "seconds" ? "cr-number" : "", "aria-sort": sorted ? { up: "ascending", down: "descending" }[sorted] : null },
      sorts ? h("button", { type: "button", class: "cr-sort", "data-sorted": sorted, onclick: press, key: `sort-${name}` }, words) : words);
  }

  function row(one, first) {
    const chosen = one.run === ctx.value;
    return h("tr", {
      class: "cr-pick", key: one.run, "aria-selected": String(chosen), onclick: () => choose(one.run), onkeydown: walk,
      tabindex: one.run === at || (first && !page.rows.some(({ run }) => run === at)) ? 0 : -1, onfocus: () => { at = one.run; },
    },
      h("td", {}, badge(one.status)),
      h("td", { class: "cr-mono cr-nowrap" }, one.run, one.kind === "live" ? h("div", { class: "cr-soft" }, "open notebook") : null, one.origin
        ? h("div", { class: "cr-soft" }, one.kind === "rerun" ? "rerun of " : "restart of ", one.origin.slice(-9), one.from_step ? ` from ${one.from_step}` : "") : null),
      h("td", {}, h("div", { class: "cr-clip", title: one.flow }, one.flow), one.cause ? h("div", { class: `cr-clip ${cause_class(one.status)}`, title: one.cause }, one.cause) : null),
      h("td", { class: "cr-nowrap", title: clock(one.started) }, ago(one.started)),
      h("td", { class: "cr-number" }, one.status === "running" ? seconds(Date.now() / 1000 - one.started) : seconds(one.seconds)),
      h("td", {}, h("div", { class: "cr-chips" }, chips(one.parameters.slice(0, 5), "parameter"),
        one.parameters.length > 5 ? h("span", { class: "cr-soft" }, `and ${one.parameters.length - 5} more`) : null, chips(one.labels, "label"))));
  }

  function filter(status, words, number) {
    return h("button", {
      type: "button", class: "cr-filter", key: `filter-${status}`, "aria-pressed": String(wish.status === status),
      onclick: () => change({ status, offset: 0 }),
    }, status ? icon(status) : null, words, h("span", { class: "cr-soft" }, ` ${count(number)}`));
  }

  function show() {
    const rows = page?.rows ?? [];
    const counts = page?.counts ?? {};
    const all = Object.values(counts).reduce((sum, number) => sum + number, 0);
    draw(filters, filter("", "All", all), order.filter((status) => counts[status] || status === wish.status).map((status) => filter(status, status, counts[status] ?? 0)));
    const nothing = page && !rows.length;
    draw(table, error ? problem(error) : null,
      nothing ? h("div", { class: "cr-empty" }, page.empty ? "No run yet. Run a cell below %load_ext cellrail, or `cellrail run NOTEBOOK`." : "No run fits.")
        : h("table", { class: "cr-table", "aria-label": "Runs", "aria-busy": String(!page) }, h("thead", {}, h("tr", {}, columns.map(heading))),
          h("tbody", {}, rows.map((one, place) => row(one, place === 0)))));
    const last = wish.offset + rows.length;
    draw(foot, h("span", { class: "cr-soft cr-grow", role: "status" }, page ? `${rows.length ? count(wish.offset + 1) : 0}–${count(last)} of ${count(page.total)} runs`
      + (page.behind ? ` · ${count(page.behind)} are still being read` : "") : "Looking…"),
      button("First", () => change({ offset: 0 }), { disabled: wish.offset === 0, key: "first", "aria-label": "First page" }),
      button("Previous", () => change({ offset: Math.max(0, wish.offset - PAGE) }), { disabled: wish.offset === 0, key: "previous" }),
      button("Next", () => change({ offset: wish.offset + PAGE }), { disabled: !page || last >= page.total, key: "next" }),
      button("Last", () => change({ offset: Math.floor((page.total - 1) / PAGE) * PAGE }), { disabled: !page || last >= page.total, key: "last", "aria-label": "Last page" }));
  }

  // what is told as a time ago, or goes on
  const timer = setInterval(() => { if (!document.hidden && el.offsetParent) show(); }, 10000);
  show();
  return {
    el,
    open(args) {
      if (args.text) search.value = args.text;
      if (!stop || args.text || args.status) change({ text: search.value, status: args.status ?? wish.status });
    },
    chosen: show,
    close() { clearInterval(timer); stop?.(); },
  };
};
