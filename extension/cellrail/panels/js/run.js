// A run: what it is, its steps, and the step that is looked at.

rooms.run = (ctx) => {
  let run = "";
  let view = null;
  let error = null;
  let stop = null;
  let chosen = "";
  let acting = "";
  let data = ""; // what is typed for a run that waits
  let fault = ""; // what is wrong with it
  const open = new Map();
  const el = h("div", { class: "cr-run" });
  const head = h("div", {});
  const steps = h("div", { class: "cr-steps-pane" });
  const detail = step_detail(ctx, { run: () => run, running: () => view?.run.status === "running", choose });
  const address = h("input", { class: "cr-field cr-mono", name: "run", placeholder: "last, an id, a notebook", spellcheck: "false", onkeydown: on_enter(() => find_run()) });
  const find = h("div", { class: "cr-bar", role: "search" }, h("label", { class: "cr-soft" }, "Run ", address), button("Open", () => find_run()));
  el.append(find, head, h("div", { class: "cr-split" }, steps, detail.el));

  function find_run() {
    if (address.value.trim()) start(address.value.trim());
  }

  function start(next, step) {
    if (next !== run || !stop) {
      stop?.();
      [run, view, error, chosen, acting, data, fault] = [next, null, null, "", "", "", ""];
      open.clear();
      detail.open("");
      detail.forget();
      stop = ctx.watch("view", { run }, (found, problem) => {
        error = problem ?? null;
        if (found) {
          view = found;
          if (run !== found.run.id) {
            // an address comes to mean other runs; this one is looked at
            const first = stop;
            [run, stop] = [found.run.id, null];
            first?.();
            start(found.run.id, step);
            return;
          }
          if (!chosen) choose(step || first_choice(found), true);
          for (const label of open.keys()) items(label, open.get(label).offset);
        }
        show();
      });
    } else if (step) {
      choose(step);
    }
    show();
  }

  /** The step that a person most likely wants to see. */
  function first_choice({ steps: all }) {
    const by = (status) => all.find((step) => step.status === status);
    const done = all.filter((step) => step.status === "success");
    return (by("failed") ?? by("running") ?? by("suspended") ?? by("cancelled") ?? done[done.length - 1] ?? all[0])?.label ?? "";
  }

  function choose(address, quietly) {
    chosen = address;
    detail.open(address);
    if (ctx.alone && !quietly) ctx.value = address;
    show();
  }

  async function items(label, offset) {
    try {
      open.set(label, await ctx.ask("items", { run, step: label, offset: Math.max(0, offset) }));
    } catch (problem) {
      error = problem;
    }
    show();
  }

  function toggle(label) {
    if (open.delete(label)) show();
    else items(label, 0);
  }

  async function act(verb, data) {
    if (acting) return;
    acting = verb;
    ctx.say(`${verb}…`);
    show();
    try {
      await ctx.ask("act", { run, verb, ...(data === undefined ? {} : { data }) });
      // what is shown is a moment behind: the button is not given back before it is seen
      for (let left = 12; left > 0;) {
        const told = await ctx.ask("acted", { run });
        if (told.error) throw told.error;
        const status = view?.run.status;
        if (told.state === "ended") left = verb !== "cancel" || (status !== "running" && status !== "suspended") ? 0 : left - 1;
        // a run that goes on is shown as such; its end is not waited for
        if (left === 0 || (verb !== "cancel" && status === "running")) break;
        await new Promise((resolve) => setTimeout(resolve, 400));
        if (ctx.signal.aborted) return;
      }
      error = null;
    } catch (problem) {
      error = problem;
    }
    acting = "";
    ctx.say("");
    show();
  }

  function actions() {
    const { status, live } = view.run;
    const busy = acting !== "";
    return h("div", { class: "cr-actions" },
      status === "suspended" && !live ? resume_form(busy) : null,
      status === "interrupted" ? button(acting === "recover" ? "Recovering…" : "Recover", () => act("recover"), { kind: "primary", disabled: busy, key: "recover", title: "The same run goes on, from its first unfinished step" }) : null,
      (status === "running" || status === "suspended") && !live ? button(acting === "cancel" ? "Cancelling…" : "Cancel", () => act("cancel"), { kind: "danger", disabled: busy, key: "cancel" }) : null,
      ctx.has("restart") && status !== "running" ? button("Restart…", () => ctx.go("restart", { run: view.run.id }), { kind: status === "failed" || status === "cancelled" ? "primary" : "", key: "restart" }) : null);
  }

  function resume_form(busy) {
    const press = () => {
      fault = data.trim() ? json_fault(data) : "";
      if (fault) { show(); head.querySelector("[name=data]").focus(); } else act("resume", data);
    };
    return h("div", { class: "cr-resume", key: "resume" },
      h("input", { class: "cr-field cr-mono", name: "data", "aria-label": "JSON for the next step (flow.resume_data)", placeholder: "JSON for flow.resume_data", key: "data", value: data, onkeydown: on_enter(press),
        oninput: (event) => { data = event.target.value; if (fault) { fault = ""; show(); } }, ...(fault ? { "aria-invalid": "true", "aria-describedby": "cr-data-wrong" } : {}) }),
      button(acting === "resume" ? "Resuming…" : "Resume", press, { kind: "primary", disabled: busy, key: "send" }),
      fault ? h("p", { class: "cr-wrong", role: "alert", id: "cr-data-wrong", key: "wrong" }, `This is no JSON: ${fault}. A text needs quotes: "yes"`) : null);
  }

  function facts({ run: told }) {
    const rows = told.facts.filter(([, value]) => value);
    return h("details", { class: "cr-more", key: "facts" }, h("summary", {}, "Details"), h("dl", { class: "cr-facts" }, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { class: "cr-mono" }, value)))));
  }

  function show() {
    const found_by_keyboard = view && find.contains(find.getRootNode().activeElement);
    find.hidden = Boolean(view);
    if (found_by_keyboard) focus_on(el);
    if (!view) {
      draw(head, error ? problem(error) : run ? h("p", { class: "cr-empty" }, "Looking…") : null);
      draw(steps);
      el.classList.toggle("cr-none", true);
      return;
    }
    el.classList.toggle("cr-none", false);
    const told = view.run;
    const done = view.steps.filter(({ status }) => status === "success" || status === "kept" || status === "skipped").length;
    draw(head,
      h("header", { class: "cr-head", key: "head" },
        h("div", { class: "cr-title" }, badge(told.status), h("span", { class: "cr-flow" }, told.flow), h("span", { class: "cr-mono cr-soft" }, told.id),
          h("span", { class: "cr-soft", title: clock(told.started) }, `${ago(told.started)}${told.seconds === null ? "" : `, took ${seconds(told.seconds)}`}`),
          told.status === "running" ? h("span", { class: "cr-soft" }, `${done} of ${view.steps.length} steps`) : null),
        actions()),
      told.status === "running" ? h("div", { class: "cr-progress", key: "progress", role: "progressbar", "aria-label": "Steps done", "aria-valuemin": 0, "aria-valuemax": view.steps.length, "aria-valuenow": done }, h("span", { style: { width: percent(done / Math.max(1, view.steps.length)) } })) : null,
      error ? problem(error) : null,
      told.cause ? h("p", { class: `cr-told ${cause_class(told.status, "cr-cause-line")}`, key: "cause" }, told.cause) : null,
      told.waits ? h("p", { class: "cr-told", key: "waits" }, icon("suspended"), ` ${told.waits.label} waits${told.waits.until ? ` until ${clock(told.waits.until)}, then: ${told.waits.on_timeout || "goes on"}` : ""}`) : null,
      h("div", { class: "cr-told cr-chips", key: "chips" },
        told.origin ? h("span", { class: "cr-soft" }, `${told.kind} of `, h("button", { type: "button", class: "cr-link cr-mono", onclick: () => start(told.origin) }, told.origin), told.from_step ? ` from ${told.from_step}` : "") : null,
        chips(told.parameters, "parameter"), chips(told.labels, "label"), facts(view)),
      told.children.length ? h("div", { class: "cr-told cr-chips", key: "children" }, h("span", { class: "cr-soft" }, "called "), told.children.slice(0, 40).map((child) =>
        h("button", { type: "button", class: "cr-button", onclick: () => start(child.run), title: child.run }, icon(child.status), `${child.notebook} ${child.key}`))) : null);
    draw(steps, step_rows(view, chosen, open, { choose, toggle, page: items }));
  }

  // a bar that grows, a time that passes
  const timer = setInterval(() => { if (view?.run.status === "running" && !document.hidden && el.offsetParent) show(); }, 1000);
  show();
  return {
    el,
    open(args) { if (args.run) start(args.run, args.step || (ctx.alone ? ctx.value : "")); else if (!run) start("last"); },
    chosen(value) { if (ctx.alone && value && value !== chosen && view) choose(value, true); else if (!ctx.alone && value && value !== run && value !== view?.run.id && run) start(value); },
    close() { clearInterval(timer); stop?.(); detail.close(); },
  };
};
