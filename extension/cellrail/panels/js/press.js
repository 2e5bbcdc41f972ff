// A single button: a press starts work in the background; then it tells how that goes.

/** Watches one button. `icons` gives the picture of a status; `noun` is what it starts. */
function press_room(ctx, noun, icons) {
  let words = "";
  let about = "";
  let told = null;
  let error = null;
  let sending = false;
  let stop = null;
  let followed = null; // what is followed is about this run or backfill
  const el = h("div", { class: "cr-press" });

  const under_way = () => sending || told?.state === "starting" || told?.state === "running";

  function follow(id) {
    if (stop && followed === id) return;
    stop?.();
    followed = id;
    stop = ctx.watch("told", { id }, (data, problem) => {
      const before = told?.state;
      error = problem ?? data?.error ?? null;
      told = data ?? null;
      if (told?.id && told.id !== id) {
        ctx.value = told.id;
        follow(told.id);
      }
      if (told?.state === "ended" && (before === "running" || before === "starting")) ctx.say(`${noun} ${told.id}: ${told.status}`);
      show();
    });
  }

  async function press() {
    if (under_way()) return;
    [sending, error] = [true, null];
    ctx.say(`The ${noun} begins.`);
    show();
    try {
      const done = await ctx.ask("press", { id: ctx.value });
      if (done.id) ctx.value = done.id;
      // until it is told how it goes
      told = { state: "starting", id: "", status: "", words: "" };
      stop?.();
      stop = null;
      follow(ctx.value);
    } catch (problem) {
      error = problem;
    }
    sending = false;
    show();
  }

  function show() {
    const busy = under_way();
    const status = busy && !told?.status ? "starting" : told?.status;
    draw(el, h("div", { class: "cr-press-line" },
      button(words || noun, press, { kind: "primary", disabled: busy, key: "press", title: about, "aria-busy": String(busy) }),
      h("span", { class: "cr-press-told", key: "told" },
        status ? [badge(icons[status] ?? status, status), " ", told?.words ? h("span", {}, told.words) : null, " ", told?.id ? h("span", { class: "cr-mono cr-soft" }, told.id) : null] : null)),
    error ? problem(error) : null);
  }

  show();
  return {
    el,
    open(args) {
      [words, about] = [args.words ?? words, args.about ?? about];
      follow(ctx.value);
      show();
    },
    chosen(value) { follow(value); },
    close() { stop?.(); },
  };
}
