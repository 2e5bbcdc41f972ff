// The house: tabs over rooms, or one room alone.

/** What a room is given. */
function context(name, line, model, house) {
  return {
    h, draw, frame,
    ask: (what, args) => line.ask(name, what, args),
    watch: (what, args, heard) => line.watch(name, what, args, heard),
    // show another room, where this panel has it
    has: (room) => house.has(room),
    go: (room, args) => house.open(room, args),
    // what people script: read, set, observe
    get value() { return model.get("value"); },
    set value(value) {
      if (model.get("value") === value) return;
      model.set("value", value);
      model.save_changes();
    },
    // a house's value is the run that is looked at, whatever its rooms choose
    alone: model.get("_rooms").length === 1,
    say: (words) => house.say(words),
    here: (message) => line.send({ here: message }),
    signal: house.signal,
  };
}

/** Whether the page around is dark; marks the panel so. */
function follow_theme(el, signal) {
  const look = () => {
    const told = document.body.dataset.jpThemeLight;
    const ground = getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g)?.map(Number) ?? [255, 255, 255];
    const seen = ground.length > 3 && ground[3] === 0 ? 255 : (ground[0] * 2 + ground[1] * 5 + ground[2]) / 8;
    el.classList.toggle("cr-dark", told !== undefined ? told === "false" : seen < 128);
  };
  look();
  const observer = new MutationObserver(look);
  observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"] });
  signal.addEventListener("abort", () => observer.disconnect());
}

/** What is shown stays to be read, and nothing in it can be pressed or changed any more. */
function keep_still(body, signal) {
  const still = () => {
    for (const node of body.querySelectorAll("button, input, select, textarea")) {
      if (node.getAttribute("aria-disabled") !== "true") node.setAttribute("aria-disabled", "true");
      if ("readOnly" in node && !node.readOnly) node.readOnly = true;
    }
  };
  const block = (event) => {
    // who reads by keyboard walks on, marks and copies
    if (event.type === "keydown" && !/^( |Enter|Backspace|Delete)$/.test(event.key) && !event.target.matches("select")) return;
    if (event.type === "keydown" && event.key === "Tab") return;
    if (event.type === "mousedown" && !event.target.closest("select")) return;
    if (event.type === "pointerdown" && !event.target.closest("[data-day]")) return;
    if (event.target.closest("summary")) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  };
  for (const kind of ["click", "dblclick", "mousedown", "pointerdown", "keydown", "input", "change"]) body.addEventListener(kind, block, { capture: true, signal });
  const observer = new MutationObserver(still);
  observer.observe(body, { subtree: true, childList: true, attributes: true, attributeFilter: ["aria-disabled", "readonly"] });
  signal.addEventListener("abort", () => observer.disconnect());
  still();
}

function render({ model, el }) {
  const ending = new AbortController();
  const line = new Line(model, (state) => stands(state));
  const names = model.get("_rooms");
  const open = new Map();
  let shown = "";
  el.classList.add("cellrail");
  follow_theme(el, ending.signal);

  const said = h("div", { class: "cr-said", role: "status", "aria-live": "polite" });
  const body = h("div", { class: "cr-body" });
  const tabs = h("div", { class: "cr-house" });
  const kernel = h("div", {});

  /** How it stands with the kernel, above everything. */
  function stands(state) {
    if (state === "gone") {
      el.classList.add("cr-gone");
      said.textContent = ""; // what was done there is gone, too
      keep_still(body, ending.signal);
    }
    draw(kernel, state === "gone" ? problem(GONE, "gone")
      : state === "silent" ? h("p", { class: "cr-note cr-silent", role: "status" }, "The kernel has not answered for some seconds: it executes a cell, or was restarted. After a restart run this cell again.") : null);
  }
  // the front end marks views whose line to the kernel is cut
  const cut = () => setTimeout(() => { if (!ending.signal.aborted && el.closest(".jupyter-widgets-disconnected")) line.gone(); });

  const house = {
    has: (name) => names.some(([known]) => known === name),
    say: (words) => { said.textContent = words; },
    signal: ending.signal,
    open(name, args) {
      if (!house.has(name)) return;
      if (!open.has(name)) {
        const area = h("section", { class: `cr-room cr-room-${name}`, "aria-label": names.find(([known]) => known === name)[1] });
        body.append(area);
        const room = rooms[name](context(name, line, model, house));
        area.append(room.el);
        open.set(name, { area, room });
      }
      const left = shown !== name && open.get(shown)?.area.contains(el.getRootNode().activeElement);
      // what was said was about another room
      if (shown !== name) said.textContent = "";
      shown = name;
      for (const [other, { area }] of open) area.hidden = other !== name;
      tabs_again();
      open.get(name).room.open?.(args ?? {});
      // the keyboard goes along: the next Tab is the room's first
      if (left) focus_on(open.get(name).area);
    },
  };
  const tabs_again = () => {
    if (names.length > 1) draw(tabs, tablist(names, () => shown, (name) => house.open(name), "cellrail"));
  };
  el.append(kernel, tabs, body, said);
  model.on("comm_live_update", cut);
  const start = model.get("_start");
  house.open(names[0][0], start);
  // a house that begins with a run shows it
  if (names.length > 1 && start.run) house.open("run", start);
  // what was done in the kernel itself
  const here = (message) => { if (message.here) for (const { room } of open.values()) room.here?.(message.here); };
  model.on("msg:custom", here);
  const told = () => { for (const { room } of open.values()) room.chosen?.(model.get("value")); };
  model.on("change:value", told);

  return () => {
    ending.abort();
    model.off("change:value", told);
    model.off("comm_live_update", cut);
    model.off("msg:custom", here);
    for (const { room } of open.values()) room.close?.();
    line.close();
  };
}

export default { render };
