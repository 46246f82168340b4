// <time-chart src|data kind unit label>: what changed over time. Drawn by uPlot; the table that the server wrote beside it says the same without script.
//
// data: {step_minutes, zone, times: [s], series: [{name, color, values}], errors?: [n]}, as `charts.Chart` writes it; src: where the same is had.
// every: seconds after which it asks again, where it has a src. Dragging sets the page's range, a double click goes back.
import uPlot from "../vendor/uplot.js";
import { say, sayTotal } from "./chart-words.js";

const HEIGHT_PX = 200;
const STRIP_PX = 34;
const AXIS_PX = 56;
const FILL = 0.13;
const TOKENS = ["series-1", "series-2", "series-3", "series-4", "series-5", "series-6", "series-other", "chart-line", "chart-text", "chart-bad"];
const SWITCHED = "dw:theme";

function wearStyles() {
  const href = new URL("../vendor/uplot.css", import.meta.url).href;
  if (document.querySelector(`link[href="${href}"]`)) return;
  const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href });
  // Before our own sheet, which has the last word.
  document.head.prepend(link);
}

// Colours as the theme has them now: registered properties compute to rgb(), which a canvas can read.
function palette(element) {
  const style = getComputedStyle(element);
  return Object.fromEntries(TOKENS.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

const faint = (color) => color.replace("rgb(", "rgba(").replace(")", `, ${FILL})`);

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Each series on top of those after it: the first is the uppermost line.
function stacked(series) {
  const sums = new Array(series[0]?.values.length ?? 0).fill(0);
  return series.map((one) => one.values).reverse().map((values) => values.map((value, at) => (sums[at] += value ?? 0))).reverse();
}

const written = (seconds) => new Date(seconds * 1000).toISOString().replace(/\.\d+/, "");

// The chart in which a pointer went down: linked charts follow its selection, and only this one acts on it.
let dragged = null;

class TimeChart extends HTMLElement {
  #plots = [];
  #chart = null;
  #ticker = 0;
  #asked = null;
  #watched = new ResizeObserver(() => this.#fit());
  #repaint = () => {
    this.#colors = palette(this);
    this.#plots.forEach((plot) => plot.redraw(false));
  };
  #colors = {};

  connectedCallback() {
    wearStyles();
    this.querySelector(":scope > .chart")?.remove();
    this.#frame();
    document.addEventListener(SWITCHED, this.#repaint);
    if (this.dataset.points) this.#show(JSON.parse(this.dataset.points));
    else this.#load();
    const every = Number(this.getAttribute("every"));
    if (every && this.hasAttribute("src")) this.#ticker = setInterval(() => this.#again(), every * 1000);
  }

  disconnectedCallback() {
    clearInterval(this.#ticker);
    document.removeEventListener(SWITCHED, this.#repaint);
    this.#asked?.abort();
    this.#clear();
  }

  get unit() {
    return this.getAttribute("unit") ?? "calls";
  }

  get isStacked() {
    return this.getAttribute("kind") !== "line";
  }

  #frame() {
    const frame = make("div", "chart");
    this.legend = make("ul", "chart-legend");
    this.plot = make("div", "chart-plot");
    this.plot.tabIndex = 0;
    this.plot.setAttribute("role", "group");
    this.plot.setAttribute("aria-label", `${this.getAttribute("label") ?? "Chart"}: arrow keys read the values`);
    this.plot.addEventListener("pointerdown", () => (dragged = this), { capture: true });
    this.plot.addEventListener("keydown", (event) => this.#step(event));
    this.note = make("p", "chart-note muted", "Loading");
    this.spoken = make("p", "visually-hidden");
    this.spoken.setAttribute("aria-live", "polite");
    frame.append(this.legend, this.plot, this.note, this.spoken);
    this.prepend(frame);
  }

  async #load() {
    this.#asked?.abort();
    const asked = (this.#asked = new AbortController());
    try {
      const answer = await fetch(this.getAttribute("src"), { signal: asked.signal, headers: { Accept: "application/json" } });
      // A sign-in that has ended answers with the page to sign in.
      if (!answer.ok || answer.redirected) throw new Error(`HTTP ${answer.status}`);
      this.#show(await answer.json());
    } catch (error) {
      if (error.name !== "AbortError") this.#fail();
    }
  }

  // Not while somebody reads it, and not where nobody does.
  #again() {
    if (!document.hidden && !this.matches(":hover, :focus-within")) this.#load();
  }

  #fail() {
    this.plot.classList.add("failed");
    const retry = make("button", "quiet small", "Try again");
    retry.type = "button";
    retry.addEventListener("click", () => this.#load());
    this.note.hidden = false;
    this.note.replaceChildren(make("span", "", "The chart could not be loaded. "), retry);
  }

  #show(chart) {
    this.#clear();
    this.#chart = chart;
    this.#colors = palette(this);
    this.plot.classList.remove("failed");
    const isEmpty = !chart.times.length || ![...chart.series.map((one) => one.values), chart.errors ?? []].some((values) => values.some(Boolean));
    this.note.hidden = !isEmpty;
    this.note.textContent = isEmpty ? "Nothing in this time" : "";
    this.plot.hidden = this.legend.hidden = isEmpty;
    if (isEmpty) return;
    this.#list();
    this.#plots = [this.#main()];
    if (chart.errors?.some(Boolean)) this.#plots.push(this.#strip());
    this.#watched.observe(this.plot);
  }

  #clear() {
    this.#watched.disconnect();
    this.#plots.forEach((plot) => plot.destroy());
    this.#plots = [];
  }

  #base(height) {
    const chart = this.#chart;
    const zoned = (seconds) => uPlot.tzDate(new Date(seconds * 1000), chart.zone);
    return {
      width: Math.max(this.plot.clientWidth, 120),
      height,
      tzDate: zoned,
      legend: { show: false },
      padding: [8, 8, 0, 0],
      cursor: {
        y: false,
        sync: { key: "page" },
        drag: { x: true, y: false, setScale: false },
        points: { size: 6 },
        bind: { dblclick: () => () => this.#back() },
      },
      hooks: {
        setCursor: [(plot) => this.#tell(plot.cursor.idx)],
        setSelect: [(plot) => this.#brush(plot)],
      },
      scales: { x: { time: true }, y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.08 : 1] } },
    };
  }

  #main() {
    const { times, series } = this.#chart;
    const drawn = this.isStacked ? stacked(series) : series.map((one) => one.values);
    const color = (one) => this.#colors[one.color] ?? this.#colors["series-other"];
    const options = {
      ...this.#base(HEIGHT_PX),
      axes: [
        {
          stroke: () => this.#colors["chart-text"],
          grid: { show: false },
          ticks: { show: false },
          font: "11px Inter, sans-serif",
          space: 72,
          size: 28,
          values: (_plot, marks) => this.#marks(marks),
        },
        {
          stroke: () => this.#colors["chart-text"],
          grid: { stroke: () => this.#colors["chart-line"], width: 1 },
          ticks: { show: false },
          font: "11px Inter, sans-serif",
          space: 36,
          size: AXIS_PX,
          values: (_plot, marks) => marks.map((value) => say(value, this.unit)),
        },
      ],
      series: [
        {},
        ...series.map((one) => ({
          label: one.name,
          width: 1.25,
          stroke: () => color(one),
          fill: this.isStacked ? () => faint(color(one)) : undefined,
          // A value between two times of which nothing is known is on no line.
          points: { show: !this.isStacked, size: 4, width: 1, stroke: () => color(one), fill: () => color(one), filter: (plot, at) => lone(plot.data[at]) },
        })),
      ],
      bands: this.isStacked ? series.slice(1).map((_one, at) => ({ series: [at + 1, at + 2] })) : [],
    };
    return new uPlot(options, [times, ...drawn], this.plot);
  }

  // Errors would not be seen as a sliver of all calls: they have a strip of their own.
  #strip() {
    const bad = () => this.#colors["chart-bad"];
    const options = {
      ...this.#base(STRIP_PX),
      padding: [4, 8, 2, 0],
      axes: [
        { show: false },
        {
          stroke: bad,
          grid: { show: false },
          ticks: { show: false },
          font: "11px Inter, sans-serif",
          size: AXIS_PX,
          splits: (_plot, _axis, _low, high) => [high / 1.08],
          values: (_plot, marks) => marks.map((value) => say(Math.round(value), "calls")),
        },
      ],
      series: [{}, { label: "Errors", stroke: bad, fill: bad, width: 0, paths: uPlot.paths.bars({ size: [0.9, 12], align: 1 }), points: { show: false } }],
    };
    return new uPlot(options, [this.#chart.times, this.#chart.errors], this.plot);
  }

  #list() {
    const rows = this.#chart.series.map((one) => [one.name, one.color, one.values, this.unit]);
    if (this.#chart.errors?.some(Boolean)) rows.push(["Errors", "chart-bad", this.#chart.errors, "calls"]);
    this.when = make("li", "muted");
    this.values = rows.map(([name, color, values, unit]) => {
      const item = make("li");
      const value = make("b");
      item.append(make("i", `swatch ${color}`), make("span", "cut", name), value);
      return { item, value, name, values, unit };
    });
    this.legend.replaceChildren(this.when, ...this.values.map((one) => one.item));
    this.#tell(null);
  }

  // The values of one time, or what they come to where no time is pointed at.
  #tell(at) {
    if (!this.values) return;
    const none = at === null || at === undefined;
    this.when.textContent = none ? (this.values.some((one) => sayTotal(one.values, one.unit)) ? "In all" : "Point at a time") : this.#moment(at);
    for (const one of this.values) one.value.textContent = none ? sayTotal(one.values, one.unit) : say(one.values[at], one.unit);
  }

  // 18:00, and the day where one begins.
  #marks(marks) {
    const { zone } = this.#chart;
    const hour = new Intl.DateTimeFormat("en-GB", { timeZone: zone, hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    const day = new Intl.DateTimeFormat("en-GB", { timeZone: zone, day: "numeric", month: "short" });
    return marks.map((mark) => {
      const text = hour.format(mark * 1000);
      return text === "00:00" ? day.format(mark * 1000) : text;
    });
  }

  #moment(at) {
    const { times, zone, step_minutes: step } = this.#chart;
    const asked = { timeZone: zone, day: "numeric", month: "short", hourCycle: "h23" };
    if (step < 1440) Object.assign(asked, { hour: "2-digit", minute: "2-digit" });
    return new Intl.DateTimeFormat("en-GB", asked).format(times[at] * 1000);
  }

  #step(event) {
    const plot = this.#plots[0];
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
    if (!plot || !(event.key in moves)) return;
    event.preventDefault();
    const last = this.#chart.times.length - 1;
    const now = plot.cursor.idx ?? (moves[event.key] > 0 ? -1 : last + 1);
    const at = Math.min(Math.max(now + moves[event.key], 0), last);
    plot.setCursor({ left: plot.valToPos(this.#chart.times[at], "x"), top: 10 });
    this.#tell(at);
    this.spoken.textContent = `${this.#moment(at)}: ${this.values.map((one) => `${one.name} ${say(one.values[at], one.unit)}`).join(", ")}`;
  }

  // The buckets that were dragged over become the page's range.
  #brush(plot) {
    if (dragged !== this || plot.select.width < 4) return;
    const { times, step_minutes: step } = this.#chart;
    const [first, last] = [plot.select.left, plot.select.left + plot.select.width].map((left) => plot.posToIdx(left));
    const until = times[last + 1] ?? times[last] + step * 60;
    this.#go(`${written(times[first])}..${written(until)}`);
  }

  #go(range) {
    const here = new URL(location.href);
    here.searchParams.delete("after");
    if (range) here.searchParams.set("range", range);
    else here.searchParams.delete("range");
    location.assign(here.href.replaceAll("%3A", ":"));
  }

  // To where the range was before it was drawn; an address that was opened as it is goes to the usual range.
  #back() {
    const range = new URL(location.href).searchParams.get("range") ?? "";
    if (!range.includes("..")) return;
    if (document.referrer && new URL(document.referrer).pathname === location.pathname) history.back();
    else this.#go(null);
  }

  #fit() {
    const width = Math.max(this.plot.clientWidth, 120);
    for (const plot of this.#plots) if (plot.width !== width) plot.setSize({ width, height: plot.height });
  }
}

const lone = (values) => values.flatMap((value, at) => ((value ?? null) !== null && (values[at - 1] ?? null) === null && (values[at + 1] ?? null) === null ? [at] : []));

customElements.define("time-chart", TimeChart);
