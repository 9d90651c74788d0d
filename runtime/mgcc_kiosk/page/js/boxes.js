// Geometry of boxes: xyxy in pixels of the picture, whose sides are `width` and `height`. No elements in here.

const LEAST = 0.16; // of the picture's side: what the model draws smaller is a blot
const MOST = 0.8;
const COLUMNS = ["left", "centre", "right"];

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);
const tenth = (value) => Math.round(value * 10) / 10;

/** The box with its corner at x, y, as far as the picture reaches. */
export function placed(box, x, y, { width, height }) {
  const [x1, y1, x2, y2] = box.xyxy;
  const left = clamp(x, 0, width - (x2 - x1));
  const top = clamp(y, 0, height - (y2 - y1));
  return { ...box, xyxy: [tenth(left), tenth(top), tenth(left + x2 - x1), tenth(top + y2 - y1)] };
}

export function movedBy(box, dx, dy, size) {
  return placed(box, box.xyxy[0] + dx, box.xyxy[1] + dy, size);
}

/** The box with another right and bottom edge. */
export function sizedTo(box, right, bottom, { width, height }) {
  const [x1, y1] = box.xyxy;
  const x2 = clamp(right, x1 + LEAST * width, Math.min(width, x1 + MOST * width));
  const y2 = clamp(bottom, y1 + LEAST * height, Math.min(height, y1 + MOST * height));
  return placed({ ...box, xyxy: [x1, y1, x2, y2] }, x1, y1, { width, height });
}

/** The box `factor` times as large, about its centre. */
export function scaledBy(box, factor, { width, height }) {
  const [x1, y1, x2, y2] = box.xyxy;
  const least = Math.max((LEAST * width) / (x2 - x1), (LEAST * height) / (y2 - y1));
  const most = Math.min((MOST * width) / (x2 - x1), (MOST * height) / (y2 - y1));
  const by = least < most ? clamp(factor, least, most) : 1;
  const [w, h] = [(x2 - x1) * by, (y2 - y1) * by];
  const [cx, cy] = [(x1 + x2) / 2, (y1 + y2) / 2];
  return placed({ ...box, xyxy: [0, 0, w, h] }, cx - w / 2, cy - h / 2, { width, height });
}

/** The name of the picture's ninth that holds the box's centre. */
export function cellOf(box, { width, height }) {
  const [x1, y1, x2, y2] = box.xyxy;
  const column = clamp(Math.floor(((x1 + x2) / 2 / width) * 3), 0, 2);
  const row = clamp(Math.floor(((y1 + y2) / 2 / height) * 3), 0, 2);
  if (row === 1) return COLUMNS[column];
  const name = row === 0 ? "top" : "bottom";
  return column === 1 ? name : `${name}-${COLUMNS[column]}`;
}

export const sameBoxes = (a, b) =>
  a.length === b.length && a.every((box, i) => box.id === b[i].id && box.xyxy.every((v, k) => v === b[i].xyxy[k]));
