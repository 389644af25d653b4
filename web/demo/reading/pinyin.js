const MARKED = { a: "āáǎà", e: "ēéěè", i: "īíǐì", o: "ōóǒò", u: "ūúǔù", ü: "ǖǘǚǜ" };

/** A syllable with its tone as a mark, from one with a number: "lu:4" is "lǜ", and "le5" is "le". */
export function pinyin(label) {
  const found = /^([a-z:]+)([1-5])$/.exec(label);
  if (!found) return label;
  const letters = found[1].replace("u:", "ü");
  const tone = Number(found[2]);
  if (tone === 5) return letters;
  // a and e have the mark, then the o of ou, else the last vowel.
  const at = [/[ae]/, /o(?=u)/, /[aeiouü](?=[^aeiouü]*$)/].map((p) => letters.search(p)).find((n) => n >= 0);
  if (at === undefined) return label;
  return letters.slice(0, at) + MARKED[letters[at]][tone - 1] + letters.slice(at + 1);
}
