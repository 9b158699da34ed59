/** Pieces of HTML and SVG as text. */

/** Text that is safe inside an element or a quoted attribute. */
export function escaped(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

/** A number for people. */
export function number(value: number): string {
  if (!Number.isFinite(value)) return value > 0 ? '∞' : String(value);
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) {
    const [digits, exponent] = value.toExponential(1).split('e') as [string, string];
    return `${digits}·10<sup>${Number(exponent) < 0 ? '−' : ''}${Math.abs(Number(exponent))}</sup>`;
  }
  return String(Number(value.toPrecision(3))).replace('-', '−');
}

export function percent(value: number): string {
  return `${Number((100 * value).toPrecision(3))} %`;
}

/** The end of a long name tells more than its beginning. */
export function tail(name: string, width: number): string {
  return name.length <= width ? name : `…${name.slice(1 - width)}`;
}

/** An SVG drawing that scales down to the width of the page, with a description for those who cannot see it. */
export function drawing(width: number, height: number, description: string, body: string): string {
  return (
    `<svg viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" ` +
    `aria-label="${escaped(description)}">${body}</svg>`
  );
}
