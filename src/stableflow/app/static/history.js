// The page History: every result, kept on disk.
import { call, fileOf } from "./api.js";
import { $, make, showDifference } from "./dom.js";
import { reopen } from "./edit.js";
import { fail } from "./stage.js";

export async function showHistory(open) {
  const entries = await call("api/history");
  $("history-text").textContent = entries.length
    ? `${entries.length === 1 ? "One result" : `${entries.length} results`}. A picture that you downloaded brings its settings back when you drop it here.`
    : "Nothing yet. Every result is kept here, also when the app is closed.";
  $("entries").replaceChildren(...entries.map((entry) => card(entry, open)));
}

function card(entry, open) {
  const bring = async () => {
    try {
      open(await reopen(entry.id));
    } catch (error) {
      fail(error.message);
      open("edit");
    }
  };
  const shown = entry.runs[0].pictures[0].prompt, words = make("span"), count = entry.runs[0].strokes?.length;
  showDifference(words, entry.ask.prompt, shown);
  const wish = make("p", {}, count ? make("b", { text: count === 1 ? "One layer: " : `${count} layers: ` }) : null, words);
  const remove = async (event) => {
    if (event.target.textContent === "Delete") { event.target.textContent = "Really delete?"; return; }
    await call(`api/history/${entry.id}`, { method: "DELETE" });
    await showHistory(open);
  };
  return make("article", { class: "card", "data-entry": entry.id },
    make("button", { type: "button", title: "Open it again", on: { click: bring } },
      make("img", { src: fileOf(entry, "thumb.png"), alt: shown, loading: "lazy", class: "tiny" })),
    make("div", { class: "text" }, wish, make("p", { class: "quiet", text: new Date(entry.made * 1000).toLocaleString() }),
      make("div", { class: "row" },
        make("button", { type: "button", class: "small open", text: "Open", on: { click: bring } }),
        make("button", { type: "button", class: "small", text: "Delete", on: { click: remove } }))));
}
