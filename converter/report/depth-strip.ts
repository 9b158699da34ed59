/** The sites along the model's depth, from the first node to the last, coloured by what became of them. */
import type { Site } from '../site.js';
import { drawing, escaped } from './html.js';

/** `faithful`: replaced in mode calibrated, but with softmax's weights. `kept`: not replaced by this mode. */
export type Outcome = 'replaced' | 'faithful' | 'kept' | 'refused';

export interface PlacedSite {
  readonly site: Site;
  readonly outcome: Outcome;
  /** Anchor of the site's own section. */
  readonly anchor: string;
}

const WIDTH = 860;
const LEFT = 14;
const RADIUS = 8;

export function depthStrip(sites: readonly PlacedSite[]): string {
  const span = WIDTH - 2 * LEFT;
  const row = rows(sites.map(({ site }) => LEFT + span * site.depth));
  const height = 40 + 20 * Math.max(1, ...row.map((index) => index + 1));
  const line = height - 26;
  const marks = sites.map(({ site, outcome, anchor }, index) => {
    const x = LEFT + span * site.depth;
    const y = line - 14 - 20 * row[index]!;
    const title = `${site.name}: ${site.kind}, ${outcome}`;
    return (
      `<a href="#${anchor}"><path class="stem" d="M${x} ${y}V${line}"/>` +
      `<circle class="${outcome}" cx="${x}" cy="${y}" r="${RADIUS}"><title>${escaped(title)}</title></circle>` +
      `<text class="digit" x="${x}" y="${y + 3.5}">${index + 1}</text></a>`
    );
  });
  const axis =
    `<path class="axis" d="M${LEFT} ${line}H${WIDTH - LEFT}"/>` +
    `<text class="label" x="${LEFT}" y="${line + 18}">input</text>` +
    `<text class="label end" x="${WIDTH - LEFT}" y="${line + 18}">output</text>`;
  return drawing(
    WIDTH,
    height,
    `${sites.length} attention sites along the depth of the model`,
    axis + marks.join(''),
  );
}

/** Marks that would overlap go one row higher. */
function rows(positions: readonly number[]): number[] {
  const free: number[] = [];
  return positions.map((x) => {
    let row = 0;
    while (free[row] !== undefined && x < free[row]!) row++;
    free[row] = x + 2 * RADIUS + 3;
    return row;
  });
}
