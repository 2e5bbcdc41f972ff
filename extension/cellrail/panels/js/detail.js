// A step, or an item of a loop: output, code, variables, how it differs from another run, and the rest.

function step_detail(ctx, where) {
  // where: () => ({run, view}), and what is chosen
  const el = h("div", { class: "cr-detail" });
  let address = "";
  let data = null;
  let error = null;
  let tab = "output";
  let looked = ""; // the variable whose preview is open
  let preview_of = {};
  let filter = "";
  let compared = null;
  let others = null;
  let other = "";
  let journal = null;
  let stop = null;

  function open(next) {
    if (next === address && !error) return;
    address = next;
    [data, error, compared, journal, looked] = [null, null, null, null, ""];
    stop?.();
    stop = null;
    if (!address) { show(); return; }
    // followed: a step that runs gets outputs and variables when it ends
    stop = ctx.watch("step", { run: where.run(), step: address }, (found, problem) => {
      if (found) data = found;
      error = problem ?? null;
      show();
    });
    if (tab === "compare") compare();
    if (tab === "more") look_at_journal();
    show();
  }

  function choose_tab(next) {
    tab = next;
    if (tab === "compare" && !compared) compare();
    if (tab === "more" && !journal) look_at_journal();
    show();
  }

  async function compare() {
    const mine = address;
    try {
      others ??= await ctx.ask("runs", { run: where.run() });
      other ||= others[0]?.[0] ?? "";
      const found = other ? await ctx.ask("compare", { run: where.run(), other, step: address }) : { none: true };
      if (mine === address) compared = found;
    } catch (problem) {
      if (mine === address) compared = { error: problem };
    }
    show();
  }

  async function look_at_journal() {
    const mine = address;
    try {
      const found = await ctx.ask("journal", { run: where.run(), step: address });
      if (mine === address) journal = found;
    } catch (problem) {
      if (mine === address) journal = { error: problem };
    }
    show();
  }

  // --- tabs ---

  function output_tab() {
    const shown = data.outputs.map(output);
    const told = data.outputs.some(({ kind }) => kind === "error");
    return [
      data.cause && !told && data.status !== "success" ? h("p", { key: "cause" }, icon(data.status), " ", data.cause) : null,
      data.kept_from ? h("p", { class: "cr-soft", key: "from" }, "Kept: executed in ", link(data.kept_from, () => ctx.go("run", { run: data.kept_from }))) : null,
      shown,
      data.traceback && !told ? h("pre", { class: "cr-text cr-stderr cr-error", key: "traceback", tabindex: 0 }, ansi(data.traceback)) : null,
      shown.length || data.traceback ? null : h("p", { class: "cr-soft", key: "none" }, data.status === "pending" ? "It has not been executed." : data.status === "running" ? "It is being executed; its output is recorded at its end." : "It has shown nothing."),
      data.attempts.length ? h("section", { key: "attempts" }, h("h4", {}, "Attempts"), h("table", { class: "cr-table" }, h("tbody", {}, data.attempts.map((one) =>
        h("tr", {}, h("td", {}, badge(one.status)), h("td", {}, one.runs > 1 ? `run ${one.runs}` : `attempt ${one.attempt}`), h("td", {}, clock(one.started)), h("td", { class: "cr-number" }, seconds(one.seconds)), h("td", {}, one.error)))))) : null,
    ];
  }

  function code_tab() {
    return [h("pre", { class: "cr-source", tabindex: 0, key: "source" }, data.source),
      data.decided.length ? h("table", { class: "cr-table", key: "decided" }, h("tbody", {}, data.decided.map((one) =>
        h("tr", {}, h("td", {}, `--${one.purpose}`), h("td", { class: "cr-mono" }, one.expression), h("td", {}, one.keys ? `${count(one.keys)} items` : String(one.value)))))) : null];
  }

  function variables_tab() {
    if (!data.variables.length) return h("p", { class: "cr-soft" }, data.seconds === null ? "They are known when it has been executed." : "No variable.");
    const fitting = data.variables.filter(({ name, type }) => `${name} ${type}`.toLowerCase().includes(filter.toLowerCase()));
    const row = (one) => {
      const pick = one.verdict === "stored" && one.type !== "module";
      return h("tr", { key: `variable-${one.name}`, "aria-selected": String(one.name === looked), class: pick ? "cr-pick" : "", onclick: pick ? () => toggle(one.name) : null },
        h("td", { class: "cr-mono" }, pick ? h("button", { type: "button", class: "cr-link cr-mono", "aria-expanded": String(one.name === looked), key: "look", onclick: (event) => { event.stopPropagation(); toggle(one.name); } }, one.name) : one.name,
          one.written ? h("span", { class: "cr-new", title: "bound or changed by this step" }, "new") : null),
        h("td", { class: "cr-soft" }, one.type), h("td", { class: "cr-number" }, bytes(one.bytes)),
        h("td", {}, one.verdict === "stored" ? "stored" : h("span", { title: one.reason, class: "cr-not" }, `${one.verdict}${one.reason ? `: ${one.reason}` : ""}`)),
        h("td", {}, h("div", { class: "cr-clip cr-mono", title: one.preview }, one.preview)));
    };
    return [
      data.variables.length > 8 ? h("input", { class: "cr-field cr-narrow", type: "search", "aria-label": "Search variables", placeholder: "Search variables", value: filter, key: "filter", oninput: (event) => { filter = event.target.value; show(); } }) : null,
      data.before ? h("p", { class: "cr-soft", key: "before" }, "As they stood right before this step: it failed.") : null,
      data.not_restorable ? h("p", { class: "cr-note", key: "note" }, `Nothing can be restarted right after this step: ${data.not_restorable}`) : null,
      looked ? h("div", { key: `look-${address}-${looked}` }, look_into(looked)) : null,
      h("div", { class: "cr-scroll", key: "variables" }, h("table", { class: "cr-table", "aria-label": "Variables" },
        h("thead", {}, h("tr", {}, ["Name", "Type", "Stored", "Verdict", "Value"].map((words) => h("th", { scope: "col", class: words === "Stored" ? "cr-number" : "" }, words)))),
        h("tbody", {}, fitting.map(row)))),
    ];
  }

  /** The preview is drawn once, and looks after itself. */
  function look_into(name) {
    const key = `${address}\u0000${name}`;
    if (preview_of.key !== key) {
      preview_of = { key, el: preview(name, (args) => ctx.ask("variable", { run: where.run(), step: key.split("\u0000")[0], name, ...args }), () => toggle(name)) };
    }
    // where it is shown already it stays, with what is typed in it
    return preview_of.el.isConnected ? h("section", { key: `preview-${name}` }) : preview_of.el;
  }

  function toggle(name) {
    preview_of = {};
    looked = looked === name ? "" : name;
    show();
  }

  function compare_tab() {
    if (!compared) return h("p", { class: "cr-soft" }, "Comparing…");
    if (compared.error) return problem(compared.error);
    if (compared.none) return h("p", { class: "cr-soft" }, "There is no other run of this flow.");
    const mine = compared.steps.find(({ step }) => step === data.label);
    const different = compared.steps.filter(({ equal }) => !equal);
    return [
      h("div", { class: "cr-bar cr-tight", key: "with" }, h("label", {}, "Compared with ", h("select", {
        class: "cr-field", value: other, key: "other", onchange: (event) => { other = event.target.value; compared = null; compare(); show(); },
      }, others.map(([run, status]) => h("option", { value: run, selected: run === other }, `${run} (${status})`)))), link("open it", () => ctx.go("run", { run: other }))),
      compared.parameters.length ? h("p", { key: "parameters" }, "Parameters: ", compared.parameters.map(([name, was, is]) => h("span", { class: "cr-chip" }, h("span", { class: "cr-chip-name" }, name), h("span", { class: "cr-chip-value" }, `${one_line(was || "–")} → ${one_line(is || "–")}`)))) : null,
      h("h4", { key: "here" }, data.label),
      !mine || mine.where !== "both" ? h("p", { key: "only" }, "Only one of the runs has it.") : h("ul", { key: "told", class: "cr-list" },
        h("li", {}, mine.source ? "the same source" : "another source"), h("li", {}, mine.outputs ? "the same outputs" : "other outputs"),
        h("li", {}, mine.variables.length ? `${count(mine.variables.length)} ${mine.variables.length === 1 ? "variable differs" : "variables differ"}` : "the same variables"),
        h("li", {}, `took ${seconds(mine.seconds[1]) || "–"}; there ${seconds(mine.seconds[0]) || "–"}`)),
      compared.lines.length ? h("pre", { class: "cr-source", key: "lines", tabindex: 0 }, compared.lines.map((line) => h("span", { class: line.startsWith("+") ? "cr-plus" : line.startsWith("-") ? "cr-minus" : "cr-same" }, `${line}\n`))) : null,
      mine?.variables.length ? h("div", { class: "cr-scroll", key: "values" }, h("table", { class: "cr-table" }, h("thead", {}, h("tr", {}, ["Variable", "There", "Here"].map((words) => h("th", { scope: "col" }, words)))),
        h("tbody", {}, mine.variables.slice(0, 100).map(([name, was, is]) => h("tr", {}, h("td", { class: "cr-mono" }, name), h("td", { class: "cr-mono" }, was), h("td", { class: "cr-mono" }, is)))))) : null,
      h("h4", { key: "all" }, different.length ? "Steps that differ" : "Outputs and variables of all steps are the same"),
      h("div", { class: "cr-chips", key: "steps" }, different.map(({ step }) => link(step, () => where.choose(step)))),
    ];
  }

  function more_tab() {
    const list = (words, rows) => rows.length ? h("section", { key: words }, h("h4", {}, words), h("table", { class: "cr-table" }, h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", { class: "cr-mono" }, cell))))))) : null;
    return [
      data.resume_data || data.woke_by ? list("The wait behind it", [["woke by", data.woke_by], ["data", data.resume_data]]) : null,
      list("Flow user state", data.state), list("Shared files", data.shared.map((file) => [file])),
      list("Effects: it is never executed again for what it made", data.effects.map((effect) => [effect])),
      list("Not covered by the checkpoint", data.not_covered.map((words) => [words])),
      list("Where it stands", [["job", data.job], ["stored by it", bytes(data.bytes)], ["why", data.why]].filter(([, value]) => value)),
      h("section", { key: "journal" }, h("h4", {}, "Journal up to here"), !journal ? h("p", { class: "cr-soft" }, "Reading…") : journal.error ? problem(journal.error)
        : [journal.total > journal.records.length ? h("p", { class: "cr-soft" }, `the last ${count(journal.records.length)} of ${count(journal.total)} records`) : null,
          h("div", { class: "cr-scroll cr-journal", tabindex: 0, role: "region", "aria-label": "Journal" }, h("table", { class: "cr-table" }, h("tbody", {}, journal.records.map((one) => h("tr", {}, h("td", { class: "cr-number cr-soft" }, one.seq), h("td", { class: "cr-nowrap" }, one.time ? clock(one.time) : ""), h("td", {}, one.what), h("td", { class: "cr-mono" }, one.text))))))]),
    ];
  }

  function link(words, onclick) {
    return ctx.has("run") || words !== data?.kept_from ? h("button", { type: "button", class: "cr-link", onclick }, words) : h("span", { class: "cr-mono" }, words);
  }

  function show() {
    if (!address) { draw(el, h("div", { class: "cr-empty" }, "Choose a step.")); return; }
    if (error && !data) { draw(el, problem(error)); return; }
    if (!data) { draw(el, h("p", { class: "cr-empty" }, "Looking…")); return; }
    const tabs = [["output", "Output"], ["code", "Code"], ["variables", `Variables${data.variables.length ? ` ${count(data.variables.length)}` : ""}`], ["compare", "Compare"], ["more", "More"]];
    const drawn = { output: output_tab, code: code_tab, variables: variables_tab, compare: compare_tab, more: more_tab }[tab]();
    draw(el,
      h("div", { class: "cr-detail-head", key: "head" }, badge(data.status, ""), h("h3", {}, data.address), h("span", { class: "cr-soft" }, data.words), h("span", { class: "cr-soft cr-grow" }, seconds(data.seconds)),
        ctx.has("restart") && !where.running() ? button("Restart from here…", () => ctx.go("restart", { run: where.run(), step: data.address }), { key: "restart" }) : null),
      h("div", { key: "tabs" }, tablist(tabs, () => tab, choose_tab, "What the step left")),
      h("div", { key: `panel-${tab}-${address}`, class: "cr-detail-body", role: "tabpanel", "aria-label": tab }, drawn));
  }

  show();
  return { el, open, forget() { others = null; other = ""; compared = null; }, close() { stop?.(); } };
}
