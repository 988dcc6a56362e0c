// Elements of the page. Text from the data enters them as text nodes and attributes alone, so that markup stays text.

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function nameOf(item) {
  return item.title ? `${item.title} · ${item.id}` : item.id;
}

function itemButton(item) {
  const title = item.title ? [make("span", { class: "clamp" }, item.title), make("span", { class: "clamp id" }, item.id)]
    : [make("span", { class: "clamp" }, item.id)];
  return make("button", { type: "button", title: nameOf(item), onclick: () => go({ item: item.row }) }, ...title);
}

function picture(item) {
  const address = item.picture ? addressOfPicture(item) : null;
  if (!address) return null;
  const image = make("img", { src: address, alt: "", loading: "lazy" });
  image.addEventListener("error", () => image.remove());
  return image;
}

function signed(value) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
}

// Return what each modality contributes: a bar with the number, as long as the largest of the list allows.
function parts(item, largest) {
  const shown = Object.entries(item.parts ?? {}).map(([name, value]) => {
    const fill = make("i", { class: value < 0 ? "less" : "more" });
    fill.style.width = `${(100 * Math.abs(value)) / largest}%`;
    fill.style.background = `var(--part-${page.about.modalities.indexOf(name) % 6})`;
    const label = make("span", { title: name }, name);
    return make("span", { class: "part" }, label, make("span", { class: "bar" }, fill), signed(value));
  });
  return shown.length ? make("span", { class: "parts" }, ...shown) : null;
}

function entry(item, rank, largest, note) {
  const image = picture(item);
  const name = make("span", {}, itemButton(item), note ? make("span", { class: "other" }, ` ${note}`) : null);
  const classes = [image ? "pictured" : "", item.row === page.item ? "chosen" : ""].join(" ").trim();
  return make(
    "li", { class: classes, "data-row": item.row },
    make("span", { class: "rank" }, String(rank)), image, name,
    make("span", { class: "score" }, item.score.toFixed(3)), parts(item, largest),
  );
}

function list(heading, items, kind, note, nothing) {
  const sizes = items.flatMap((item) => Object.values(item.parts ?? {}).map(Math.abs));
  const largest = Math.max(...sizes, 1e-12);
  const entries = items.map((item, place) => entry(item, place + 1, largest, note ? note(item) : ""));
  const shown = entries.length ? make("ol", {}, ...entries) : make("p", { class: "soft" }, nothing);
  return make("div", { class: `list ${kind}` }, make("h3", { class: "clamp" }, heading), shown);
}

function historyOf(answer) {
  const more = answer.known - answer.history.length;
  const shown = answer.history.map((item) =>
    make("li", {}, itemButton(item), item.split ? make("span", { class: "split" }, ` ${item.split}`) : null),
  );
  if (more > 0) shown.push(make("li", {}, `and ${more.toLocaleString("en")} more`));
  return make("ul", { class: "history" }, ...shown);
}

// Show a user's history, and the recommendations of each run beside each other.
function showUser(answer, heading) {
  const runs = page.about.runs;
  const ranks = answer.runs.map((items) => new Map(items.map((item, place) => [item.row, place + 1])));
  const lists = answer.runs.map((items, run) => {
    const note = (item) => {
      const rank = ranks[1 - run]?.get(item.row);
      return rank ? `#${rank} in ${runs[1 - run].name}` : "";
    };
    const made = list(`${runs[run].name}: recommended`, items, `run-${run}`, runs.length > 1 ? note : null,
      "Nothing is left to recommend.");
    if (runs[run].reason) made.append(make("p", { class: "soft" }, `No contributions: ${runs[run].reason}.`));
    return made;
  });
  const count = `${answer.known.toLocaleString("en")} ${answer.known === 1 ? "item" : "items"} in the history`;
  const explained = page.about.modalities.length
    ? "Bars: how much the score falls if no item has the modality; dashed where it rises. They need not add up to the score."
    : "";
  document.getElementById("who").replaceChildren(
    make("h2", { class: "clamp" }, heading), make("p", { class: "soft" }, count), historyOf(answer),
    make("div", { class: "lists" }, ...lists), make("p", { class: "soft" }, explained),
  );
}

// Show an item and the items most like it, under each modality and the rows of each run.
function showItem(answer) {
  const image = picture(answer);
  const address = answer.image && !image ? make("p", { class: "soft clamp" }, `picture: ${answer.image}`) : null;
  const inList = page.items.includes(answer.row);
  const act = page.canFold && !inList
    ? make("button", { type: "button", class: "act", id: "add",
      onclick: () => go({ user: null, items: [...page.items, answer.row] }) },
    page.items.length ? "Add to the new user's items" : "Recommend to a new user who has it")
    : null;
  const text = make("div", {}, make("h2", { class: "clamp" }, answer.title ?? answer.id),
    answer.title ? make("p", { class: "soft clamp" }, answer.id) : null, address, act);
  const lists = answer.tables.map(({ table, items }) => list(table, items, "", null, "The item does not have it."));
  document.getElementById("like").replaceChildren(
    make("div", { class: "chosen-item" }, image, text),
    make("p", { class: "soft" }, "The most similar items, by the cosine of their features or of their trained rows:"),
    make("div", { class: "lists" }, ...lists),
  );
}
