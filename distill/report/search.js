// Word search: all words in any order, ignoring case and accents; "quoted phrases" match as a whole.

const NUM_HITS = 300;
const LETTERS = { ø: "o", ł: "l", đ: "d", ħ: "h", ı: "i", æ: "ae", œ: "oe", ς: "σ" };
const QUOTES = '"\u201c\u201d\u201e';

const foldLetters = (text) =>
  text
    .toUpperCase() // ß and SS, σ and ς
    .toLowerCase()
    .normalize("NFKD")
    .replace(/[\u0300-\u036f]/g, "")
    .replace(/[øłđħıæœς]/g, (letter) => LETTERS[letter]);

// A text normalised for comparison: lower case, no accents, single spaces.
const fold = (text) => foldLetters(text).replace(/\s+/g, " ");

// The folded text, with each character's index in the original, and one more for the end.
function foldWithPlaces(text) {
  const places = [];
  let folded = "";
  let place = 0;
  for (const letter of text) {
    const same = letter < "\x80" ? letter.toLowerCase() : foldLetters(letter);
    for (const unit of same.replace(/\s/g, " ")) {
      if (unit === " " && folded.endsWith(" ")) continue;
      folded += unit;
      for (let i = 0; i < unit.length; i += 1) places.push(place);
    }
    place += letter.length;
  }
  places.push(text.length);
  return { folded, places };
}

// The folded search terms of a query.
function searchTerms(query) {
  const pattern = new RegExp(`[${QUOTES}]([^${QUOTES}]*)(?:[${QUOTES}]|$)|([^\\s${QUOTES}]+)`, "g");
  const found = [...query.matchAll(pattern)].map(([, phrase, word]) => fold(phrase === undefined ? word : phrase).trim());
  return [...new Set(found.filter((term) => term !== ""))];
}

// The occurrences of any term in a text: [start, end] in order, touching ones merged.
function hitsIn(text, terms) {
  if (!terms.length) return [];
  const { folded, places } = foldWithPlaces(text);
  const found = [];
  for (const term of terms) {
    let num = 0;
    for (let at = folded.indexOf(term); at >= 0 && num < NUM_HITS; at = folded.indexOf(term, at + term.length)) {
      found.push([places[at], places[at + term.length]]);
      num += 1;
    }
  }
  found.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
  const joined = [];
  for (const [start, end] of found) {
    const last = joined[joined.length - 1];
    if (last && start <= last[1]) last[1] = Math.max(last[1], end);
    else joined.push([start, end]);
  }
  return joined;
}
