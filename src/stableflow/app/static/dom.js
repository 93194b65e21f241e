// Small helpers; text always goes in as text.

export const $ = (id) => document.getElementById(id);

export function make(tag, { text, on = {}, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined && value !== null) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  for (const [event, handler] of Object.entries(on)) element.addEventListener(event, handler);
  element.append(...children.filter((child) => child !== null));
  return element;
}

export const wordsOf = (text) => text.split(/\s+/).filter(Boolean);

// A word's letters alone, in small letters.
export const bare = (word) => word.toLowerCase().replace(/[^\p{L}\p{N}_-]/gu, "");

// Longest common words of two texts: for each word of `to`, whether it is new, and which words of `from` are gone.
export function difference(from, to) {
  const a = wordsOf(from), b = wordsOf(to);
  const same = Array.from({ length: a.length + 1 }, () => new Array(b.length + 1).fill(0));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      same[i][j] = bare(a[i]) === bare(b[j]) ? same[i + 1][j + 1] + 1 : Math.max(same[i + 1][j], same[i][j + 1]);
  const parts = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && bare(a[i]) === bare(b[j])) { parts.push(["same", b[j]]); i++; j++; }
    else if (i < a.length && (j >= b.length || same[i + 1][j] >= same[i][j + 1])) parts.push(["gone", a[i++]]);
    else parts.push(["new", b[j++]]);
  }
  return parts;
}

export function showDifference(place, from, to) {
  place.replaceChildren();
  for (const [kind, word] of difference(from, to)) {
    const tag = { same: "span", gone: "del", new: "mark" }[kind];
    place.append(make(tag, { text: word }), " ");
  }
}
