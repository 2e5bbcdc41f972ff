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
  const wish = { offset: 0, column: 0, sort: null, descending: false, where: "" };
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

  /** Where a page lies, and what turns it. */
  function pages(what, first, shown, total, limit, turn) {
    const last = first + shown;
    const words = what === "Rows" ? "rows" : "columns";
    const leaf = (sign, words_of, to, off, key) => button(sign, () => turn(to), { disabled: off, "aria-label": words_of, key: `${what}-${key}` });
    const many = total > 2 * limit;
    return h("span", { class: "cr-bar cr-tight cr-nowrap", key: `${what}-pages` },
      h("span", { class: "cr-soft", role: "status", key: `${what}-at` }, `${total ? count(first + 1) : 0}–${count(last)} of ${count(total)} ${words}`),
      total > limit ? [
        many ? leaf("«", `First ${words}`, 0, first === 0, "first") : null,
        leaf("‹", `${what} before`, Math.max(0, first - limit), first === 0, "before"),
        leaf("›", `${what} behind`, first + limit, last >= total, "behind"),
        many ? leaf("»", `Last ${words}`, Math.floor((total - 1) / limit) * limit, last >= total, "last") : null] : null);
  }

  /** The heading of a column: its name, its type, and what the filter calls it. */
  function heading([name, kind, number], shift) {
    const place = data.column + shift; // two columns may have one name
    const sorted = wish.sort === place ? (wish.descending ? "down" : "up") : "";
    const called = data.called[shift];
    return h("th", { scope: "col", class: number ? "cr-number" : "", title: kind, "aria-sort": sorted ? (sorted === "down" ? "descending" : "ascending") : null },
      h("button", { type: "button", class: "cr-sort", "data-sorted": sorted, onclick: () => look(sorted === "down" ? { sort: null, descending: false, offset: 0 } : { sort: place, descending: sorted === "up", offset: 0 }), key: `sort-${place}` }, name),
      h("div", { class: "cr-kind" }, kind),
      called ? h("div", { class: "cr-kind" }, `in the filter: ${called}`) : null);
  }

  function table() {
    const filter = () => look({ where: el.querySelector("[name=where]").value, offset: 0 });
    return [
      h("div", { class: "cr-bar cr-tight", key: "bar", role: "search" },
        h("input", { class: "cr-field cr-mono cr-grow", name: "where", "aria-label": "Filter in SQL", placeholder: "Filter in SQL: dep_delay > 60 AND origin = 'JFK'", value: wish.where, spellcheck: "false", key: "where", onkeydown: on_enter(filter) }),
        button("Filter", filter, { key: "filter" }),
        pages("Rows", data.offset, data.rows.length, data.total, data.limit, (offset) => look({ offset })),
        data.columns_total > data.columns_limit ? pages("Columns", data.column, data.columns.length, data.columns_total, data.columns_limit, (column) => look({ column })) : null),
      h("div", { class: "cr-scroll cr-values", key: "values", tabindex: 0, role: "region", "aria-label": `Rows of ${name}` }, h("table", { class: "cr-table cr-data" },
        h("thead", {}, h("tr", {}, data.index ? h("th", { scope: "col" }, h("span", { class: "cr-soft" }, data.index)) : null, data.columns.map(heading))),
        h("tbody", {}, data.rows.map((row) => h("tr", {}, row.map((cell, place) => {
          const shift = data.index ? 1 : 0;
          if (place < shift) return h("th", { scope: "row", class: "cr-index" }, cell);
          return h("td", { class: data.columns[place - shift]?.[2] ? "cr-number" : "" }, cell);
        })))))),
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
