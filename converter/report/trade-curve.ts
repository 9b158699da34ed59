/** The trade that keeping sites faithful offers: what the judgement of the whole model is with so many of them kept. */
import type { Choice } from '../calibrate/plan.js';
import { drawing, escaped } from './html.js';

const [WIDTH, HEIGHT] = [860, 220];
const [LEFT, RIGHT, TOP, BOTTOM] = [62, 24, 16, 44];
/** Values that differ by more than this factor are drawn on a logarithmic scale. */
const WIDE = 8;

const short = (value: number): string => String(Number(value.toPrecision(3)));

/** @param sites how many there are in all */
export function tradeCurve({ label, original, bound, keep, trade }: Choice, sites: number): string {
  const limits = original === 0 ? [bound] : [original - bound, original + bound];
  const values = trade.map(({ value }) => value);
  const marked = values.some((value) => value > original) || original === 0 ? limits.at(-1)! : limits[0]!;
  const drawn = [...values, marked, ...(original === 0 ? [] : [original])];
  const isWide = Math.min(...drawn) > 0 && Math.max(...drawn) / Math.min(...drawn) > WIDE;
  const scale = (value: number): number => (isWide ? Math.log(value) : value);
  const [low, high] = [Math.min(...drawn.map(scale)), Math.max(...drawn.map(scale))];
  const pad = (high - low || 1) * 0.18;
  const y = (value: number): number =>
    TOP + ((HEIGHT - TOP - BOTTOM) * (high + pad - scale(value))) / (high - low + 2 * pad);
  const x = (kept: number): number => LEFT + 14 + ((WIDTH - LEFT - RIGHT - 28) * kept) / Math.max(1, sites);
  const line = (value: number, style: string, text: string, above: boolean): string =>
    `<path class="${style}" d="M${LEFT} ${y(value)}H${WIDTH - RIGHT}"/>` +
    `<text class="label end" x="${WIDTH - RIGHT}" y="${y(value) + (above ? -6 : 15)}">${escaped(text)}</text>`;
  const isAbove = marked >= original;
  const lines =
    line(marked, 'limit', `bound ${short(marked)}`, isAbove) +
    (original === 0 ? '' : line(original, 'level', `original ${short(original)}`, !isAbove));
  const path = trade
    .map(({ keep: kept, value }, index) => `${index === 0 ? 'M' : 'L'}${x(kept)} ${y(value)}`)
    .join('');
  const dots = trade.map(({ keep: kept, value, within }) => {
    const isChosen = kept === keep;
    const title = `${kept} of ${sites} kept: ${short(value)}`;
    return (
      `<circle class="${within ? 'replaced' : 'refused'}" cx="${x(kept)}" cy="${y(value)}" r="${isChosen ? 8 : 5}"><title>${escaped(title)}</title></circle>` +
      `<text class="label${isChosen ? ' strong' : ''}" x="${x(kept) + 12}" y="${y(value) - 8}">${short(value)}</text>`
    );
  });
  const step = Math.max(1, Math.ceil(sites / 16));
  const ticks = Array.from({ length: sites + 1 }, (_, kept) =>
    kept % step === 0 ? `<text class="label middle" x="${x(kept)}" y="${HEIGHT - 24}">${kept}</text>` : '',
  );
  const axis =
    `<path class="axis" d="M${LEFT} ${HEIGHT - BOTTOM}H${WIDTH - RIGHT}"/>` +
    `<text class="label middle" x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 6}">sites kept faithful</text>`;
  return drawing(
    WIDTH,
    HEIGHT,
    `${label} by the number of sites kept faithful`,
    `${axis}${lines}<path class="curve" d="${path}"/>${dots.join('')}${ticks.join('')}`,
  );
}
