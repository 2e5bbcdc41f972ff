// A calendar of ticks: months of days, each coloured and lettered by state, and a range of days that
// is picked by mouse (drag, shift) or by keyboard (arrows, shift, Page Up and Down, Home, End).
// A month is a grid; one day of all months can be reached with Tab.

const WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];

// days are text, 2025-03-01, and are counted in UTC: no clock of the browser's jumps among them
const days = {
  date: (day) => new Date(`${day}T00:00:00Z`),
  text: (date) => date.toISOString().slice(0, 10),
  plus: (day, number) => days.text(new Date(days.date(day).getTime() + number * 86400000)),
  weekday: (day) => (days.date(day).getUTCDay() + 6) % 7,
  month: (day) => day.slice(0, 7),
  /** The last day of a month. */
  last: (month) => days.text(new Date(Date.UTC(Number(month.slice(0, 4)), Number(month.slice(5, 7)), 0))),
  shift: (month, number) => days.text(new Date(Date.UTC(Number(month.slice(0, 4)), Number(month.slice(5, 7)) - 1 + number, 1))).slice(0, 7),
  /** The same day of another month, or that month's last. */
  same(day, months) {
    const last = days.last(days.shift(days.month(day), months));
    const same = `${days.month(last)}-${day.slice(8)}`;
    return same < last ? same : last;
  },
  words: (day) => `${WEEKDAYS[days.weekday(day)]}, ${Number(day.slice(8))} ${days.title(days.month(day))}`,
  title: (month) => `${MONTHS[Number(month.slice(5, 7)) - 1]} ${month.slice(0, 4)}`,
};

class Calendar {
  /**
   * @param pick  is given the range that a person has picked: [first, last], or [] for none
   * @param go    is given the first month that a person wants to see
   * @param signal  ends it
   */
  constructor({ pick, go, signal }) {
    Object.assign(this, { pick, go });
    this.shown = { first: "", months: 0, days: {}, legend: [], today: days.text(new Date()), range: [], label: "", busy: false };
    this.cells = new Map();
    this.anchor = "";
    this.current = "";
    this.dragging = false;
    this.heading = h("span", { class: "cr-cal-label cr-soft" });
    this.busy = h("span", { class: "cr-soft" }, "looking …");
    const step = (words, label, months) => button(words, () => this.go(days.shift(this.shown.first, months())), { title: label, "aria-label": label });
    this.months = h("div", { class: "cr-cal-months", onpointerdown: (event) => this.press(event), onpointermove: (event) => this.drag(event), onkeydown: (event) => this.type(event) });
    this.legend = h("ul", { class: "cr-cal-legend", "aria-label": "What the letters mean" });
    this.el = h("div", { class: "cr-cal", "data-fixed": "1", role: "group", "aria-label": "Calendar of ticks" },
      h("div", { class: "cr-cal-bar", role: "group", "aria-label": "Months" },
        step("«", "Earlier months", () => -this.shown.months), step("‹", "One month earlier", () => -1),
        button("Today", () => this.go(days.shift(days.month(this.shown.today), 1 - this.shown.months))),
        step("›", "One month later", () => 1), step("»", "Later months", () => this.shown.months), this.heading, this.busy),
      this.months, this.legend);
    // a drag may end outside
    window.addEventListener("pointerup", () => this.drop(true), { signal });
    window.addEventListener("pointercancel", () => this.drop(false), { signal });
    window.addEventListener("blur", () => this.drop(false), { signal });
  }

  /** Show what has changed: first, months, days, legend, today, range, label, busy. */
  update(more) {
    const { first, months } = this.shown;
    Object.assign(this.shown, more);
    this.heading.textContent = this.shown.label;
    this.busy.hidden = !this.shown.busy;
    if (this.shown.first && (first !== this.shown.first || months !== this.shown.months)) this.build();
    this.paint();
    if (!this.dragging) this.mark(this.shown.range);
  }

  build() {
    const focused = this.months.contains(this.el.getRootNode().activeElement) && Boolean(this.current);
    const shown = Array.from({ length: this.shown.months }, (_, place) => days.shift(this.shown.first, place));
    this.cells.clear();
    this.months.replaceChildren(...shown.map((month) => this.month(month)));
    if (!this.cells.has(this.current)) {
      this.current = [this.shown.range[0], this.shown.today].find((day) => this.cells.has(day)) ?? `${shown[0]}-01`;
    }
    this.rove(this.current, focused);
  }

