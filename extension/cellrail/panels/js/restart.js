// A restart: the cut, the parameters in a typed form, the plan as it would be, and the run as it goes.

rooms.restart = (ctx) => {
  let origin = "";
  let form = null;
  let cut = "";
  let values = {};
  let flags = {};
  let plan = null;
  let error = null;
  let planning = false;
  let turn = 0;
  let typing = 0;
  let errand = "";
  let going = null;
  let elsewhere = null; // why this kernel cannot be put back: "" for nothing, null while it is asked
  let sending = false; // a press that is not answered yet
  let stopping = false;
  let stop = null;
  const el = h("div", { class: "cr-restart" });

  async function start(run, step) {
    stop?.();
    [origin, form, plan, error, values, flags, errand, going, stopping] = [run, null, null, null, {}, {}, "", null, false];
    show();
    try {
      form = await ctx.ask("form", { run });
    } catch (problem) {
      error = problem;
      show();
      return;
    }
    cut = step || form.cut || form.cuts[0]?.address || "";
    if (form.status === "suspended") flags.cancel_origin = true;
    elsewhere = null;
    ctx.here({ flow: form.flow });
    look();
  }

  function wish() {
    const changed = {};
    for (const field of form.parameters) {
      const value = values[field.name];
      if (value !== undefined && value !== field.value) changed[field.name] = value;
    }
    return { run: form.run, step: cut, parameters: changed, ...flags };
  }

  /** The plan for what is chosen now. */
  async function look() {
    const mine = ++turn;
    planning = true;
    show();
    try {
      const found = await ctx.ask("plan", wish());
      if (mine === turn) [plan, error] = [found, null];
    } catch (problem) {
      if (mine === turn) [plan, error] = [null, problem];
    }
    if (mine === turn) { planning = false; show(); }
  }

  function change(name, value) {
    values[name] = value;
    show();
    clearTimeout(typing);
    typing = setTimeout(look, 250);
  }

  function flag(name, on) {
    if (name === "force" || name === "widen") { delete flags.force; delete flags.widen; }
    if (name === "cancel_origin" || name === "keep_waiting") { delete flags.cancel_origin; delete flags.keep_waiting; }
    if (on) flags[name] = true;
    else delete flags[name];
    look();
  }

  async function press() {
    if (sending) return;
    [sending, error] = [true, null];
    show();
    try {
      errand = (await ctx.ask("start", wish())).errand;
    } catch (problem) {
      [error, sending] = [problem, false];
      show();
      return;
    }
    sending = false;
    ctx.say("The restart begins.");
    stop = ctx.watch("progress", { errand }, (found, problem) => {
      if (problem) error = problem;
      if (found) {
        const known = going?.run;
        going = found;
        if (found.error) error = found.error;
        if (found.run && found.run !== known) {
          ctx.value = found.run;
          // (the run's room tells how it goes)
          if (ctx.has("run")) { ctx.say(""); ctx.go("run", { run: found.run }); }
        }
        if (found.state === "ended") { stop?.(); stop = null; ctx.say(found.run ? `The run ${found.run} has ended: ${found.status}` : `The restart is ${found.status}: no run has begun`); }
      }
      show();
    });
    show();
  }

  async function cancel() {
    if (stopping) return;
    stopping = true;
    show();
    try {
      await ctx.ask("stop", { errand });
    } catch (problem) {
      [error, stopping] = [problem, false];
      show();
    }
  }

  // --- what is drawn ---

  function field(one) {
    const id = `cr-${form.run}-${one.name}`;
    const value = values[one.name] ?? one.value;
    const changed = value !== one.value;
    const wrong = changed ? plan?.wrong?.[one.name] : "";
    const common = {
      id, class: "cr-field", key: `field-${one.name}`, placeholder: one.empty || null, "aria-invalid": wrong ? "true" : null,
      "aria-describedby": [wrong ? `${id}-wrong` : "", `${id}-help`].filter(Boolean).join(" "),
    };
    // a line break is lost in a field of one line
    const lines = one.value.includes("\n");
    const area = (more) => h("textarea", { ...common, value, spellcheck: "false", oninput: (event) => change(one.name, event.target.value), ...more });
    const input = (type, more) => h("input", { ...common, type, value, oninput: (event) => change(one.name, event.target.value), ...more });
    const kinds = {
      choice: () => h("select", { ...common, value, onchange: (event) => change(one.name, event.target.value) }, one.choices.map((choice) => h("option", { value: choice, selected: choice === value }, choice))),
      bool: () => h("input", { ...common, class: "cr-check", type: "checkbox", checked: value === "true", onchange: (event) => change(one.name, String(event.target.checked)) }),
      int: () => input("number", { step: "1" }),
      float: () => input("text", { inputmode: "decimal", spellcheck: "false" }),
      date: () => input("date"),
      datetime: () => input("datetime-local", { step: "1", value: value.slice(0, 19) }),
      secret: () => input("password", { autocomplete: "off", placeholder: "as it was" }),
      json: () => area({ class: "cr-field cr-mono", rows: 2 }),
    };
    return h("div", { class: `cr-parameter${changed ? " cr-changed" : ""}`, key: `parameter-${one.name}` },
      h("label", { for: id }, one.name), h("div", { class: "cr-input" }, (kinds[one.kind] ?? (() => (lines ? area({ rows: Math.min(8, one.value.split("\n").length + 1) }) : input("text", { spellcheck: "false" }))))(),
        changed ? button("Undo", () => { delete values[one.name]; look(); }, { kind: "quiet", key: "undo", "aria-label": `Undo the change of ${one.name}` }) : null),
      wrong ? h("p", { class: "cr-wrong", role: "alert", id: `${id}-wrong`, key: "wrong" }, wrong) : null,
      h("p", { class: "cr-hint", id: `${id}-help`, key: "help" }, changed ? `was ${one.kind === "secret" ? "another" : one_line(one.value || one.empty || "empty")}` : "", changed && one.help ? " · " : "", one.help));
  }

  function check(name, words, hint) {
    return h("label", { class: "cr-choice", key: `flag-${name}` }, h("input", { type: "checkbox", checked: Boolean(flags[name]), onchange: (event) => flag(name, event.target.checked), key: name }), h("span", {}, words, hint ? h("span", { class: "cr-hint" }, ` ${hint}`) : null));
  }

  function form_part() {
    const chosen = form.cuts.find(({ address }) => address === cut);
    return h("div", { class: "cr-form", key: "form" },
      h("div", { class: "cr-parameter", key: "cut" }, h("label", { for: "cr-cut" }, "From"),
        h("div", { class: "cr-input" }, h("select", { id: "cr-cut", class: "cr-field", value: cut, key: "cut", onchange: (event) => { cut = event.target.value; delete flags.reeval; look(); } },
          chosen ? null : h("option", { value: cut, selected: true }, cut),
          form.cuts.map((one) => one.left ? h("option", { value: "", disabled: true }, `\u2003and ${count(one.left)} more: choose one in the run, then Restart from here`) : h("option", { value: one.address, selected: one.address === cut }, `${one.item ? "\u2003" : ""}${one.address} (${one.status})`)))),
        h("p", { class: "cr-hint cr-mono" }, chosen?.line)),
      form.parameters.length ? h("h4", { key: "title" }, "Parameters") : null,
      form.parameters.map(field),
      form.cuts.find(({ address }) => address === cut)?.item || flags.reeval ? check("reeval", "Evaluate the items anew", "those that are not there any more go, new ones execute") : null,
      form.failed_items || flags.failed_only ? check("failed_only", "Only the items that failed") : null,
      plan?.refusals?.length || flags.force || flags.widen ? h("fieldset", { class: "cr-set", key: "stale" }, h("legend", {}, "Steps before the cut that are not what they were"),
        check("widen", "Execute them, too", "the cut moves to the first of them"), check("force", "Keep them as they were")) : null,
      form.status === "suspended" ? h("fieldset", { class: "cr-set", key: "waits" }, h("legend", {}, "The run itself waits"),
        check("cancel_origin", "Cancel it"), check("keep_waiting", "Let it wait on")) : null);
  }

  function plan_part() {
    if (!plan) return h("div", { class: "cr-plan", key: "plan", "aria-busy": String(planning) }, error ? problem(error) : h("p", { class: "cr-empty" }, "Planning…"));
    if (plan.wrong) return h("div", { class: "cr-plan", key: "plan", "aria-busy": String(planning) }, h("p", { class: "cr-empty" }, `There is no plan: ${Object.keys(plan.wrong).join(", ")} cannot be read.`));
    const kinds = { kept: "kept", executes: "running", "runs again": "running", rebuilds: "running", pending: "pending", skipped: "skipped", "may execute": "waiting" };
    return h("div", { class: "cr-plan", key: "plan", "aria-busy": String(planning) },
      plan.refusals.length ? h("div", { class: "cr-problem", role: "alert", key: "refused" }, icon("failed"), h("div", {}, h("strong", {}, "This restart is refused. "), plan.refusals.map((words) => h("div", {}, words)),
        plan.earliest && plan.earliest !== cut ? h("p", {}, "This would do: ", button(`from ${plan.earliest}`, () => { cut = plan.earliest; look(); }, { key: "earliest" })) : null)) : null,
      plan.warnings.map((words, place) => h("div", { class: "cr-note", key: `warning-${place}` }, words)),
      Object.entries(plan.items).map(([kind, keys]) => keys.length ? h("p", { key: `items-${kind}`, class: "cr-soft" }, `items ${kind}: ${keys.join(", ")}`) : null),
      error ? problem(error) : null,
      h("p", { class: "cr-sum", key: "sum" }, h("strong", {}, `${count(plan.executes)} ${plan.executes === 1 ? "step executes" : "steps execute"}`), plan.seconds ? `, about ${seconds(plan.seconds)}` : "",
        plan.kept ? `; ${count(plan.kept)} kept${plan.saved >= 0.05 ? `, ${seconds(plan.saved)} saved` : ""}` : ""),
      h("div", { class: "cr-scroll cr-plan-steps", key: "steps", tabindex: 0, role: "region", "aria-label": "Plan" }, h("table", { class: "cr-table", "aria-label": "Plan" },
        h("thead", {}, h("tr", {}, ["Step", "What happens", "Why", "Last time"].map((words) => h("th", { scope: "col", class: words === "Last time" ? "cr-number" : "" }, words)))),
        h("tbody", {}, plan.steps.map((step) => h("tr", { key: `plan-${step.label}`, class: step.fate === "kept" ? "cr-dim" : "" }, h("td", {}, step.label),
          h("td", {}, badge(kinds[step.fate] ?? "pending", step.fate)), h("td", {}, step.reason), h("td", { class: "cr-number" }, seconds(step.seconds))))))));
  }

  function going_part() {
    const total = going?.steps.length ?? 0;
    const done = (going?.steps ?? []).filter(({ status }) => status !== "pending" && status !== "running").length;
    const running = going?.state !== "ended";
    return h("div", { class: "cr-going", key: "going" },
      h("div", { class: "cr-bar" }, badge(going?.status || "queued", going?.status || "starting"), h("span", { class: "cr-mono cr-grow" }, going?.run ?? ""),
        running ? button(stopping ? "Cancelling…" : "Cancel", cancel, { kind: "danger", key: "stop", disabled: stopping })
          : [ctx.has("run") && going.run ? button("Open the run", () => ctx.go("run", { run: going.run }), { key: "open" }) : null, button("Another restart", () => start(going?.run || origin), { key: "another" })]),
      h("div", { class: "cr-progress", role: "progressbar", "aria-label": "Steps done", "aria-valuemin": 0, "aria-valuemax": total, "aria-valuenow": done }, h("span", { style: { width: percent(total ? done / total : 0) } })),
      going?.cause ? h("p", { class: `cr-told ${cause_class(going.status, "cr-cause-line")}` }, going.cause) : null,
      error ? problem(error) : null,
      h("div", { class: "cr-scroll cr-plan-steps" }, h("table", { class: "cr-table", "aria-label": "Steps" }, h("tbody", {}, (going?.steps ?? []).map((step) => h("tr", { key: step.label }, h("td", {}, step.label), h("td", {}, badge(step.status, step.words)), h("td", { class: "cr-number" }, seconds(step.seconds))))))));
  }

  function show() {
    if (errand) { draw(el, going_part()); return; }
    if (!form) { draw(el, error ? problem(error) : h("p", { class: "cr-empty" }, "Looking…")); return; }
    const not_here = elsewhere || (Object.keys(wish().parameters).length ? "its parameters are what they were: the changed ones are for a run of its own" : "");
    const refused = !plan || Boolean(plan.wrong) || plan.refusals.length > 0;
    draw(el,
      h("header", { class: "cr-head", key: "head" }, h("div", { class: "cr-title" }, h("h3", {}, "Restart"), badge(form.status), h("span", { class: "cr-flow" }, form.flow), h("span", { class: "cr-mono cr-soft" }, form.run)),
        h("div", { class: "cr-actions" },
          button("In this kernel", () => ctx.here({ restart: form.run, step: cut }), { key: "here", disabled: refused || elsewhere === null || Boolean(not_here), "aria-describedby": not_here ? "cr-not-here" : null, title: "Put this notebook's variables back to what they were right before the cut; nothing is executed" }),
          button(sending ? "Starting…" : planning ? "Planning…" : "Restart", press, { kind: "primary", disabled: refused || planning || sending, key: "go", title: "A new run, in the background" }))),
      not_here ? h("p", { class: "cr-told cr-soft", id: "cr-not-here", key: "not-here" }, `Not in this kernel: ${not_here}.`) : null,
      form.cause ? h("p", { class: `cr-told ${cause_class(form.status, "cr-cause-line")}`, key: "cause" }, form.cause) : null,
      h("div", { class: "cr-two", key: "two" }, form_part(), plan_part()));
  }

  show();
  return {
    el,
    open(args) {
      if (args.run || !origin || (!errand && !ctx.alone && ctx.value && ctx.value !== origin && !form)) start(args.run || (ctx.alone ? "" : ctx.value) || "last", args.step);
    },
    here(told) {
      if ("why" in told) {
        if (told.flow === form?.flow) { elsewhere = told.why; show(); }
        return;
      }
      if (told.error)  { error = told.error; }
      ctx.say(told.text ?? "");
      show();
    },
    close() { stop?.(); },
  };
};
