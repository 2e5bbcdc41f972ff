// What runs wait for, and until when; an answer as a form or as JSON.

rooms.waits = (ctx) => {
  const KINDS = { suspend: "for an answer", rerun: "to run the step again", sleep: "asleep", retry: "for another try" };
  let rows = null;
  let behind = 0; // the kernel's clock is so far behind the browser's
  let error = null;
  let trouble = null;
  let chosen = "";
  let mode = "form";
  let fields = [["", ""]];
  let text = "";
  let busy = false;
  let checked = false; // a press has found a field that is wrong: it is told while it is mended
  let sure = false;
  let said = "";
  let answered = ""; // the wait that was answered here; it is listed until its run goes on
  let last = null; // the chosen wait as it was listed last
  let stop = null;
  const table = h("div", { class: "cr-scroll", style: { "max-height": "320px" }, tabindex: 0, role: "region", "aria-label": "List of waits" });
  const answer = h("div", {});
  const el = h("div", {}, table, answer);

  const now = () => Date.now() / 1000 - behind;

  function choose(key) {
    if (key !== chosen) {
      [chosen, trouble, sure, said, text, fields, checked] = [key, null, false, "", "", [["", ""]], false];
      ctx.say(""); // what was said of another one is over
    }
    if (ctx.alone) ctx.value = one()?.run ?? "";
    show();
  }

  const one = () => rows?.find(({ key }) => key === chosen);

  /** To where the answer is written. */
  const lead = () => answer.querySelector("input, textarea")?.focus();

  /** What a field holds, as JSON: what is none is text. */
  const typed = (value) => (is_json(value) ? value.trim() : JSON.stringify(value));

  /** What keeps a field's name, and its value, from being sent as they stand; "" for nothing. */
  function wrong(place) {
    const [name, value] = [fields[place][0].trim(), fields[place][1]];
    if (!name) return [value.trim() ? "This value has no name." : "", ""];
    const first = fields.findIndex(([other]) => other.trim() === name);
    if (first < place) return [`There is a field ${name} already: the later value would replace the first.`, ""];
    const fault = is_json(value) ? json_fault(value) : "";
    return ["", fault && `This is no JSON: ${fault}. A text needs quotes.`];
  }

  const text_fault = () => (text.trim() ? json_fault(text) : "");

  /** What is sent; null where a field is wrong: nothing that was typed is dropped. */
  function data() {
    if (mode === "json") return text_fault() ? null : text;
    if (fields.some((_, place) => wrong(place).some(Boolean))) return null;
    const given = fields.filter(([name]) => name.trim());
    return given.length ? `{${given.map(([name, value]) => `${JSON.stringify(name.trim())}:${typed(value)}`)}}` : "";
  }

  /** Write the answer in the other way, where it can be. */
  function change_mode(name) {
    if (name === mode) return;
    trouble = null;
    const told = data();
    if (told === null) { refuse(); return; }
    if (name === "json") {
      text = told;
    } else if (text.trim()) {
      if (!text.trim().startsWith("{")) {
        trouble = { message: "only an object has fields", hint: 'as in {"by": "ann"}; what stands here is sent as it is' };
        show();
        return;
      }
      // a text stands there without its quotes, where it is no JSON without them
      fields = json_fields(text).map(([field, value]) => [field, value.startsWith('"') && !is_json(JSON.parse(value)) ? JSON.parse(value) : value]);
      if (!fields.length) fields = [["", ""]];
    } else {
      fields = [["", ""]];
    }
    [mode, checked] = [name, false];
    show();
  }

  /** Tell at the fields what is wrong with them, and lead there. */
  function refuse() {
    checked = true;
    show();
    answer.querySelector("[aria-invalid]")?.focus();
  }

  async function send(by) {
    if (busy) return;
    const told = by === "resume" ? data() : "";
    if (told === null) { refuse(); return; }
    const { key, run, step } = one();
    [busy, trouble, sure] = [true, null, false];
    show();
    try {
      const done = await ctx.ask("answer", { run, step, by, data: told });
      said = `${done.step} of run ${done.run} is ${by === "resume" ? "resumed" : "cancelled"}`;
      answered = key;
      ctx.say(said);
    } catch (problem) {
      trouble = problem;
    }
    busy = false;
    show();
  }

  function until(row) {
    if (row.until === null) return h("span", { class: "cr-soft" }, "not before its step ends");
    const left = row.until - now();
    const then = { resume: "goes on without data", cancel: "is cancelled", fail: "fails" }[row.on_timeout] ?? row.on_timeout;
    return [h("span", { class: left < 0 ? "cr-late" : "" }, left < 0 ? `since ${seconds(-left)}` : `in ${seconds(left)}`), h("span", { class: "cr-soft", title: clock(row.until) }, `, then it ${then}`)];
  }

  /** Somebody else was first: what was typed here stays to be read. */
  function over() {
    const typed_here = mode === "json" ? text : fields.filter(([name, value]) => name || value).map(([name, value]) => `${name}: ${value}`).join("\n");
    return h("section", { class: "cr-chosen-one", "aria-label": "Answer" },
      h("h3", {}, `${last.step || "step"} of ${last.flow} `, h("span", { class: "cr-mono cr-soft" }, last.run)),
      h("p", { class: "cr-note", role: "alert" }, "This wait is over: somebody else has answered it, or its time was up. Nothing was sent from here."),
      typed_here ? h("pre", { class: "cr-text" }, typed_here) : null,
      ctx.has("run") ? h("div", { class: "cr-bar", style: { padding: "4px 0" } }, button("Look at the run", () => ctx.go("run", { run: last.run }), { key: "look" })) : null);
  }

  function draw_answer() {
    const row = one();
    if (row) last = row;
    else if (rows && last?.key === chosen && chosen !== answered) return draw(answer, over());
    if (!row || row.key === answered) return draw(answer, said ? h("div", { class: "cr-bar", role: "status" }, icon("success"), said) : null);
    const parts = [h("h3", {}, `${row.step || "step"} of ${row.flow} `, h("span", { class: "cr-mono cr-soft" }, row.run))];
    if (!row.can) {
      parts.push(h("p", { class: "cr-note" }, row.words));
    } else {
      const set = (place, part, value) => { fields = fields.map((pair, at) => (at === place ? (part ? [pair[0], value] : [value, pair[1]]) : pair)); if (checked) show(); };
      const bad = (place, part) => (checked && wrong(place)[part]) || null;
      const mark = (place, part) => (bad(place, part) ? { "aria-invalid": "true", "aria-describedby": `cr-wrong-${row.key}-${place}` } : {});
      const told = (place, words) => (words ? h("p", { class: "cr-wrong", role: "alert", id: `cr-wrong-${row.key}-${place}`, key: "wrong" }, words) : null);
      const fault = mode === "json" && checked ? text_fault() : "";
      parts.push(
        tablist([["form", "Form"], ["json", "JSON"]], () => mode, change_mode, "How the answer is written"),
        mode === "json"
          ? [h("textarea", { class: "cr-field cr-mono", rows: 4, key: "json", "aria-label": "JSON for flow.resume_data", placeholder: '{"by": "ann", "approved": true}', style: { width: "100%" }, value: text, spellcheck: "false", oninput: (event) => { text = event.target.value; if (checked) show(); }, ...(fault ? { "aria-invalid": "true", "aria-describedby": `cr-wrong-${row.key}-json` } : {}) }),
            told("json", fault && `This is no JSON: ${fault}. A text needs quotes: "yes"`)]
          : h("div", { key: "form" }, fields.map(([name, value], place) => h("div", { class: "cr-bar", style: { padding: "4px 0" }, key: `field-${place}` },
            h("input", { class: "cr-field cr-mono", placeholder: "name", "aria-label": `Name ${place + 1}`, value: name, spellcheck: "false", ...mark(place, 0), oninput: (event) => set(place, 0, event.target.value) }),
            h("input", { class: "cr-field cr-mono cr-grow", placeholder: "value: text, a number, true, or JSON", "aria-label": `Value ${place + 1}`, value, spellcheck: "false", ...mark(place, 1), oninput: (event) => set(place, 1, event.target.value) }),
            button("Remove", () => { fields = fields.length > 1 ? fields.filter((_, at) => at !== place) : [["", ""]]; show(); answer.querySelector(`[aria-label="Name ${Math.min(place + 1, fields.length)}"]`)?.focus(); }, { "aria-label": `Remove field ${place + 1}` }),
            told(place, bad(place, 0) ?? bad(place, 1)))),
          button("Another field", () => { fields = [...fields, ["", ""]]; show(); })),
        h("p", { class: "cr-soft", style: { margin: "6px 0" } }, "The next step finds it as flow.resume_data; empty is None."),
        h("div", { class: "cr-bar", style: { padding: "4px 0" } },
          button(busy ? "Sending …" : "Resume", () => send("resume"), { kind: "primary", disabled: busy, key: "resume" }),
          sure ? button("Really cancel the run?", () => send("cancel"), { kind: "danger", confirms: true, disabled: busy, key: "cancel" }) : button("Cancel", () => { sure = true; show(); }, { disabled: busy, key: "cancel" }),
          ctx.has("run") ? button("Look at the run", () => ctx.go("run", { run: row.run }), { key: "look" }) : null));
    }
    return draw(answer, h("section", { class: "cr-chosen-one", "aria-label": "Answer" }, parts, trouble ? problem(trouble) : null));
  }

  function draw_table() {
    if (error) return draw(table, problem(error));
    if (!rows) return draw(table, h("div", { class: "cr-empty" }, "Looking…"));
    if (!rows.length) return draw(table, h("div", { class: "cr-empty" }, "No run waits. A cell makes its run wait with flow.suspend()."));
    const names = ["Waits", "Step", "Notebook", "Run", "Since", "Until", "Answer"];
    return draw(table, h("table", { class: "cr-table", "aria-label": "Waits" },
      h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map((row) => h("tr", { key: row.key, class: "cr-pick", "aria-selected": String(row.key === chosen), onclick: () => choose(row.key) },
        h("td", { class: "cr-nowrap" }, badge(row.can ? "suspended" : row.answered ? "running" : "interrupted", KINDS[row.kind] ?? row.kind), row.words === "waits" ? null : h("div", { class: "cr-soft" }, row.words)),
        h("td", { class: "cr-mono" }, row.step), h("td", {}, h("div", { class: "cr-clip" }, row.flow), h("div", { class: "cr-chips" }, chips(Object.entries(row.labels), "label"))),
        h("td", { class: "cr-mono cr-nowrap" }, row.run), h("td", { class: "cr-nowrap", title: clock(row.asked) }, ago(row.asked + behind)), h("td", {}, until(row)),
        h("td", {}, h("button", { type: "button", class: "cr-button", "aria-label": `Answer ${row.step} of run ${row.run}`, "aria-disabled": String(!row.can || row.key === answered), onclick: (event) => { event.stopPropagation(); choose(row.key); lead(); } }, row.key === answered ? "Answered" : "Answer …")))))));
  }

  function show() {
    draw_table();
    draw_answer();
  }

  const timer = setInterval(() => { if (!document.hidden && el.offsetParent) draw_table(); }, 1000);
  show();
  return {
    el,
    open(args) {
      stop ??= ctx.watch("waits", {}, (data, problem) => {
        error = problem ?? null;
        if (data) {
          rows = data.rows;
          behind = Date.now() / 1000 - data.now;
        }
        const wanted = args.run || (ctx.alone && ctx.value);
        if (!chosen && wanted) chosen = rows?.find(({ run }) => run === wanted)?.key ?? "";
        show();
      });
      if (args.run) choose(rows?.find(({ run }) => run === args.run)?.key ?? "");
    },
    chosen(value) { if (ctx.alone) choose(rows?.find(({ run }) => run === value)?.key ?? ""); },
    close() {
      clearInterval(timer);
      stop?.();
    },
  };
};
