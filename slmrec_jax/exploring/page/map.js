"use strict";

// The map of items: points of a sample, and above them the items that the page shows at the moment.

const map = { points: null, marks: [], run: null, canvas: document.getElementById("map") };
const REACH = 14; // how near to a point the pointer must be, in pixels
const MARGIN = 12;

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function placeOf(x, y) {
  const size = map.canvas.clientWidth - 2 * MARGIN;
  return [MARGIN + x * size, MARGIN + (1 - y) * size];
}

function dot(context, x, y, radius, fill, ring) {
  const [left, top] = placeOf(x, y);
  context.beginPath();
  context.arc(left, top, radius, 0, 2 * Math.PI);
  if (ring) {
    context.lineWidth = 2.5;
    context.strokeStyle = fill;
    context.stroke();
  } else {
    context.fillStyle = fill;
    context.fill();
  }
}

function drawMap() {
  const size = map.canvas.clientWidth;
  const sharpness = window.devicePixelRatio || 1;
  if (!size) return;
  map.canvas.width = map.canvas.height = Math.round(size * sharpness);
  const context = map.canvas.getContext("2d");
  context.scale(sharpness, sharpness);
  context.clearRect(0, 0, size, size);
  if (map.points) {
    const { x, y } = map.points;
    const fill = color("--point");
    const radius = x.length > 3000 ? 1.3 : 2;
    context.globalAlpha = 0.6;
    for (let place = 0; place < x.length; place++) dot(context, x[place], y[place], radius, fill);
    context.globalAlpha = 1;
  }
  for (const mark of map.marks) {
    const [x, y] = mark.item.at[map.run];
    dot(context, x, y, mark.ring ? 8 : 4, color(mark.color), mark.ring);
  }
}

// Return the row and the label of the item nearest to a place of the canvas, or null.
function nearest(left, top) {
  let found = null;
  let least = REACH * REACH;
  const offer = (x, y, row, label) => {
    const [pointLeft, pointTop] = placeOf(x, y);
    const distance = (pointLeft - left) ** 2 + (pointTop - top) ** 2;
    if (distance < least) {
      least = distance;
      found = { row, label, left: pointLeft, top: pointTop };
    }
  };
  for (const { item } of [...map.marks].reverse()) offer(...item.at[map.run], item.row, nameOf(item));
  if (map.points) {
    const { x, y, rows, labels } = map.points;
    for (let place = 0; place < x.length; place++) offer(x[place], y[place], rows[place], labels[place]);
  }
  return found;
}

function hoverMap(event) {
  const box = map.canvas.getBoundingClientRect();
  const found = nearest(event.clientX - box.left, event.clientY - box.top);
  const hover = document.getElementById("hover");
  hover.hidden = !found;
  map.canvas.style.cursor = found ? "pointer" : "default";
  if (!found) return null;
  hover.textContent = found.label;
  const isRight = found.left > box.width / 2;
  hover.style.left = isRight ? "auto" : `${found.left + 12}px`;
  hover.style.right = isRight ? `${box.width - found.left + 12}px` : "auto";
  hover.style.top = `${Math.max(0, found.top - 12)}px`;
  return found;
}

async function loadMap(run, names, isCurrent) {
  const points = await ask("map", { run });
  if (!isCurrent()) return; // another choice was made meanwhile
  Object.assign(map, { run, points });
  const choice = document.getElementById("map-choice");
  choice.replaceChildren(
    ...(names.length < 2 ? [] : names.map((name, place) =>
      make("button", { type: "button", "aria-pressed": String(place === run), onclick: () => go({ map: place }) }, name),
    )),
  );
  const share = map.points.shares.reduce((total, each) => total + each, 0);
  const count = map.points.rows.length;
  const sampled = count < page.about.items ? `A sample of ${count.toLocaleString("en")} items. ` : "";
  document.getElementById("map-note").textContent =
    `${sampled}First two principal components of the trained rows, ${(100 * share).toFixed(0)} % of their variance. ` +
    "Items that are close here may be far apart in other dimensions.";
  drawMap();
}

map.canvas.addEventListener("mousemove", hoverMap);
map.canvas.addEventListener("mouseleave", () => { document.getElementById("hover").hidden = true; });
map.canvas.addEventListener("click", (event) => {
  const found = hoverMap(event);
  if (found) go({ item: found.row });
});
window.addEventListener("resize", drawMap);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