  month(month) {
    const rows = [];
    const end = days.last(month);
    for (let day = days.plus(`${month}-01`, -days.weekday(`${month}-01`)); day <= end; day = days.plus(day, 7)) {
      const week = Array.from({ length: 7 }, (_, place) => days.plus(day, place));
      rows.push(h("tr", { role: "row" }, week.map((one) => (days.month(one) === month ? this.cell(one) : h("td", { role: "gridcell" })))));
    }
    const title = days.title(month);
    return h("div", { class: "cr-cal-month" },
      h("button", { type: "button", class: "cr-cal-title", title: `Pick ${title}`, onclick: () => this.choose(`${month}-01`, end) }, title),
      h("table", { role: "grid", "aria-label": title, "aria-multiselectable": "true" },
        h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, WEEKDAYS.map((day) => h("th", { scope: "col", role: "columnheader", abbr: day }, day.slice(0, 2))))),
        h("tbody", { role: "rowgroup" }, rows)));
  }

  cell(day) {
    const made = h("td", { role: "gridcell", tabindex: -1, "data-day": day }, h("span", { class: "cr-cal-number" }, Number(day.slice(8))),
      h("span", { class: "cr-cal-letter" }), h("span", { class: "cr-cal-jump" }), h("span", { class: "cr-cal-parts" }));
    this.cells.set(day, made);
    return made;
  }

  paint() {
    const { legend, today } = this.shown;
    const letters = new Map(legend.map(([state, letter]) => [state, letter]));
    for (const [day, cell] of this.cells) {
      const found = this.shown.days[day] ?? {};
      const [, letter, jump, parts] = cell.children;
      cell.dataset.state = found.state ?? "none";
      letter.textContent = letters.get(found.state) ?? "";
      jump.textContent = found.mark ?? "";
      const counts = Object.entries(found.counts ?? {});
      draw(parts, counts.length > 1 ? counts.map(([state, number]) => h("span", { "data-state": state, style: { "flex-grow": number } })) : null);
      cell.title = `${days.words(day)}: ${found.words ?? "no tick"}`;
      cell.setAttribute("aria-label", cell.title);
      if (day === today) cell.setAttribute("aria-current", "date");
      else cell.removeAttribute("aria-current");
    }
    draw(this.legend, legend.map(([state, letter, words]) => h("li", { key: state }, h("span", { class: "cr-cal-key", "data-state": state, "aria-hidden": "true" }, letter), words)));
  }

  // --- the range ------------------------------------------------------------------------------

  mark([first, last]) {
    for (const [day, cell] of this.cells) cell.setAttribute("aria-selected", String(Boolean(first) && day >= first && day <= last));
  }

  choose(one, other) {
    const range = one <= other ? [one, other] : [other, one];
    this.shown.range = range;
    this.mark(range);
    this.pick(range);
  }

  /** The day under the pointer: one that is held keeps its target. */
  under(event) {
    const found = this.el.getRootNode().elementFromPoint(event.clientX, event.clientY)?.closest("td[data-day]");
    return found && this.months.contains(found) ? found.dataset.day : "";
  }

  press(event) {
    const day = event.button === 0 ? this.under(event) : "";
    if (!day) return;
    event.preventDefault();
    if (event.target.hasPointerCapture?.(event.pointerId)) event.target.releasePointerCapture(event.pointerId);
    if (!event.shiftKey || !this.anchor) this.anchor = day;
    this.dragging = true;
    this.reach(day);
  }

  drag(event) {
    const day = this.dragging ? this.under(event) : "";
    if (day && day !== this.current) this.reach(day);
  }

  reach(day) {
    this.rove(day, true);
    this.mark([this.anchor, day].sort());
  }

  drop(keep) {
    if (!this.dragging) return;
    this.dragging = false;
    if (keep) this.choose(this.anchor, this.current);
    else this.mark(this.shown.range);
  }

  type(event) {
    const day = event.target.dataset?.day;
    if (!day || event.altKey || event.ctrlKey || event.metaKey) return;
    const moves = {
      ArrowLeft: () => days.plus(day, -1), ArrowRight: () => days.plus(day, 1), ArrowUp: () => days.plus(day, -7), ArrowDown: () => days.plus(day, 7),
      Home: () => days.plus(day, -days.weekday(day)), End: () => days.plus(day, 6 - days.weekday(day)),
      PageUp: () => days.same(day, -1), PageDown: () => days.same(day, 1),
    };
    if (event.key === "Enter" || event.key === " ") {
      if (!event.shiftKey || !this.anchor) this.anchor = day;
      this.choose(this.anchor, day);
    } else if (event.key === "Escape" && (this.dragging || this.shown.range.length)) {
      Object.assign(this, { dragging: false, anchor: "" });
      this.shown.range = [];
      this.mark([]);
      this.pick([]);
    } else if (moves[event.key]) {
      const to = moves[event.key]();
      this.anchor = event.shiftKey ? this.anchor || day : "";
      this.bring(to);
      this.rove(to, true);
      if (event.shiftKey) this.choose(this.anchor, to);
    } else {
      return;
    }
    // the notebook has keys of its own
    event.preventDefault();
    event.stopPropagation();
  }

  /** The first month with which a day is among those that are shown; "" where it is. */
  first_for(day) {
    if (this.cells.has(day)) return "";
    const month = days.month(day);
    return month < this.shown.first ? month : days.shift(month, 1 - this.shown.months);
  }

  /** Have a day among those that are shown. */
  bring(day) {
    const first = this.first_for(day);
    if (!first) return;
    this.update({ first, days: {} });
    this.go(first);
  }

  rove(day, focus) {
    this.cells.get(this.current)?.setAttribute("tabindex", "-1");
    this.current = day;
    const cell = this.cells.get(day);
    cell?.setAttribute("tabindex", "0");
    if (focus) cell?.focus({ preventScroll: true });
  }
}
