// The state of the page stands in the fragment of its address: #user=3&item=5&map=1 or #items=1,2. Whatever is chosen
// changes the fragment, and a change of the fragment shows what was chosen; so the browser's "back" works.

const page = { about: null, user: null, items: [], item: null, canFold: !document.getElementById("answers"), turn: 0, shown: {} };
const LONGEST_REQUEST = 60000;

// A page in one file holds some answers; otherwise the server gives them.
const element = document.getElementById("answers");
const held = element ? JSON.parse(element.textContent) : null;

function heldAnswer(name, query) {
  if (name === "users" || name === "items") {
    const text = query.q.trim().toLowerCase();
    return { found: held[name].filter((each) => nameOf(each).toLowerCase().includes(text)).slice(0, 12) };
  }
  const answer = held[`${name}?${new URLSearchParams(query)}`];
  if (!answer) throw new Error("This file holds only some users and items, and not this one.");
  return answer;
}

async function ask(name, query = {}) {
  if (held) return heldAnswer(name, query);
  const reply = await fetch(`api/${name}?${new URLSearchParams(query)}`);
  const isJson = (reply.headers.get("Content-Type") ?? "").startsWith("application/json");
  if (!isJson) throw new Error(`The program does not answer this (${reply.status}): choose fewer items.`);
  const answer = await reply.json();
  if (!reply.ok) throw new Error(answer.error);
  return answer;
}

function addressOfPicture(item) {
  return `api/picture?row=${item.row}`;
}

function report(error) {
  const problem = document.getElementById("problem");
  const isGone = error instanceof TypeError;
  problem.textContent = error ? (isGone ? "The program no longer answers: start slmrec-jax explore again." : error.message) : "";
  problem.hidden = !error;
}

function numbers(text) {
  return [...new Set((text ?? "").split(",").filter((each) => /^\d{1,10}$/.test(each)).map(Number))];
}

function readFragment() {
  const given = new URLSearchParams(location.hash.slice(1));
  const one = (name) => numbers(given.get(name))[0] ?? null;
  return { user: one("user"), items: numbers(given.get("items")), item: one("item"), map: one("map") ?? 0 };
}

// Change what is chosen; what is not named stays.
function go(changes) {
  const chosen = { ...readFragment(), ...changes };
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(chosen)) {
    if (value !== null && value !== 0 && value.length !== 0) given.set(name, String(value));
    if (value === 0 && name !== "map") given.set(name, "0");
  }
  location.hash = given.toString().replaceAll("%2C", ",");
}

function mark() {
  const marks = [];
  const { who, like } = page.shown;
  for (const item of who?.history ?? []) marks.push({ item, color: "--history" });
  (who?.runs ?? []).forEach((items, run) => items.forEach((item) => marks.push({ item, color: `--run-${run}` })));
  if (like) marks.push({ item: like, color: "--chosen", ring: true });
  map.marks = marks;
  const entries = [["--point", "items"]];
  if (who) entries.push(["--history", "history"], ...page.about.runs.map((run, place) => [`--run-${place}`, run.name]));
  if (like) entries.push(["--chosen", "chosen item"]);
  document.getElementById("legend").replaceChildren(...entries.map(([name, text]) => {
    const sign = make("i", {});
    sign.style.background = `var(${name})`;
    return make("span", {}, sign, text);
  }));
  drawMap();
}

