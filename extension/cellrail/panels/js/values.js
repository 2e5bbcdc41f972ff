// What cells have shown, and previews of what their variables held.

/** A piece of an output (see `rooms/outputs.py`). */
function output(piece, place) {
  const key = `output-${place}`;
  if (piece.kind === "error") return h("pre", { class: "cr-text cr-stderr cr-error", key, tabindex: 0 }, ansi(piece.text));
  if (piece.kind === "picture") return h("div", { key, class: "cr-scroll" }, h("img", { class: "cr-picture", src: piece.src, alt: piece.text || "a picture" }));
  if (piece.kind === "html") return frame(piece.html, `output ${place + 1}`);
  if (piece.kind === "note") return h("p", { key, class: "cr-soft" }, piece.text);
  return h("pre", { class: `cr-text${piece.name === "stderr" ? " cr-stderr" : ""}`, key, tabindex: 0 }, ansi(piece.text));
}

/**
 * A preview of a variable, drawn into an element of its own that pages, sorts and filters.
 * `ask(args)` answers with a preview (see `rooms/previews.py`).
 */
function preview(name, ask, close) {
  const el = h("section", { class: "cr-preview", "aria-label": `Preview of ${name}` });
  const wish = { offset: 0, sort: "", descending: false, where: "" };
  let data = null;
  let error = null;
  let busy = false;
  let turn = 0;

  async function look(more) {
    Object.assign(wish, more);
    const mine = ++turn;
    busy = true;
    show();
    try {
      const found = await ask({ ...wish });
      if (mine === turn) [data, error] = [found, null];
    } catch (problem) {
      if (mine === turn) error = problem;
    }
    if (mine === turn) { busy = false; show(); }
  }

  function table() {
    const last = data.offset + data.rows.length;
    const sort = (column) => look({ sort: column, descending: wish.sort === column ? !wish.descending : false, offset: 0 });
    const filter = () => look({ where: el.querySelector("[name=where]").value, offset: 0 });
    return [
      h("div", { class: "cr-bar cr-tight", key: "bar", role: "search" },
        h("input", { class: "cr-field cr-mono cr-grow", name: "where", "aria-label": "Filter in SQL", placeholder: "Filter in SQL: dep_delay > 60 AND origin = 'JFK'", value: wish.where, spellcheck: "false", key: "where", onkeydown: on_enter(filter) }),
        button("Filter", filter, { key: "filter" }),
        h("span", { class: "cr-soft", role: "status" }, `${data.total ? count(data.offset + 1) : 0}–${count(last)} of ${count(data.total)} rows`),
        button("‹", () => look({ offset: Math.max(0, data.offset - data.limit) }), { disabled: data.offset === 0, "aria-label": "Rows before", key: "before" }),
        button("›", () => look({ offset: data.offset + data.limit }), { disabled: last >= data.total, "aria-label": "Rows behind", key: "behind" })),
      h("div", { class: "cr-scroll cr-values", key: "values", tabindex: 0, role: "region", "aria-label": `Rows of ${name}` }, h("table", { class: "cr-table cr-data" },
        h("thead", {}, h("tr", {}, data.index ? h("th", { scope: "col" }, h("span", { class: "cr-soft" }, "index")) : null, data.columns.map(([column, kind, number]) =>
          h("th", { scope: "col", class: number ? "cr-number" : "", title: kind, "aria-sort": wish.sort === column ? (wish.descending ? "descending" : "ascending") : null },
            h("button", { type: "button", class: "cr-sort", "data-sorted": wish.sort === column ? (wish.descending ? "down" : "up") : "", onclick: () => sort(column), key: `sort-${column}` }, column),
            h("div", { class: "cr-kind" }, kind))))),
        h("tbody", {}, data.rows.map((row) => h("tr", {}, row.map((cell, place) => {
          const shift = data.index ? 1 : 0;
          if (place < shift) return h("th", { scope: "row", class: "cr-index" }, cell);
          return h("td", { class: data.columns[place - shift]?.[2] ? "cr-number" : "" }, cell);
        })))))),
      data.more_columns > 0 ? h("p", { class: "cr-soft", key: "more" }, `${count(data.more_columns)} more columns`) : null,
    ];
  }

  function body() {
    // a filter that is wrong can be mended
    if (error && data?.kind === "table") return [problem(error), table()];
    if (error) return problem(error);
    if (!data) return h("p", { class: "cr-soft" }, "Loading…");
    if (data.kind === "table") return table();
    if (data.kind === "array") return [
      h("dl", { class: "cr-facts" }, data.facts.map(([fact, words]) => h("div", {}, h("dt", {}, fact), h("dd", { class: "cr-mono" }, words)))),
      h("div", { class: "cr-scroll", tabindex: 0, role: "region", "aria-label": `Numbers of ${name}` }, h("table", { class: "cr-table cr-data" }, h("tbody", {}, data.rows.map((row) => h("tr", {}, row.map((cell) => h("td", { class: "cr-number cr-mono" }, cell))))))),
      data.cut ? h("p", { class: "cr-soft" }, "Only its first numbers are shown.") : null];
    if (data.kind === "picture") return h("div", { class: "cr-scroll" }, h("img", { class: "cr-picture", src: data.src, alt: `the figure ${name}` }));
    if (data.kind === "large") return h("p", {}, `It takes ${bytes(data.bytes)} to load. `, button("Load it", () => look({ anyway: true }), { key: "anyway" }));
    return h("pre", { class: "cr-source", tabindex: 0 }, data.text);
  }

  function show() {
    el.setAttribute("aria-busy", String(busy));
    draw(el, h("div", { class: "cr-preview-head", key: "head" }, h("h4", { class: "cr-grow" }, h("span", { class: "cr-mono" }, name), data ? h("span", { class: "cr-soft" }, ` ${data.type}, ${bytes(data.bytes)}`) : null),
      button("Close", close, { kind: "quiet", key: "close", "aria-label": `Close the preview of ${name}` })), h("div", { key: "body" }, body()));
  }
  look({});
  el.dataset.fixed = "1";
  el.dataset.key = `preview-${name}`;
  return el;
}
