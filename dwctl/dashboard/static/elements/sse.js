// Server-sent events out of a byte stream: what a fetch's body gives, as the data of one event after the other.
const MOST_CHARS = 16 * 1024 * 1024;

// Takes pieces of text in any cut and gives the data of the events that are complete. Comments and empty events are nothing.
export class EventReader {
  #rest = "";

  push(text) {
    const found = [];
    this.#rest += text;
    if (this.#rest.length > MOST_CHARS) throw new Error("an event of the stream is too long");
    for (;;) {
      const end = /\r\n\r\n|\n\n|\r\r/.exec(this.#rest);
      if (!end) return found;
      const data = dataOf(this.#rest.slice(0, end.index));
      this.#rest = this.#rest.slice(end.index + end[0].length);
      if (data !== null) found.push(data);
    }
  }
}

function dataOf(event) {
  const lines = event.split(/\r\n|\n|\r/).filter((line) => line.startsWith("data:"));
  return lines.length ? lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n") : null;
}

export async function* eventsOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  const events = new EventReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* events.push(value);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
