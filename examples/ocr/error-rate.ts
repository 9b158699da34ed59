/** Character error rate: edit distance over the length of the truth, summed over lines. */
import { distance } from 'fastest-levenshtein';

export function characterErrorRate(pairs: Iterable<{ truth: string; reading: string }>): number {
  let edits = 0;
  let characters = 0;
  for (const { truth, reading } of pairs) {
    edits += distance(truth, reading);
    characters += truth.length;
  }
  if (characters === 0) throw new Error('character error rate: no text given');
  return edits / characters;
}
