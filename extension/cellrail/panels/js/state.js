// What outlives runs: states, resources and variables; one of them whole, changed or deleted by hand.

rooms.state = (ctx) => {
  const PAGE = 50;
  const KINDS = [["", "All"], ["state", "States"], ["resource", "Resources"], ["variable", "Variables"]];
  const wish = { text: "", kind: "", offset: 0, limit: PAGE };
  let page = null;
  let error = null;
  let stop = null;
  let typing = 0;
  let chosen = null; // {kind, path} of the one that is looked at
  let one = null;
  let trouble = null; // with the one that is looked at
  let leave = null;
  let edit = null; // {version, text} while it is changed
  let work = null; // what went wrong with a change
  let busy = "";
  let sure = 0; // the version that a first press on Delete has seen
  let turn = 0; // answers for one that was left count for nothing

  const search = h("input", {
    class: "cr-field cr-grow", type: "search", "aria-label": "Search states, resources and variables", spellcheck: "false",
    placeholder: "Search: a path, a type, a run, a value",
    oninput: () => { clearTimeout(typing); typing = setTimeout(() => change({ text: search.value, offset: 0 }), 200); },
  });
  const filters = h("div", { class: "cr-filters", role: "group", "aria-label": "Filter by kind" });
  const table = h("div", { class: "cr-scroll cr-state", tabindex: 0, role: "region", "aria-label": "States, resources and variables" });
  const foot = h("div", { class: "cr-bar cr-foot" });
  const detail = h("div", {});
  const el = h("div", {}, h("div", { class: "cr-bar" }, search), filters, table, foot, detail);

  const key = ({ kind, path }) => `${kind} ${path}`;
  const same = (row) => chosen !== null && key(row) === key(chosen);

  function change(more) {
    Object.assign(wish, more);
    stop?.();
    stop = ctx.watch("page", { ...wish }, (data, problem) => {
      if (data) page = data;
      error = problem ?? null;
      // fewer are left than lie before this page
      if (page && !page.rows.length && wish.offset && page.total) change({ offset: Math.floor((page.total - 1) / PAGE) * PAGE });
      else find();
      show();
    });
    show();
  }

  /** What is to be looked at is known by its path alone; its kind stands in a row. */
  function find() {
    if (chosen || !ctx.alone || !ctx.value) return;
    const row = page?.rows.find(({ path }) => path === ctx.value);
    if (row) choose(row);
  }

  function choose(row) {
    if (row && same(row)) return;
    leave?.();
    turn += 1;
    [chosen, one, trouble, leave, edit, work, busy, sure] = [row ? { kind: row.kind, path: row.path } : null, null, null, null, null, null, "", 0];
    if (ctx.alone) ctx.value = row?.path ?? "";
    if (chosen) look();
    show();
  }

  function look() {
    leave?.();
    leave = ctx.watch("one", { ...chosen }, (data, problem) => {
      trouble = problem ?? null;
      one = data ?? null;
      show();
    });
  }

  async function act(what, args, words) {
    if (busy) return;
    const mine = turn;
    [busy, work] = [what, null];
    show();
    try {
      await ctx.ask(what, { ...chosen, ...args });
      ctx.say(words);
      if (mine === turn) {
        [edit, sure, busy] = [null, 0, ""];
        if (what === "delete") choose(null);
        else look();
      }
      change({});
    } catch (problem) {
      if (mine === turn) [work, sure, busy] = [problem, 0, ""];
      show();
    }
  }

  // --- drawing --------------------------------------------------------------------------------

  const who = (row) => (row.run ? h("span", { class: "cr-mono" }, row.run) : [row.by || "a person", h("span", { class: "cr-soft" }, " by hand")]);
  const secret = () => h("span", {}, "***", h("span", { class: "cr-soft" }, " secret"));

  function value(row) {
    if (row.secret) return secret();
    if (!row.text) return h("span", { class: "cr-soft" }, `${bytes(row.size)}: open it to read it`);
    return h("span", { class: "cr-mono" }, row.text, row.whole ? "" : "…");
  }

  function draw_filters() {
    const counts = page?.counts ?? {};
    const all = Object.values(counts).reduce((sum, number) => sum + number, 0);
    draw(filters, KINDS.map(([kind, words]) => h("button", {
      type: "button", class: "cr-filter", key: `filter-${kind}`, "aria-pressed": String(wish.kind === kind), onclick: () => change({ kind, offset: 0 }),
    }, words, h("span", { class: "cr-soft" }, ` ${count(kind ? counts[kind] ?? 0 : all)}`))));
  }

  function draw_table() {
    const rows = page?.rows ?? [];
    const nothing = page?.empty ? "Nothing is kept yet. A cell keeps a value from run to run with set_state(), set_resource() or set_variable()." : "Nothing fits.";
    const names = ["Kind", "Path", "Value", "Version", "Written by", "Written"];
    draw(table, error ? problem(error) : null, !page ? (error ? null : h("div", { class: "cr-empty" }, "Looking…")) : !rows.length ? h("div", { class: "cr-empty" }, nothing)
      : h("table", { class: "cr-table", "aria-label": "States, resources and variables" },
        h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col", class: name === "Version" ? "cr-number" : "" }, name)))),
        h("tbody", {}, rows.map((row) => h("tr", { key: key(row), class: "cr-pick", "aria-selected": String(same(row)), onclick: () => choose(row) },
          h("td", { class: "cr-nowrap" }, row.kind, row.kind === "resource" && row.type !== "any" ? h("div", { class: "cr-soft" }, row.type) : null),
          h("td", {}, h("button", { type: "button", class: "cr-link cr-mono cr-path", "aria-label": `Show ${row.kind} ${row.path}` },
            row.flow ? [h("span", {}, row.of_step), h("span", { class: "cr-soft" }, row.flow), h("span", { class: "cr-soft" }, row.scope)] : row.path)),
          h("td", {}, h("div", { class: "cr-clip" }, value(row))), h("td", { class: "cr-number" }, row.version), h("td", { class: "cr-nowrap" }, who(row)),
          h("td", { class: "cr-nowrap", title: clock(row.time) }, ago(row.time)))))));
    const last = wish.offset + rows.length;
    draw(foot, h("span", { class: "cr-soft cr-grow", role: "status" }, page ? `${rows.length ? count(wish.offset + 1) : 0}–${count(last)} of ${count(page.total)}` : "Looking…"),
      button("Previous", () => change({ offset: Math.max(0, wish.offset - PAGE) }), { disabled: wish.offset === 0, key: "previous" }),
      button("Next", () => change({ offset: wish.offset + PAGE }), { disabled: !page || last >= page.total, key: "next" }));
  }

  function editor() {
    const set = (event) => { edit.text = event.target.value; if (edit.fault) { edit.fault = ""; show(); } };
    const common = {
      class: "cr-field cr-mono", key: "edit", style: { width: "100%" }, spellcheck: "false", value: edit.text, oninput: set,
      ...(edit.fault ? { "aria-invalid": "true", "aria-describedby": "cr-edit-wrong" } : {}),
    };
    const field = one.secret ? h("input", { ...common, type: "password", autocomplete: "new-password", "aria-label": "The new secret", placeholder: "the new value" })
      : h("textarea", { ...common, rows: 8, "aria-label": one.kind === "variable" ? "The new text" : "The new value as JSON" });
    const send = () => {
      edit.fault = one.kind === "variable" ? "" : json_fault(edit.text);
      if (edit.fault) { show(); detail.querySelector("[aria-invalid]")?.focus(); } else act("set", { version: edit.version, text: edit.text }, `${one.path} is set`);
    };
    return [field, edit.fault ? h("p", { class: "cr-wrong", role: "alert", id: "cr-edit-wrong", key: "wrong" }, `This is no JSON: ${edit.fault}. A text needs quotes: "yes"`) : null,
      edit.version !== one.version ? h("p", { class: "cr-note" }, `It was written in the meantime: it has version ${one.version} now, and ${edit.version} is what you began with.`) : null,
      h("div", { class: "cr-bar", style: { padding: "6px 0" } },
        button(busy === "set" ? "Setting …" : "Set", send, { kind: "primary", disabled: Boolean(busy), key: "set" }),
        button("Leave it as it is", () => { [edit, work] = [null, null]; show(); }, { disabled: Boolean(busy), key: "back" }))];
  }

  function begin() {
    const text = one.secret ? "" : one.kind === "variable" ? JSON.parse(one.text) : one.text;
    [edit, work, sure] = [{ version: one.version, text }, null, 0];
    show();
  }

  function remove() {
    if (sure === one.version) act("delete", { version: sure }, `${one.path} is deleted`);
    else { sure = one.version; show(); }
  }

  function draw_detail() {
    if (!chosen) return draw(detail);
    if (!one) return draw(detail, h("section", { class: "cr-chosen-one", "aria-label": chosen.path }, trouble ? problem(trouble) : h("p", { class: "cr-soft" }, "Looking…")));
    const facts = [
      ["Notebook", one.flow], ["Step", one.of_step], ["Of", one.scope], ["Type", one.type && one.type !== "any" && one.type !== "state" ? one.type : ""], ["Version", count(one.version)],
      ["Written by", one.run ? [h("span", { class: "cr-mono" }, one.run), one.step ? `, step ${one.step}` : "", one.by ? h("span", { class: "cr-soft" }, ` (${one.by})`) : null] : who(one)],
      ["Written", `${clock(one.time)} (${ago(one.time)})`],
    ].filter(([, told]) => told && told.length !== 0);
    return draw(detail, h("section", { class: "cr-chosen-one", "aria-label": one.path },
      h("h3", {}, h("span", { class: "cr-soft" }, one.kind), h("span", { class: "cr-mono cr-path" }, one.path)),
      edit ? editor() : [
        one.secret ? h("p", { key: "secret" }, secret()) : h("pre", { class: "cr-text cr-whole", key: "whole", tabindex: 0, role: "region", "aria-label": "Value as JSON" }, one.text),
        one.whole ? null : h("p", { class: "cr-note", key: "cut" }, `This is the beginning; all of it has ${count(one.size)} characters.`),
        h("div", { class: "cr-bar", style: { padding: "6px 0" }, key: "actions" },
          button("Change …", begin, { disabled: Boolean(busy) || !one.whole, key: "change" }),
          sure === one.version ? button(busy === "delete" ? "Deleting …" : `Really delete ${one.kind}?`, remove, { kind: "danger", confirms: true, disabled: Boolean(busy), key: "delete" }) : button("Delete", remove, { disabled: Boolean(busy), key: "delete" }),
          one.run && ctx.has("run") ? button("Look at the run", () => ctx.go("run", { run: one.run }), { key: "look" }) : null)],
      work ? problem(work, "work") : null,
      h("dl", { class: "cr-about" }, facts.map(([name, told]) => [h("dt", {}, name), h("dd", {}, told)]))));
  }

  function show() {
    draw_filters();
    draw_table();
    draw_detail();
  }

  const timer = setInterval(() => { if (!document.hidden && el.offsetParent) draw_table(); }, 10000);
  show();
  return {
    el,
    open(args) {
      const text = args.text ?? (args.path && !args.kind ? args.path : null);
      if (text) search.value = text;
      if (!stop || text || args.kind) change({ text: search.value, kind: args.kind ?? wish.kind, offset: 0 });
      if (args.path && args.kind) choose({ kind: args.kind, path: args.path });
    },
    chosen(path) {
      if (!ctx.alone || path === (chosen?.path ?? "")) return;
      choose(page?.rows.find((row) => row.path === path) ?? null);
    },
    close() {
      clearInterval(timer);
      clearTimeout(typing);
      stop?.();
      leave?.();
    },
  };
};