async function show() {
  const turn = ++page.turn;
  const chosen = readFragment();
  const isCurrent = () => turn === page.turn;
  Object.assign(page, { user: chosen.user, items: chosen.items, item: chosen.item });
  let missing = null; // a part of the page that cannot be shown leaves the other as it is
  const orNothing = (asked) => asked.catch((error) => { missing = error; return null; });
  try {
    const [who, like] = await Promise.all([
      chosen.user !== null ? orNothing(ask("user", { row: chosen.user }))
        : chosen.items.length ? orNothing(ask("new", { rows: chosen.items })) : null,
      chosen.item !== null ? orNothing(ask("similar", { row: chosen.item })) : null,
    ]);
    if (!isCurrent()) return; // another choice was made meanwhile
    page.shown = { who, like };
    if (who) showUser(who, chosen.user !== null ? `User ${who.id}` : "A new user");
    else document.getElementById("who").replaceChildren(make("p", { class: "soft" }, "Choose a user or an item."));
    if (like) showItem(like);
    else document.getElementById("like").replaceChildren();
    const panel = document.getElementById("like");
    const isBelow = panel.getBoundingClientRect().top > innerHeight - 120;
    if (like && page.lastItem !== undefined && page.lastItem !== like.row && isBelow) panel.scrollIntoView();
    page.lastItem = like ? like.row : null;
    const run = chosen.map < page.about.runs.length ? chosen.map : 0;
    if (map.run !== run) await loadMap(run, page.about.runs.map((each) => each.name), isCurrent);
    if (!isCurrent()) return;
    mark();
    report(missing);
  } catch (error) {
    if (isCurrent()) report(error);
  }
  if (isCurrent()) document.body.dataset.shown = location.hash || "#";
}

// Show results below a search box while one types; Enter takes the first.
function searching(kind, choose, label) {
  const input = document.getElementById(`find-${kind}`);
  const found = document.getElementById(`found-${kind}s`);
  let turn = 0;
  let first = null;
  const search = async () => {
    const own = ++turn;
    try {
      const answer = await ask(`${kind}s`, { q: input.value });
      if (own !== turn) return;
      first = answer.found[0] ?? null;
      found.replaceChildren(...answer.found.map((each) => make("li", {}, label(each, () => choose(each)))));
      if (!first) found.replaceChildren(make("li", { class: "soft" }, "none"));
    } catch (error) {
      report(error);
    }
  };
  let waiting = null;
  input.addEventListener("input", () => {
    first = null;
    clearTimeout(waiting);
    waiting = setTimeout(search, 80);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && first) choose(first);
  });
  return search();
}

async function recommendToNewUser() {
  try {
    const ids = document.getElementById("ids").value;
    if (new URLSearchParams({ ids }).toString().length > LONGEST_REQUEST) throw new Error("These are too many ids: leave out some.");
    const { rows, unknown } = await ask("rows", { ids });
    if (unknown.length) throw new Error(`There is no item ${unknown.slice(0, 3).join(", ")}: give ids as in the data, one a line.`);
    if (!rows.length) throw new Error("Write ids of items, one a line.");
    report(null);
    go({ user: null, items: rows });
  } catch (error) {
    report(error);
  }
}

async function start() {
  try {
    page.about = await ask("about");
    const { data, users, items, runs } = page.about;
    document.title = `${data}: ${runs.map((run) => run.name).join(", ")}`;
    document.getElementById("title").textContent = document.title;
    const facts = runs.map((run) => `${run.name}: ${Object.entries(run.facts).map((pair) => pair.join(" ")).join(", ")}`);
    const sample = held ? [`this file holds ${held.users.length} of the users and ${held.items.length} of the items`] : [];
    document.getElementById("sizes").textContent =
      [`${users.toLocaleString("en")} users, ${items.toLocaleString("en")} items`, ...sample, ...facts].join(" · ");
    const chooseUser = (each) => go({ user: each.row, items: [] });
    await Promise.all([
      searching("user", chooseUser, (each, act) =>
        make("button", { type: "button", onclick: act }, make("span", { class: "clamp" }, each.id))),
      searching("item", (each) => go({ item: each.row }), (each) => itemButton(each)),
    ]);
    document.getElementById("new-user").hidden = !page.canFold;
    document.getElementById("recommend").addEventListener("click", recommendToNewUser);
    window.addEventListener("hashchange", show);
    await show();
  } catch (error) {
    report(error);
  }
}

start();
