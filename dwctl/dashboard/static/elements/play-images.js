// Pictures of a message: taken from files, the clipboard or an address; those of other hosts are named, never loaded.
import { button, element } from "./dom.js";

const KINDS = ["image/png", "image/jpeg", "image/gif", "image/webp"];
const MOST_BYTES = 4 * 1024 * 1024;
const LONGEST_SIDE = 2048;
export const MOST_IMAGES = 8;

// A file as a data URL; a large one made smaller. Raises Error with what to say.
export async function asDataUrl(file) {
  if (!KINDS.includes(file.type)) throw new Error(`${file.name || "This"} is no picture that models read: PNG, JPEG, GIF or WebP.`);
  if (file.size <= MOST_BYTES) return read(file);
  const smaller = await shrunk(file);
  if (smaller.size > MOST_BYTES) throw new Error(`${file.name} is too large: at most 4 MB.`);
  return read(smaller);
}

function read(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("The file could not be read."));
    reader.readAsDataURL(blob);
  });
}

async function shrunk(file) {
  const picture = await createImageBitmap(file);
  const scale = Math.min(1, LONGEST_SIDE / Math.max(picture.width, picture.height));
  const canvas = element("canvas", { width: Math.round(picture.width * scale), height: Math.round(picture.height * scale) });
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
}

export const filesOf = (transfer) => [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));

// What a replayed call names as a picture may be anything that its caller wrote: only what is an address of the web becomes a link.
function named(url, place) {
  if (url.startsWith("data:image/")) return element("img", { src: url, alt: `Image ${place + 1}` });
  if (/^https?:\/\//i.test(url)) return element("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow" }, url);
  return element("code", {}, url);
}

export function pictures(images, changed) {
  const shown = images.map((url, place) => {
    const picture = named(url, place);
    return element("li", {}, picture, button("Remove", () => changed(images.filter((_, other) => other !== place)), { "aria-label": `Remove image ${place + 1}` }));
  });
  return element("ul.plain.play-images", { hidden: !images.length }, ...shown);
}
