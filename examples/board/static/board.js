// The board's page. What to draw comes from the server's version ("look"), so that one open page can live through the
// promotion of the next version.

import { connect, tell } from "/live/moorage.js";

const DRAFT = "board:draft:v1";
const VIEW = "board:view:v1";
const ME = "board:me:v1";
const NOTES = "board:notes:v1";
const NAMES = {
  [`${DRAFT}.text`]: "draft",
  [`${DRAFT}.colour`]: "colour",
  [`${DRAFT}.important`]: "importance",
  [`${VIEW}.filter`]: "filter",
  [`${ME}.name`]: "name",
};
const PEOPLE_SHOWN = 5;
const GAP = 16;
const STORY_SHOWN = 8;
const LETTERS = 280;

const $ = (id) => document.getElementById(id);
const live = connect({ url: "/live", status: $("connection") });
let look = { version: "", palette: [], indexed: false, important: false };
let lastVersion = "";
let lastDraft = "";
let seen = null; // ids of notes already drawn: the others settle in
let whenSeen = 0;

// ---- what the person does ------------------------------------------------------------------------------------
$("text").addEventListener("input", () => {
  live.set(DRAFT, "text", $("text").value);
  lastDraft = $("text").value;
  drawKept();
});

$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) $("composer").requestSubmit();
});

$("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!$("text").value.trim()) return $("text").focus();
  try {
    await live.send("add_note");
    lastDraft = "";
  } catch (error) {
    say(error.message, "warn");
  }
});

$("palette").addEventListener("change", (event) => {
  live.set(DRAFT, "colour", look.indexed ? Number(event.target.value) : look.palette[Number(event.target.value)]);
  drawComposer();
});

$("important").addEventListener("change", () => live.set(DRAFT, "important", $("important").checked));

$("filters").addEventListener("click", (event) => {
  const chosen = event.target.closest("button")?.dataset.filter;
  if (!chosen) return;
  live.set(VIEW, "filter", chosen);
  drawNotes();
});

$("notes").addEventListener("click", (event) => {
  const id = event.target.closest(".note")?.dataset.id;
  if (event.target.closest(".heart")) live.send("heart", id);
  if (event.target.closest(".remove")) live.send("remove_note", id);
});

$("name-form").addEventListener("submit", (event) => {
  event.preventDefault();
  $("name").blur();
});

$("name").addEventListener("change", () => {
  if ($("name").value.trim()) live.send("rename", $("name").value);
  else drawName();
});

// ---- what the server says ------------------------------------------------------------------------------------
live.on("welcome", (welcome) => {
  drawStory(welcome);
  drawComposer();
  drawName();
  drawNotes();
  greet(welcome);
});

live.on("message", (name, data) => {
  if (name !== "look") return;
  look = data;
  const changed = lastVersion && lastVersion !== look.version;
  $("version").textContent = look.version;
  $("version").hidden = false;
  $("version").classList.toggle("new", Boolean(changed));
  if (changed && live.welcome.outcome === "resumed") {
    say(`The board moved from ${lastVersion} to ${look.version} under your hands. Your draft came along.`);
  }
  lastVersion = look.version;
  drawPalette();
  drawComposer();
  drawNotes();
});

live.on("state", (id) => {
  if (id === DRAFT) drawComposer(true);
  if (id === ME) drawName();
});
live.on("shared", drawNotes);
live.on("people", drawPeople);
live.on("pending", drawKept);
live.on("refused", (refused) => say(refused.message, "warn"));
live.on("status", (status) => {
  drawKept();
  if (status === "taken_over") say("This session is open in another tab.", "warn", "Use it here", () => live.takeBack());
  if (status === "outdated") say("This page is too old for the server.", "warn", "Reload", () => location.reload());
});
live.on("drain", () => say("This version is being retired. You can go on until you close the page.", "warn"));

function greet(welcome) {
  if (welcome.outcome !== "fresh") return;
  const typed = lastDraft.trim();
  const why = tell(welcome, NAMES)[0].text;
  if (!typed) return say(`${why}.`, "warn");
  say(`${why}. Your last draft is still on this page.`, "warn", "Put it back", () => {
    live.set(DRAFT, "text", typed);
    drawComposer(true);
    $("notice").hidden = true;
  });
}

// ---- drawing -------------------------------------------------------------------------------------------------
function drawComposer(force = false) {
  const draft = live.state(DRAFT);
  const text = draft.text ?? "";
  if (force || document.activeElement !== $("text") || $("text").value === "" || live.welcome.outcome === "fresh") {
    if ($("text").value !== text) $("text").value = text;
  }
  if (text) lastDraft = text;
  const name = look.indexed ? look.palette[draft.colour] : draft.colour;
  $("composer").style.setProperty("--tone", `var(--${name ?? "yellow"})`);
  for (const input of $("palette").querySelectorAll("input")) input.checked = look.palette[Number(input.value)] === name;
  $("important-box").hidden = !look.important;
  $("important").checked = Boolean(draft.important);
  drawKept();
}

function drawPalette() {
  const legend = $("palette").querySelector("legend");
  $("palette").replaceChildren(
    legend,
    ...look.palette.map((name, i) => {
      const label = make("label", { title: name });
      label.style.setProperty("--tone", `var(--${name})`);
      label.append(make("input", { type: "radio", name: "colour", value: String(i), ariaLabel: name }), make("span"));
      return label;
    }),
  );
}

function drawKept() {
  const text = $("text").value;
  const left = LETTERS - text.length;
  const waiting = live.pending.length > 0;
  let words = "";
  if (text && live.status === "live") words = waiting ? "Keeping your draft" : "Draft kept";
  else if (text) words = waiting ? "Kept on this page until the connection is back" : "Draft kept";
  $("kept").textContent = text && left < 60 ? `${words} · ${left} letters left` : words;
}

