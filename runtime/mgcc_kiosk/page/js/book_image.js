// A story as one PNG: pages in two columns on paper, words under each picture, the credit at the foot.

const WIDTH = 1600;
const MARGIN = 90;
const GAP = 60;
const SIDE = (WIDTH - 2 * MARGIN - GAP) / 2; // of a picture
const LINE = 44;
const INK = "#332b44";
const FONT = "Nunito, Quicksand, Cantarell, 'Noto Sans', system-ui, sans-serif";

/** `pages` are [{address, text}]; the promise gives a PNG's blob. */
export async function bookImage(pages, { title, lines }) {
  const canvas = document.createElement("canvas");
  const draw = canvas.getContext("2d");
  draw.font = `32px ${FONT}`;
  const laid = pages.map((page) => ({ ...page, rows: wrapped(draw, page.text, SIDE - 20) }));
  const heights = rowHeights(laid);
  canvas.width = WIDTH;
  canvas.height = MARGIN + 120 + heights.reduce((sum, height) => sum + height, 0) + lines.length * LINE + MARGIN;
  paper(draw, canvas);
  draw.fillStyle = INK;
  draw.textAlign = "center";
  draw.font = `bold 64px ${FONT}`;
  draw.fillText(title, WIDTH / 2, MARGIN + 50);
  let top = MARGIN + 120;
  for (let row = 0; row < heights.length; row += 1) {
    const pair = laid.slice(2 * row, 2 * row + 2);
    const left = pair.length === 1 ? (WIDTH - SIDE) / 2 : MARGIN; // the last one alone stands in the middle
    for (const [k, page] of pair.entries()) await drawPage(draw, page, left + k * (SIDE + GAP), top);
    top += heights[row];
  }
  draw.textAlign = "center";
  draw.font = `26px ${FONT}`;
  lines.forEach((text, k) => draw.fillText(text, WIDTH / 2, top + 30 + k * LINE));
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function rowHeights(laid) {
  const heights = [];
  for (let k = 0; k < laid.length; k += 2) {
    const most = Math.max(...laid.slice(k, k + 2).map(({ rows }) => rows.length));
    heights.push(SIDE + 30 + most * LINE + GAP);
  }
  return heights;
}

function paper(draw, { width, height }) {
  draw.fillStyle = "#fff4df";
  draw.fillRect(0, 0, width, height);
  draw.strokeStyle = INK;
  draw.lineWidth = 8;
  draw.strokeRect(30, 30, width - 60, height - 60);
}

async function drawPage(draw, { address, rows }, x, y) {
  const picture = new Image();
  picture.src = address;
  await picture.decode();
  draw.imageSmoothingQuality = "high";
  draw.drawImage(picture, x, y, SIDE, SIDE);
  draw.strokeStyle = INK;
  draw.lineWidth = 6;
  draw.strokeRect(x, y, SIDE, SIDE);
  draw.fillStyle = INK;
  draw.textAlign = "left";
  draw.font = `32px ${FONT}`;
  rows.forEach((row, k) => draw.fillText(row, x + 10, y + SIDE + 50 + k * LINE));
}

function wrapped(draw, text, width) {
  const rows = [""];
  for (const word of text.split(/\s+/)) {
    const longer = rows.at(-1) ? `${rows.at(-1)} ${word}` : word;
    if (draw.measureText(longer).width <= width) rows[rows.length - 1] = longer;
    else rows.push(word);
  }
  return rows.filter(Boolean);
}
