/** A horizontal bar chart as SVG text, for one quantity of many rows. */

export interface Bar {
  readonly label: string;
  readonly value: number;
  /** Rows of one group share a colour. */
  readonly group: string;
}

export interface Chart {
  readonly title: string;
  /** Where a line is drawn: the value that stands for "the same". */
  readonly line: number | null;
  readonly bars: readonly Bar[];
}

const WIDTH = 860;
const LABEL_WIDTH = 330;
const BAR_HEIGHT = 16;
const GAP = 6;
const TOP = 44;
/** Told apart by people who see few colours, too (Okabe and Ito). */
const COLOURS = ['#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00'];

const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

export function barChart({ title, line, bars }: Chart): string {
  const groups = [...new Set(bars.map(({ group }) => group))];
  const longest = Math.max(line ?? 0, ...bars.map(({ value }) => value), Number.MIN_VALUE);
  const scale = (WIDTH - LABEL_WIDTH - 70) / longest;
  const height = TOP + bars.length * (BAR_HEIGHT + GAP) + 24;
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    `<text x="10" y="20" font-size="15" fill="#222222">${escaped(title)}</text>`,
  ];
  groups.forEach((group, i) => {
    if (groups.length < 2) return;
    const x = 10 + 140 * i;
    parts.push(
      `<rect x="${x}" y="27" width="10" height="10" fill="${COLOURS[i % COLOURS.length]}"/>`,
      `<text x="${x + 14}" y="36" fill="#222222">${escaped(group)}</text>`,
    );
  });
  bars.forEach(({ label, value, group }, i) => {
    const y = TOP + i * (BAR_HEIGHT + GAP);
    const width = Math.max(1, value * scale);
    const colour = COLOURS[groups.indexOf(group) % COLOURS.length];
    parts.push(
      `<text x="${LABEL_WIDTH - 8}" y="${y + 12}" text-anchor="end" fill="#222222">${escaped(label)}</text>`,
      `<rect x="${LABEL_WIDTH}" y="${y}" width="${width.toFixed(1)}" height="${BAR_HEIGHT}" fill="${colour}"/>`,
      `<text x="${(LABEL_WIDTH + width + 5).toFixed(1)}" y="${y + 12}" fill="#222222">${Number(value.toPrecision(3))}</text>`,
    );
  });
  if (line !== null) {
    const x = (LABEL_WIDTH + line * scale).toFixed(1);
    parts.push(
      `<line x1="${x}" x2="${x}" y1="${TOP - 4}" y2="${height - 20}" stroke="#222222" stroke-dasharray="4 3"/>`,
    );
  }
  return `${[...parts, '</svg>'].join('\n')}\n`;
}
