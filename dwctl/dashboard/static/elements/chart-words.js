// How charts write values, as `formatting.py` does for pages.
const NOTHING = "–";
const THIN = "\u202f";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

function compact(value) {
  for (const [step, unit, size] of [[1e9, "B", 1e9], [1e6, "M", 1e6], [1e4, "k", 1e3]]) {
    if (Math.abs(value) >= step) return `${short.format(value / size)}${THIN}${unit}`;
  }
  return value === Math.trunc(value) ? whole.format(value) : short.format(value);
}

// Small sums keep three digits that count.
function money(value) {
  const size = Math.abs(value);
  if (size === 0 || size >= 1) return `$${new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 }).format(value)}`;
  const digits = Math.min(9, Math.max(2, 2 - Math.floor(Math.log10(size))));
  return `$${value.toFixed(digits).replace(/(\.\d\d\d*?)0+$/, "$1")}`;
}

function duration(ms) {
  if (ms < 1000) return `${whole.format(ms)}${THIN}ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)}${THIN}s`;
  return `${short.format(ms / 60_000)}${THIN}min`;
}

const WRITERS = { money, ms: duration };

export function say(value, unit) {
  return value === null || value === undefined ? NOTHING : (WRITERS[unit] ?? compact)(value);
}

// What values come to: a time's length does not add up.
export function sayTotal(values, unit) {
  return unit === "ms" ? "" : say(values.reduce((sum, value) => sum + (value ?? 0), 0), unit);
}
