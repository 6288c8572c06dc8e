/** A text to begin with, by the data set that a bundle was trained on. No DOM. */

const BY_DATA = {
  ewt: "My neighbour's cat slept on the warm roof.",
  "ud-english-ewt": "My neighbour's cat slept on the warm roof.",
  gsdsimp: "我 喜欢 猫 。",
  trec: "How many people live in Vienna ?",
  "cmudict-pronounce": "hello",
  "cmudict-stress": "HH AH L OW",
  multi30k: "ein mann schläft auf einer bank .",
};

/** The text; empty if the data set is not one of those. */
export function exampleText(contract) {
  return BY_DATA[contract.training?.data] ?? "";
}