function drawName() {
  if (document.activeElement !== $("name")) $("name").value = live.state(ME).name ?? "";
}

function drawFilters(notes) {
  const chosen = live.state(VIEW).filter ?? "all";
  const choices = ["all", "mine", ...look.palette.filter((name) => chosen === name || notes.some((n) => n.colour === name))];
  $("filters").replaceChildren(
    ...choices.map((name) => {
      const button = make("button", { type: "button", ariaPressed: String(name === chosen) });
      button.dataset.filter = name;
      if (look.palette.includes(name)) {
        const dot = make("i");
        dot.style.setProperty("--tone", `var(--${name})`);
        button.append(dot);
      }
      button.append(name === "all" ? "All notes" : name === "mine" ? "Mine" : name[0].toUpperCase() + name.slice(1));
      return button;
    }),
  );
  return chosen;
}

function drawNotes() {
  const mine = live.welcome?.tag;
  const notes = live.shared[NOTES]?.notes ?? [];
  const chosen = drawFilters(notes);
  const shown = notes
    .filter((note) => chosen === "all" || (chosen === "mine" ? note.by === mine : note.colour === chosen))
    .sort((a, b) => Boolean(b.important) - Boolean(a.important));
  $("notes").replaceChildren(...shown.map((note) => drawNote(note, mine)));
  layNotes();
  $("empty").hidden = shown.length > 0 || !live.welcome;
  $("empty-text").textContent = notes.length
    ? "No note fits this filter."
    : "The board is empty. The first note is yours.";
  seen = new Set(notes.map((note) => note.id));
  whenSeen = whenSeen || performance.now();
}

function layNotes() {
  for (const note of $("notes").children) note.style.gridRowEnd = "";
  const heights = [...$("notes").children].map((note) => note.offsetHeight);
  heights.forEach((height, i) => ($("notes").children[i].style.gridRowEnd = `span ${height + GAP}`));
}

let laidWidth = 0;
new ResizeObserver(([entry]) => {
  if (entry.contentRect.width !== laidWidth) layNotes();
  laidWidth = entry.contentRect.width;
}).observe($("notes"));

function drawNote(note, mine) {
  const item = $("note-template").content.firstElementChild.cloneNode(true);
  item.dataset.id = note.id;
  item.style.setProperty("--tone", `var(--${note.colour})`);
  item.classList.toggle("flagged", Boolean(note.important));
  item.classList.toggle("fresh", seen !== null && !seen.has(note.id) && performance.now() - whenSeen > 500);
  item.querySelector(".words").textContent = note.text;
  item.querySelector(".by").textContent = note.by === mine ? "You" : note.name;
  item.querySelector(".remove").hidden = note.by !== mine;
  const heart = item.querySelector(".heart");
  heart.ariaPressed = String(note.hearts.includes(mine));
  heart.ariaLabel = `Heart, ${note.hearts.length}`;
  heart.querySelector(".count").textContent = note.hearts.length || "";
  return item;
}

function drawPeople({ count, people }) {
  const others = [...people].sort((a, b) => (b.tag === live.welcome?.tag) - (a.tag === live.welcome?.tag));
  const shown = others.slice(0, PEOPLE_SHOWN);
  const items = shown.map((person) => {
    const name = person.name ?? "Somebody";
    const item = make("li", { title: person.tag === live.welcome?.tag ? `${name} (you)` : name });
    item.style.setProperty("--hue", String(parseInt(person.tag.slice(0, 4), 16) % 360));
    item.textContent = name.split(" ").map((word) => word[0]).slice(0, 2).join("");
    return item;
  });
  if (count > shown.length) items.push(make("li", { className: "more", textContent: `+${count - shown.length}` }));
  $("people").replaceChildren(...items);
  $("people").setAttribute("aria-label", `${count} here`);
}

function drawStory(welcome) {
  const story = tell(welcome, NAMES);
  $("outcome").textContent = outcome(welcome);
  $("glance").textContent = outcome(welcome);
  $("facts").replaceChildren(
    ...fact("Served by", welcome.allocation_number ? `allocation ${welcome.allocation_number}` : "this machine"),
    ...fact("Deployment", welcome.deployment ? String(welcome.deployment) : "none"),
    ...fact("Environment", welcome.environment),
  );
  $("story").replaceChildren(
    ...story.slice(0, STORY_SHOWN).map(({ at, text }, i) => {
      const item = make("li", { className: i === 0 ? welcome.outcome : "" });
      item.append(text, make("time", { dateTime: at.toISOString(), textContent: at.toLocaleTimeString([], { timeStyle: "medium" }) }));
      return item;
    }),
  );
}

function outcome(welcome) {
  switch (welcome.outcome) {
    case "created":
      return "New. What you write is kept in the session store as you type.";
    case "resumed":
      return welcome.states[DRAFT]?.text
        ? "Resumed from the session store, draft kept."
        : "Resumed from the session store.";
    default:
      return `${tell(welcome, NAMES)[0].text}.`;
  }
}

function say(text, tone = "", action = "", act = null) {
  $("notice-text").textContent = text;
  $("notice").className = `notice ${tone}`;
  $("notice-action").hidden = !action;
  $("notice-action").textContent = action;
  $("notice-action").onclick = act;
  $("notice").hidden = false;
}

$("notice-close").addEventListener("click", () => ($("notice").hidden = true));

function fact(term, value) {
  return [make("dt", { textContent: term }), make("dd", { textContent: value })];
}

function make(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}
