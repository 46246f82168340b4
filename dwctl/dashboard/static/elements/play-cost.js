// What a call costs by a tariff, exactly: prices are decimals as texts, tokens whole numbers.
const PLACES = 18;

function units(price) {
  const [whole, part = ""] = String(price).split(".");
  return BigInt(whole + part.slice(0, PLACES).padEnd(PLACES, "0"));
}

// USD as a text without trailing zeros; null without a tariff. usage: {prompt, completion, cached, reasoning}.
export function cost(tariff, usage) {
  if (!tariff) return null;
  const cached = Math.min(usage.cached ?? 0, usage.prompt);
  const reasoning = Math.min(usage.reasoning ?? 0, usage.completion);
  const sum =
    BigInt(usage.prompt - cached) * units(tariff.input) +
    BigInt(cached) * units(tariff.cached ?? tariff.input) +
    BigInt(usage.completion - reasoning) * units(tariff.output) +
    BigInt(reasoning) * units(tariff.reasoning ?? tariff.output);
  const digits = sum.toString().padStart(PLACES + 1, "0");
  const part = digits.slice(-PLACES).replace(/0+$/, "");
  return digits.slice(0, -PLACES) + (part ? `.${part}` : "");
}

// USD for people: two digits that count, all of them on hover.
export function money(text) {
  const value = Number(text);
  if (!value) return "$0";
  const digits = value >= 1 ? 2 : Math.min(12, 2 - Math.floor(Math.log10(value)));
  return `$${value.toFixed(digits).replace(/(\.\d\d+?)0+$/, "$1")}`;
}

// About four bytes of text are a token, as the gateway counts where nobody tells.
export const guessed = (text) => Math.ceil(new TextEncoder().encode(text).length / 4);
