// Backfills: what to run (a notebook, its schedule, inputs), for which ticks (a calendar), what that
// would do (the plan, before anything runs), and the backfills that there are.

rooms.backfill = (ctx) => {
  const TODO = {
    run: "run", restart: "restart where it failed", rerun: "run again what changed", recover: "go on after a crash",
    wait: "wait for who runs it", nothing: "leave alone",
  };
  const SUM = {
    run: "to run", restart: "to restart where they failed", rerun: "to run again", recover: "to go on with",
    wait: "run by others", nothing: "left alone",
  };
  const wish = {
    notebook: "", trigger: "", cron: "", every: "day", tz: "", start: "", end: "", ticks: "missing", order: "asc",
    parallel: 1, stop_after: 0, from_start: false, share: false, kernels: "", cores: 0, gigabytes: 0, parameters: {}, labels: "", first: "", months: 3,
  };
  let form = null;
  let kind = "every"; // how the ticks are told: trigger, every or cron
  let seen = null; // what the calendar shows
  let plan = null;
  let fills = [];
  let fill = null;
  let troubles = {}; // by part: form, calendar, plan, fills, fill
  let sure = ""; // a button that was pressed once
  let busy = "";
  const stops = {};
  const zones = `cr-zones-${Math.random().toString(36).slice(2)}`;
  let typing = 0;

  const calendar = new Calendar({ pick: picked, go: (first) => change({ first }, "calendar"), signal: ctx.signal });
  const parts = {
    form: h("div", { class: "cr-wish", role: "group", "aria-label": "What is run" }),
    options: h("div", {}), plan: h("div", {}), fills: h("div", { class: "cr-block" }), fill: h("div", {}),
  };
  const el = h("div", {}, parts.form, calendar.el, parts.options, parts.plan, parts.fills, parts.fill);

  // --- what is chosen -------------------------------------------------------------------------

  function picked(range) {
    change({ start: range[0] ?? "", end: range[1] ?? "" }, "plan");
    ctx.say(range.length ? `From ${days.words(range[0])} to ${days.words(range[1])}` : "No range");
  }

  /** A range's end that was typed: the calendar shows its month. */
  function typed(name, text) {
    const day = day_of(text.trim());
    const first = day && calendar.first_for(day);
    change({ [name]: text.trim(), ...(first ? { first } : {}) }, first ? "all" : "plan");
  }

  /** Take a choice; `what` is all, calendar or plan: what has to be asked again. */
  function change(more, what = "all") {
    Object.assign(wish, more);
    sure = "";
    clearTimeout(typing);
    typing = setTimeout(() => {
      if (what !== "plan") follow("calendar", sent());
      if (what !== "calendar") preview();
    }, what === "calendar" ? 0 : 200);
    if (what !== "plan") {
      calendar.update({ first: wish.first, months: wish.months, busy: true, ...(what === "all" ? {} : { days: {} }) });
    }
    calendar.update({ range: day_range() });
    show();
  }

  function sent() {
    const { trigger, cron, every, ...rest } = wish;
    return { ...rest, trigger: kind === "trigger" ? trigger : "", cron: kind === "cron" ? cron : "", every: kind === "every" ? every : "day" };
  }

  function preview() {
    plan = null;
    delete troubles.plan;
    if (wish.start) follow("plan", sent());
    else leave("plan");
    show();
  }

  const day_of = (text) => (/^\d{4}-\d{2}-\d{2}/.test(text) && !Number.isNaN(Date.parse(text.slice(0, 10))) ? text.slice(0, 10) : "");
  const day_range = () => {
    const start = day_of(wish.start);
    return start ? [start, day_of(wish.end) || (seen?.today ?? start)] : [];
  };

  function leave(what) {
    stops[what]?.();
    delete stops[what];
  }

  function follow(what, args) {
    leave(what);
    if (what === "calendar" && !wish.notebook) return;
    stops[what] = ctx.watch(what, args, (data, problem) => {
      if (problem) troubles[what] = problem;
      else delete troubles[what];
      heard[what](data, problem);
      show();
    });
  }

  const heard = {
    calendar(data) {
      if (!data) {
        calendar.update({ busy: false, days: {} });
        return;
      }
      seen = data;
      if (data.problem) troubles.calendar = { message: data.problem };
      if (data.first !== wish.first) return; // of months that were left
      calendar.update({
        days: data.days, legend: data.legend, today: data.today, busy: false, range: day_range(),
        label: `${data.cron} in ${data.zone}${numbers(data.counts) ? ` · ${numbers(data.counts)}` : ""}`,
      });
    },
    plan(data) { plan = data ?? null; },
    fills(data) { fills = data ?? fills; },
    fill(data) { fill = data ?? null; },
  };

  const numbers = (counts) => Object.entries(counts ?? {}).map(([word, number]) => `${count(number)} ${word}`).join(", ");

  async function choose_form(args) {
    try {
      form = await ctx.ask("form", args);
      delete troubles.form;
      if (form.problem) troubles.form = { message: form.problem };
    } catch (error) {
      troubles.form = error;
      show();
      return;
    }
    kind = form.trigger ? "trigger" : kind === "trigger" ? "every" : kind;
    const parameters = Object.fromEntries(form.parameters.map((one) => [one.name, one.value]));
    change({ notebook: form.notebook, trigger: form.trigger, parameters, first: wish.first || days.shift(form.first, 1 - wish.months) });
  }

  // --- work -----------------------------------------------------------------------------------

  async function work(what, args, then) {
    if (busy) return;
    busy = what;
    sure = "";
    show();
    try {
      const done = await ctx.ask(what, args);
      delete troubles.work;
      then?.(done);
    } catch (error) {
      troubles.work = error;
    }
    busy = "";
    follow("fills", {});
    show();
  }

  function start() {
    work("start", sent(), (done) => {
      ctx.say(done.said || `Backfill ${done.id} has started`);
      look(done.id);
    });
  }

  function look(id) {
    fill = null;
    if (ctx.alone) ctx.value = id;
    if (id) follow("fill", { id });
    else leave("fill");
    show();
  }

  const shown_fill = () => stops.fill && fill;

  // --- drawing --------------------------------------------------------------------------------

  const labelled = (words, node, more) => h("label", { class: "cr-named", ...more }, h("span", {}, words), node);

  function select(words, value, options, chosen, more) {
    return labelled(words, h("select", { class: "cr-field", "aria-label": words, onchange: (event) => chosen(event.target.value) },
      options.map((one) => {
        const [name, text] = Array.isArray(one) ? one : [one, one];
        return h("option", { value: name, selected: name === value }, text);
      })), { key: `select-${words}`, ...more });
  }

  function input(words, value, taken, more, around) {
    return labelled(words, h("input", {
      class: "cr-field", type: "text", value, spellcheck: "false", autocomplete: "off", "aria-label": words,
      oninput: (event) => taken(event.target.value), ...more,
    }), { key: `input-${words}`, ...around });
  }

  function number(words, value, taken, least, around) {
    let held = value;
    const take = (text) => { if (/^\d+$/.test(text) && Number(text) >= least) { held = Number(text); taken(held); } };
    // what cannot be taken does not stay in the field as if it were
    return input(words, String(value), take,
      { type: "number", min: least, max: 1000, onchange: (event) => { event.target.value = String(held); } }, { class: "cr-named cr-slim", ...around });
  }

  function choice(words, value, options, chosen) {
    return h("div", { class: "cr-named", key: `choice-${words}` }, h("span", { "aria-hidden": "true" }, words),
      h("div", { class: "cr-pick-one", role: "group", "aria-label": words }, options.map(([name, text, title]) => h("button", {
        type: "button", key: `choice-${words}-${name}`, "aria-pressed": String(name === value), title, onclick: () => chosen(name),
      }, text))));
  }

  function draw_form() {
    if (!form) return draw(parts.form, troubles.form ? problem(troubles.form) : h("span", { class: "cr-soft" }, "Looking…"));
    const kinds = [["every", "Every …"], ["cron", "Cron"]];
    if (form.triggers.length) kinds.unshift(["trigger", "Trigger"]);
    const how = {
      trigger: () => select("Trigger", wish.trigger, form.triggers.map((one) => [one.id, `${one.id}: ${one.cron} in ${one.zone}`]), (id) => choose_form({ notebook: wish.notebook, trigger: id })),
      every: () => select("Every", wish.every, form.every, (every) => change({ every })),
      cron: () => input("Cron", wish.cron, (cron) => change({ cron }), { placeholder: "30 6 * * mon-fri", class: "cr-field cr-mono" }),
    };
    const set_kind = (name) => {
      kind = name;
      if (name === "trigger" && !wish.trigger) choose_form({ notebook: wish.notebook, trigger: form.triggers[0].id });
      else change({});
    };
    return draw(parts.form,
      select("Notebook", wish.notebook, form.notebooks.length ? form.notebooks : [["", "there is no notebook beside the store"]], (notebook) => choose_form({ notebook }), { class: "cr-named cr-broad" }),
      choice("Ticks of", kind, kinds, set_kind), how[kind](),
      kind === "trigger" ? null : input("Time zone", wish.tz, (tz) => change({ tz: tz.trim() }), { list: zones, placeholder: "UTC" }),
      select("Show", String(wish.months), [["1", "1 month"], ["3", "3 months"], ["6", "6 months"], ["12", "a year"]], (months) => change({ months: Number(months), first: days.shift(wish.first, wish.months - Number(months)) }, "calendar")),
      h("datalist", { id: zones, key: "zones" }, kind === "trigger" ? null : form.zones.map((zone) => h("option", { value: zone }))),
      troubles.form ? problem(troubles.form) : null);
  }

  function draw_options() {
    if (!form) return draw(parts.options);
    const values = form.parameters.map((one) => input(one.name, wish.parameters[one.name] ?? "",
      (text) => change({ parameters: { ...wish.parameters, [one.name]: text } }),
      { placeholder: one.says, title: [one.help, one.kind === "NoneType" ? "" : one.kind].filter(Boolean).join(" · "), class: "cr-field cr-mono" }, { class: "cr-named cr-broad" }));
    return draw(parts.options, troubles.calendar ? problem(troubles.calendar, "calendar") : null,
      h("div", { class: "cr-wish", role: "group", "aria-label": "Which ticks" },
        input("From", wish.start, (text) => typed("start", text), { placeholder: "drag over days, or 2025-03-01", class: "cr-field cr-mono" }),
        input("To", wish.end, (text) => typed("end", text), { placeholder: "now", class: "cr-field cr-mono" }),
        choice("Run", wish.ticks, [
          ["missing", "Missing", "Ticks that nobody has run, or whose run was cancelled"], ["failed", "Failed", "Each is restarted at its failed step"],
          ["stale", "Stale", "Ticks that another source has filled: what changed runs again"], ["all", "All", "Every tick, from its first step"],
        ], (ticks) => change({ ticks }, "plan")),
        choice("Order", wish.order, [["asc", "Oldest first"], ["desc", "Newest first"]], (order) => change({ order }, "plan")),
        number("In parallel", wish.parallel, (parallel) => change({ parallel }, "plan"), 1),
        number("Pause after failures", wish.stop_after, (stop_after) => change({ stop_after }, "plan"), 0, { title: "So many ticks may fail; 0 for any number" }),
        wish.ticks === "failed" || wish.ticks === "stale" ? h("label", { class: "cr-tick-box", key: "whole" },
          h("input", { type: "checkbox", checked: wish.from_start, onchange: (event) => change({ from_start: event.target.checked }, "plan") }), "from the first step") : null),
      h("div", { class: "cr-wish", role: "group", "aria-label": "How they run" },
        h("label", { class: "cr-tick-box", key: "share", title: "Leading steps that read nothing of the tick, write nothing and draw nothing are executed once for all runs" },
          h("input", { type: "checkbox", checked: wish.share, onchange: (event) => change({ share: event.target.checked }, "plan") }), "share leading steps"),
        choice("Kernels", wish.kernels, [
          ["", "As can be", "Forked where the system can, else cold"], ["warm", "Forked", "Each from a process that has the imports done"],
          ["cold", "Cold", "Each is started anew"],
        ], (kernels) => change({ kernels }, "plan")),
        number("Processors", wish.cores, (cores) => change({ cores }, "plan"), 0, { title: "So many for all of its runs together; 0 for those of the machine" }),
        number("Memory, GB", wish.gigabytes, (gigabytes) => change({ gigabytes }, "plan"), 0, { title: "For all of its runs together; 0 for no bound" })),
      h("div", { class: "cr-wish", role: "group", "aria-label": "Inputs and labels" }, values,
        input("Labels", wish.labels, (labels) => change({ labels }, "plan"), { placeholder: "team=blue, why=fix" }, { class: "cr-named cr-broad" })));
  }

  const brief = (moment) => moment.slice(0, 16).replace("T", " ");
  const tick_words = (tick) => [tick.slice(0, 10), h("span", { class: "cr-soft" }, ` ${WEEKDAYS[days.weekday(tick.slice(0, 10))].slice(0, 2)} `), tick.slice(11, 16), h("span", { class: "cr-soft" }, ` ${tick.slice(19)}`)];

  function draw_plan() {
    const part = "cr-block";
    if (troubles.plan) return draw(parts.plan, h("div", { class: part }, problem(troubles.plan, "plan"), work_problem()));
    if (!wish.start) return draw(parts.plan, h("div", { class: part }, h("div", { class: "cr-empty" }, "Drag over days of the calendar, press the name of a month, or use arrow keys with Shift."), work_problem()));
    if (!plan) return draw(parts.plan, h("div", { class: part }, h("div", { class: "cr-empty", role: "status" }, "Looking what would happen …"), work_problem()));
    const todo = Object.entries(SUM).filter(([word]) => plan.counts[word]).map(([word, words]) => `${count(plan.counts[word])} ${word === "wait" && plan.same ? "under way" : words}`).join(", ");
    const runs = plan.same && plan.same_status === "running";
    const words = runs ? `${plan.same} is running` : plan.same ? `Go on with ${plan.same}` : plan.wanted ? `Start: ${count(plan.wanted)} ${plan.wanted === 1 ? "tick" : "ticks"}` : "Nothing to do";
    const rows = plan.rows.map((row) => h("tr", { key: row.tick, "data-todo": row.todo },
      h("td", { class: "cr-mono cr-nowrap" }, tick_words(row.tick)), h("td", { class: "cr-nowrap" }, h("span", { class: "cr-letter", "data-state": row.state, "aria-hidden": "true" }, row.letter), ` ${row.state}`),
      h("td", {}, TODO[row.todo] ?? row.todo), h("td", {}, row.why)));
    return draw(parts.plan, h("div", { class: part },
      h("div", { class: "cr-bar" },
        button(busy === "start" ? "Starting …" : words, start, { kind: "primary", disabled: Boolean(busy) || runs || (!plan.wanted && !plan.same), key: "start" }),
        h("span", { class: "cr-grow", role: "status" }, plan.ticks ? `${count(plan.ticks)} ${plan.ticks === 1 ? "tick" : "ticks"}: ${todo}` : "No tick lies in this range.",
          h("span", { class: "cr-soft" }, ` · ${brief(plan.start)} to ${brief(plan.end)} · ${plan.cron} in ${plan.zone}`))),
      work_problem(),
      rows.length ? h("div", { class: "cr-scroll cr-would", tabindex: 0, role: "region", "aria-label": "What would happen" }, h("table", { class: "cr-table" },
        h("thead", {}, h("tr", {}, ["Tick", "Stands", "What happens", "Why"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows))) : null,
      plan.more ? h("div", { class: "cr-bar cr-soft" }, `and ${count(plan.more)} more`) : null));
  }

  const work_problem = () => (troubles.work ? problem(troubles.work, "work") : null);
  const ICONS = { starting: "queued", done: "success", paused: "suspended", running: "running", cancelled: "cancelled", interrupted: "interrupted" };
  const status_badge = (one) => badge(ICONS[one.status] ?? "pending", one.status);

  function draw_fills() {
    if (!fills.length) return draw(parts.fills, h("h3", {}, "Backfills"), troubles.fills ? problem(troubles.fills, "fills") : h("div", { class: "cr-empty" }, "There is no backfill yet."));
    const chosen = shown_fill()?.id;
    const names = ["Status", "Backfill", "Notebook", "Ticks", "From", "To", "Begun"];
    return draw(parts.fills, h("h3", {}, "Backfills"),
      h("div", { class: "cr-scroll", style: { "max-height": "220px" }, tabindex: 0, role: "region", "aria-label": "Backfills" }, h("table", { class: "cr-table" },
        h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, fills.map((one) => h("tr", { key: one.id, class: "cr-pick", "aria-selected": String(one.id === chosen), onclick: () => look(one.id) },
          h("td", { class: "cr-nowrap" }, status_badge(one)), h("td", {}, h("button", { type: "button", class: "cr-link cr-mono", "aria-label": `Show backfill ${one.id}` }, one.id)),
          h("td", {}, one.flow), h("td", { class: "cr-nowrap" }, one.which, h("span", { class: "cr-soft" }, ` ${one.trigger || one.cron}`)),
          h("td", { class: "cr-nowrap" }, brief(one.start)), h("td", { class: "cr-nowrap" }, brief(one.end)),
          h("td", { class: "cr-nowrap", title: clock(one.created) }, ago(one.created), one.user ? h("span", { class: "cr-soft" }, ` by ${one.user}`) : null)))))));
  }

  function draw_fill() {
    const one = shown_fill();
    if (!one) return draw(parts.fill, troubles.fill ? problem(troubles.fill, "fill") : null);
    const over = Object.values(one.ended).reduce((sum, each) => sum + each, 0);
    const pieces = [...Object.entries(one.ended), ["running", one.running]].filter(([, each]) => each > 0);
    const waiting = Math.max(0, one.total - over - one.running);
    const said = [...pieces.map(([word, each]) => `${count(each)} ${word}`), waiting ? `${count(waiting)} ${one.can.cancel ? "to go" : "not run"}` : ""].filter(Boolean).join(", ");
    const pace = one.rate > 0 ? `${one.rate >= 1 ? `${one.rate.toFixed(1)} runs a second` : `${(one.rate * 60).toFixed(1)} runs a minute`}${one.left ? `, about ${seconds(one.seconds_left)} left` : ""}` : "";
    const act = (what, words, args, more) => button(words, () => work(what, { id: one.id, ...args }), { disabled: Boolean(busy), key: `${what}-${words}`, ...more });
    const really = (what, words, args, title) => sure === words
      ? act(what, `Really: ${words.toLowerCase()}?`, args, { kind: "danger", confirms: true, key: `${what}-${words}` })
      : button(words, () => { sure = words; show(); }, { disabled: Boolean(busy), key: `${what}-${words}`, title });
    const facts = [
      ["Range", `${brief(one.start)} to ${brief(one.end)}`], ["Ticks", `${one.which} of ${one.cron} in ${one.zone}${one.trigger ? `, trigger ${one.trigger}` : ""}`],
      ["Next", one.can.cancel && one.cursor && h("span", { class: "cr-mono" }, tick_words(one.cursor))], ["Inputs", chips(Object.entries(one.inputs), "parameter")], ["Labels", chips(Object.entries(one.labels), "label")],
      ["Runs", `${one.order === "asc" ? "oldest" : "newest"} first, ${one.parallel} at a time${one.stop_after ? `, pauses after ${one.stop_after} failures` : ""}`],
      ["Shared", one.share.join(", ")], ["Kernels", `${one.kernels}${one.cores ? `, on ${one.cores} processors` : ""}${one.memory ? `, within ${(one.memory / 1e9).toFixed(1)} GB` : ""}`],
      ["Source", one.pinned ? `the notebook as it was at the start (${one.pinned})` : "the notebook as it is when a run begins"], ["Out", one.out],
    ].filter(([, value]) => value && (value instanceof Node || value.length));
    return draw(parts.fill, h("section", { class: "cr-chosen-one", "aria-label": `Backfill ${one.id}` },
      h("h3", {}, status_badge(one), ` ${one.flow} `, h("span", { class: "cr-mono cr-soft" }, one.id)),
      one.why ? h("div", { class: "cr-note" }, one.why.startsWith("by ") ? `${one.status} ${one.why}` : one.why) : null,
      h("div", { class: "cr-share", role: "img", "aria-label": `${over} of ${one.total} ticks: ${said}` },
        pieces.map(([word, each]) => h("span", { key: word, "data-state": word, style: { flex: `${each} 0 0` } })), waiting ? h("span", { key: "rest", style: { flex: `${waiting} 0 0`, background: "transparent" } }) : null),
      h("div", { class: "cr-bar", style: { padding: "0" } }, h("span", { class: "cr-grow", role: "status" }, `${count(over)} of ${count(one.total)} ticks`, said ? `: ${said}` : "", pace ? h("span", { class: "cr-soft" }, ` · ${pace}`) : null),
        one.can.pause ? act("pause", "Pause", {}, { title: "Begin no more runs; those that run go on to their end" }) : null,
        one.can.pause ? really("pause", "Pause now", { now: true }, "Cancel the runs that are running, too") : null,
        one.can.resume ? act("resume", "Resume", {}, { kind: "primary" }) : null,
        one.can.resume && one.why.includes("--latest") ? act("resume", "Resume with the modules as they are", { latest: true }) : null,
        one.can.cancel ? really("cancel", "Cancel", { now: true }, "End it for good; runs that it has made stay") : null,
        one.months.first ? button("Show in the calendar", () => show_in_calendar(one), { key: "calendar" }) : null,
        ctx.has("runs") ? button("Its runs", () => ctx.go("runs", { text: `backfill=${one.id}` }), { key: "runs" }) : null),
      one.failures.length ? h("div", {}, h("h4", {}, "First failures"), h("ul", { class: "cr-fails" }, one.failures.map((bad) => h("li", { key: bad.run },
        icon("failed"), h("span", { class: "cr-mono" }, tick_words(bad.tick)), h("span", {}, bad.why),
        ctx.has("run") ? h("button", { type: "button", class: "cr-link cr-mono", onclick: () => ctx.go("run", { run: bad.run }) }, bad.run) : h("span", { class: "cr-mono cr-soft" }, bad.run)))),
      one.can.cancel ? null : button("Run the failed ones again …", () => failed_again(one), { key: "again" })) : null,
      h("dl", { class: "cr-about" }, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))));
  }

  async function show_in_calendar(one) {
    await choose_form({ notebook: one.flow, trigger: one.trigger });
    if (!one.trigger) kind = "cron";
    const parameters = Object.fromEntries(Object.keys(wish.parameters).map((name) => [name, one.trigger ? wish.parameters[name] : one.inputs[name] ?? ""]));
    change({ cron: one.cron, tz: one.trigger ? "" : one.zone, parameters, first: days.month(one.months.first) });
  }

  async function failed_again(one) {
    await show_in_calendar(one);
    change({ start: one.start, end: one.end, ticks: "failed" });
  }

  function show() {
    draw_form();
    draw_options();
    draw_plan();
    draw_fills();
    draw_fill();
  }

  const timer = setInterval(() => { if (!document.hidden && el.offsetParent) draw_fills(); }, 10000);
  show();
  return {
    el,
    open(args) {
      if (!stops.fills) follow("fills", {});
      const { id, notebook, trigger, ...more } = args;
      if (id) look(id);
      if (form && !notebook && !trigger) return;
      if (more.every || more.cron) kind = more.cron ? "cron" : "every";
      if (more.start) Object.assign(wish, { first: more.start.slice(0, 7) });
      Object.assign(wish, more);
      choose_form({ notebook: notebook ?? wish.notebook, trigger: trigger ?? "" });
    },
    chosen(value) { if (ctx.alone && value && value !== fill?.id) look(value); },
    close() {
      clearInterval(timer);
      clearTimeout(typing);
      for (const what of Object.keys(stops)) leave(what);
    },
  };
};
