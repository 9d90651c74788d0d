// Pictures as blobs: each address that is made is also given back, or a kiosk's memory grows for weeks.

const open = new Set();

/** An address for a data URL's or a blob's picture. */
export function addressOf(source) {
  const blob = typeof source === "string" ? blobOf(source) : source;
  const address = URL.createObjectURL(blob);
  open.add(address);
  return address;
}

export function release(address) {
  if (address && open.delete(address)) URL.revokeObjectURL(address);
}

export function releaseAll() {
  for (const address of [...open]) release(address);
}

/** How many pictures are held. */
export const held = () => open.size;

function blobOf(dataUrl) {
  const [head, body] = dataUrl.split(",", 2);
  const bytes = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: head.slice(5).split(";")[0] });
}
