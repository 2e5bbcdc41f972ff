// Schedules: their next ticks, what they have missed, and whether they are enabled.

rooms.triggers = (ctx) => {
  let rows = null;
  let error = null;
  let trouble = null;
  let chosen = "";
  let busy = "";
  let begun = []; // what the last press has begun, and what it skipped
  let refused = null; // what of it could not be run
  let ticked = null;
  let stop = null;
  const table = h("div", { class: "cr-scroll", style: { "max-height": "320px" }, tabindex: 0, role: "region", "aria-label": "List of triggers" });
  const detail = h("div", {});
  const el = h("div", {}, table, detail);

  const one = () => rows?.find(({ id }) => id === chosen);

  function choose(id) {
    chosen = id;
    trouble = null;
    if (ctx.alone) ctx.value = id;
    show();
  }

  async function act(what, id, words) {
    if (busy) return;
    ticked?.();
    [busy, trouble, begun, refused, ticked] = [`${what}-${id}`, null, [], null, null];
    show();
    try {
      const done = await ctx.ask(what, { id });
      ctx.say(words);
      if (what === "tick") {
        begun = done.begun;
        ticked = ctx.watch("ticked", {}, (told) => {
          refused = told?.error ?? null;
          show();
        });
      }
    } catch (problem) {
      trouble = problem;
    }
    busy = "";
    watch();
    show();
  }

  function watch() {
    stop?.();
    stop = ctx.watch("triggers", {}, (data, problem) => {
      error = problem ?? null;
      if (data) rows = data.rows;
      if (!chosen && ctx.alone && ctx.value) chosen = ctx.value;
      show();
    });
  }

  const words = (tick) => `${tick.slice(0, 10)} ${WEEKDAYS[days.weekday(tick.slice(0, 10))].slice(0, 2)} ${tick.slice(11, 16)}`;

  /** A switch: it says what it is, not only by its colour. */
  const toggle = (row) => h("button", {
    type: "button", role: "switch", class: "cr-switch", "aria-checked": String(row.enabled), "aria-label": `Trigger ${row.id} is enabled`, "aria-disabled": String(Boolean(busy)), key: `switch-${row.id}`,
    onclick: (event) => {
      event.stopPropagation();
      // (a disabled one would lose the focus of who works by keyboard)
      if (!busy) act(row.enabled ? "disable" : "enable", row.id, `Trigger ${row.id} is ${row.enabled ? "disabled" : "enabled"}`);
    },
  }, row.enabled ? "on" : "off");

  function draw_table() {
    if (error) return draw(table, problem(error));
    if (!rows) return draw(table, h("div", { class: "cr-empty" }, "Looking…"));
    if (!rows.length) return draw(table, h("div", { class: "cr-empty" }, "There is no trigger. `cellrail trigger add NOTEBOOK --cron \"0 6 * * *\"` makes one."));
    const names = ["Enabled", "Trigger", "Notebook", "Schedule", "Next tick", "Missed", "Last run"];
    return draw(table, h("table", { class: "cr-table", "aria-label": "Triggers" },
      h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map((row) => h("tr", { key: row.id, class: "cr-pick", "aria-selected": String(row.id === chosen), onclick: () => choose(row.id) },
        h("td", {}, toggle(row)), h("td", {}, h("button", { type: "button", class: "cr-link cr-mono", "aria-label": `Show trigger ${row.id}` }, row.id)),
        h("td", {}, h("div", { class: "cr-clip" }, row.flow)), h("td", { class: "cr-nowrap" }, h("span", { class: "cr-mono" }, row.cron), h("span", { class: "cr-soft" }, ` ${row.zone}`)),
        h("td", { class: "cr-mono cr-nowrap" }, row.next.length ? words(row.next[0]) : h("span", { class: "cr-soft" }, "none")),
        h("td", {}, row.missed_count ? h("span", { class: "cr-late" }, `${count(row.missed_count)}${row.more ? "+" : ""} missed`) : h("span", { class: "cr-soft" }, "none"),
          row.skipped_count ? h("div", { class: "cr-soft" }, `${count(row.skipped_count)} skipped`) : null),
        h("td", { class: "cr-nowrap" }, row.last ? [badge(row.last.status), row.active > 1 ? h("span", { class: "cr-soft" }, ` ${row.active} under way`) : null] : h("span", { class: "cr-soft" }, "never")))))));
  }

  /** What a press has begun: its ticks are not listed as due any more. */
  function pressed() {
    const ticks = (number, all, shown) => (number ? [`${count(number)} ${all}: `, h("span", { class: "cr-mono" }, shown.map((tick) => words(tick.tick ?? tick)).join(", ")), number > shown.length ? " and so on" : ""] : null);
    const parts = begun.map((row) => h("div", {}, `${row.id}: `, ticks(row.due_count, "to be run in the background", row.due), row.due_count && row.skipped_count ? "; " : null, ticks(row.skipped_count, "skipped", row.skipped)));
    return [parts.length ? h("div", { class: "cr-note", key: "begun", role: "status" }, h("div", {}, parts)) : null, refused ? problem(refused, "refused") : null];
  }

  function draw_detail() {
    const row = one();
    if (!row) return draw(detail, trouble ? problem(trouble) : null, pressed());
    const list = (ticks) => ticks.map((tick) => h("div", { class: "cr-mono", title: tick }, words(tick), h("span", { class: "cr-soft" }, ` ${tick.slice(19)}`)));
    const policy = { all: "every missed tick is run", last: "a missed tick is run only where no later tick is due; the others are skipped", none: "missed ticks are skipped" }[row.missed_policy];
    const facts = [
      ["Next", row.enabled ? list(row.next) : "disabled"],
      ["Due", [row.due.map(({ tick, missed }) => h("div", {}, list([tick]), missed ? h("span", { class: "cr-late" }, " missed") : null)), row.due_count > row.due.length ? `and ${count(row.due_count - row.due.length)} more` : null]],
      ["Skipped", list(row.skipped)], ["Missed ticks", policy], ["At most", `${row.max_active} ${row.max_active === 1 ? "run" : "runs"} at a time`],
      ["Too late after", row.late_after ? seconds(row.late_after) : ""], ["Inputs", chips(Object.entries(row.inputs), "parameter")], ["Labels", chips(Object.entries(row.labels), "label")],
      ["Out", row.out], ["Looked at", `${ago(row.looked)} (${clock(row.looked)})`], ["Made", `${clock(row.created)}${row.user ? ` by ${row.user}` : ""}`],
    ].filter(([, value]) => value && [value].flat(Infinity).filter(Boolean).length);
    return draw(detail, h("section", { class: "cr-chosen-one", "aria-label": `Trigger ${row.id}` },
      h("h3", {}, `${row.id} `, h("span", { class: "cr-soft" }, row.flow)), trouble ? problem(trouble) : null, pressed(),
      h("div", { class: "cr-bar", style: { padding: "6px 0" } },
        row.enabled ? button("Disable", () => act("disable", row.id, `Trigger ${row.id} is disabled`), { disabled: Boolean(busy), key: "able" })
          : button("Enable", () => act("enable", row.id, `Trigger ${row.id} is enabled`), { kind: "primary", disabled: Boolean(busy), key: "able" }),
        row.due_count ? button("Run what is due now", () => act("tick", row.id, "What is due is run in the background"), { disabled: Boolean(busy), key: "tick", title: "As `cellrail tick` does, for every trigger and wait of the store" }) : null,
        ctx.has("backfill") ? button("Backfill …", () => ctx.go("backfill", { trigger: row.id, notebook: row.flow }), { key: "backfill" }) : null,
        row.last && ctx.has("run") ? button("Last run", () => ctx.go("run", { run: row.last.run }), { key: "last" }) : null,
        ctx.has("runs") ? button("Its runs", () => ctx.go("runs", { text: `trigger=${row.id}` }), { key: "runs" }) : null),
      h("dl", { class: "cr-about" }, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))));
  }

  function show() {
    draw_table();
    draw_detail();
  }

  show();
  return {
    el,
    open(args) {
      if (!stop) watch();
      if (args.id) choose(args.id);
    },
    chosen(value) { if (ctx.alone && value !== chosen) choose(value); },
    close() { stop?.(); ticked?.(); },
  };
};
