/** The equation of an Einsum, read into the letters of its inputs and its output. */

/** Letters of an Einsum equation, '...' spelled out; `null` for forms that are not understood. */
export interface Equation {
  readonly inputs: readonly (readonly string[])[];
  readonly output: readonly string[];
}

export function parseEquation(text: string, ranks: readonly number[]): Equation | null {
  const [left, right] = text.replaceAll(' ', '').split('->');
  if (left === undefined) return null;
  const terms = left.split(',');
  if (terms.length !== ranks.length) return null;
  const letters = (term: string, rank: number | null): string[] | null => {
    const at = term.indexOf('...');
    if (at < 0) return term.includes('.') ? null : [...term];
    const named = term.length - 3;
    const count = (rank ?? 0) - named;
    if (count < 0) return null;
    const open = Array.from({ length: count }, (_, i) => `.${count - i}`);
    return [...term.slice(0, at), ...open, ...term.slice(at + 3)];
  };
  const inputs = terms.map((term, i) => letters(term, ranks[i]!));
  if (inputs.some((entry, i) => entry === null || entry.length !== ranks[i])) return null;
  const known = inputs as string[][];
  if (right === undefined) {
    const all = known.flat();
    const once = [...new Set(all)].filter(
      (letter) => letter.startsWith('.') || all.indexOf(letter) === all.lastIndexOf(letter),
    );
    return { inputs: known, output: once.sort() };
  }
  const open = Math.max(0, ...known.map((entry) => entry.filter((letter) => letter.startsWith('.')).length));
  const output = letters(right, right.replace('...', '').length + (right.includes('...') ? open : 0));
  return output === null ? null : { inputs: known, output };
}
